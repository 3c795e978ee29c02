"""The size at which a network sees images; a part of the model, whoever uses it."""

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
_SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Resolution:
    """What an image is resized to before anything else; its maps come back at full size.

    A divisor keeps the angle that a pixel covers in proportion, for images of many sizes from the
    same camera; a longer side makes images of several cameras alike.
    """

    divisor: float = 1.0
    side: int | None = None  # pixels of the longer side; takes the place of the divisor

    @classmethod
    def parse(cls, text: str) -> Resolution:
        """``"full"``, ``"1/2"`` (each side divided by 2), or ``"256"`` (pixels, longer side).

        Raises:
            UserError: for anything else.
        """
        text = str(text).strip()
        if text == _WHOLE:
            return cls()
        if (divided := _DIVIDED.fullmatch(text)) and float(divided[1]) >= 1:
            return cls(divisor=float(divided[1]))
        if text.isdecimal() and int(text) >= _SMALLEST_SIDE:
            return cls(side=int(text))
        raise UserError(
            f"resolution is {text!r}: give {_WHOLE}, a fraction such as 1/2, or the longer side in "
            f"pixels, {_SMALLEST_SIDE} or more"
        )

    def __str__(self) -> str:
        if self.side is not None:
            return str(self.side)
        return _WHOLE if self.divisor == 1 else f"1/{self.divisor:g}"

    def factor(self, width: int, height: int) -> float:
        """What the sides of an image of this size are multiplied by."""
        return 1 / self.divisor if self.side is None else self.side / max(width, height)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image of this size, resized; at least one pixel each."""
        factor = self.factor(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))

    def resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 → (h, w, 3) uint8, bilinear over all the pixels that become one."""
        height, width = image.shape[:2]
        size = self.size(width, height)
        if size == (width, height):
            return image
        # Imported here: the settings of a run are read where ``--help`` has to be quick.
        import numpy as np
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


FULL = Resolution()
"""Images as they are."""
