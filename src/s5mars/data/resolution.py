"""The resolution at which a network sees images; it is a part of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s5mars.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WHOLE = "full"
_DIVIDED = re.compile(r"1/(\d+(?:\.\d+)?)")
_SMALLEST_SIDE, _LARGEST_SIDE = 32, 65_536
_SHOWN = 40  # characters of a wrong value


@dataclass(frozen=True)
class Resolution:
    """Size to which images are resized; predicted maps have the full size again.

    A divisor suits images of many sizes from one camera, because it keeps the angle per pixel in
    proportion. A fixed longer side suits images of several cameras.
    """

    divisor: float = 1.0
    side: int | None = None  # pixels of the longer side; used instead of the divisor

    @classmethod
    def parse(cls, text: str) -> Resolution:
        """Parse ``"full"``, ``"1/2"`` (each side divided by 2) or ``"256"`` (longer side, pixels).

        Raises:
            UserError: if the text is something else.
        """
        text = str(text).strip()
        if text == _WHOLE:
            return cls()
        if (divided := _DIVIDED.fullmatch(text)) and 1 <= float(divided[1]) <= _LARGEST_SIDE:
            return cls(divisor=float(divided[1]))
        short = len(text) <= len(str(_LARGEST_SIDE))  # Python refuses to read thousands of digits
        if text.isdecimal() and short and _SMALLEST_SIDE <= int(text) <= _LARGEST_SIDE:
            return cls(side=int(text))
        got = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise UserError(
            f"--resolution must be {_WHOLE}, a fraction such as 1/2, or the longer side in pixels, "
            f"from {_SMALLEST_SIDE} to {_LARGEST_SIDE} (got {got!r})"
        )

    def __str__(self) -> str:
        if self.side is not None:
            return str(self.side)
        # All digits, because a model is used at the resolution that was written with it.
        return _WHOLE if self.divisor == 1 else f"1/{str(self.divisor).removesuffix('.0')}"

    def factor(self, width: int, height: int) -> float:
        """Scale factor for an image of this size."""
        return 1 / self.divisor if self.side is None else self.side / max(width, height)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image of this size after resizing; at least one pixel each."""
        return _scaled(width, height, self.factor(width, height))

    def resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize (H, W, 3) uint8 to (h, w, 3) uint8, bilinearly with antialiasing."""
        height, width = image.shape[:2]
        size = self.size(width, height)
        if size == (width, height):
            return image
        # Imported here to keep ``--help`` fast, which imports the settings.
        import numpy as np
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


FULL = Resolution()
"""Images are not resized."""


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) of an image that is reduced to a longer side of at most ``side`` pixels."""
    return _scaled(width, height, min(1.0, side / max(width, height)))


def _scaled(width: int, height: int, factor: float) -> tuple[int, int]:
    return max(1, round(width * factor)), max(1, round(height * factor))
