"""What may be wrong with a file that should hold an image."""

from __future__ import annotations

from s5mars.errors import WAY_OUT, DamagedFileError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "WAY_OUT", "DamagedFileError", "huge", "refuse_huge"]

MAX_PIXELS = 178_956_970
"""Above it a file is refused before memory is taken: Pillow's own limit, 16 000 × 11 000 pixels."""

MAX_BYTES = 1 << 30
"""Of the decoded values: so many pixels in colours of 16 bits."""


def refuse_huge(where: object, *, width: int, height: int, bytes_per_pixel: float = 1) -> None:
    """Refuse a declared size before anything of that size is made.

    Raises:
        DamagedFileError: if it has no pixel, or more than ``MAX_PIXELS`` or ``MAX_BYTES``.
    """
    if width < 1 or height < 1:
        raise DamagedFileError(
            f"{where}: declares {width}×{height} pixels, an image without any: {WAY_OUT}"
        )
    if width * height > MAX_PIXELS:
        raise huge(where, f"{width}×{height} pixels, more than")
    if width * height * bytes_per_pixel > MAX_BYTES:
        raise DamagedFileError(
            f"{where}: declares {width}×{height} pixels of {bytes_per_pixel:g} bytes, more than "
            f"the {MAX_BYTES:,} bytes that are read at once: cut it into parts, or check whether "
            "it is damaged"
        )


def huge(where: object, declared: str) -> DamagedFileError:
    """The error about a file that declares more than ``MAX_PIXELS``."""
    return DamagedFileError(
        f"{where}: declares {declared} the {MAX_PIXELS:,} pixels that are read at once: cut it "
        "into parts, or check whether it is damaged"
    )
