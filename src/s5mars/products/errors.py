"""Limits for the size of images, and their errors."""

from __future__ import annotations

from s5mars.errors import REMEDY, DamagedFileError

MAX_PIXELS = 178_956_970
"""Maximum number of pixels of an image: the limit of Pillow, about 16 000 × 11 000."""

MAX_BYTES = 1 << 30
"""Maximum size of the decoded values: ``MAX_PIXELS`` in colours of 16 bits."""


def check_image_size(where: object, *, width: int, height: int, bytes_per_pixel: float = 1) -> None:
    """Check a declared size before memory is allocated.

    Raises:
        DamagedFileError: if it has no pixel, or exceeds ``MAX_PIXELS`` or ``MAX_BYTES``.
    """
    if width < 1 or height < 1:
        raise DamagedFileError(
            f"{where} declares {width}×{height} pixels, which is an empty image: {REMEDY}"
        )
    if width * height > MAX_PIXELS:
        raise too_large(where, f"{width}×{height} pixels, more than")
    if width * height * bytes_per_pixel > MAX_BYTES:
        raise DamagedFileError(
            f"{where} declares {width}×{height} pixels of {bytes_per_pixel:g} bytes, more than "
            f"the limit of {MAX_BYTES:,} bytes: split the image, or check whether it is damaged"
        )


def too_large(where: object, declared: str) -> DamagedFileError:
    """The error for a file that declares more than ``MAX_PIXELS``."""
    return DamagedFileError(
        f"{where} declares {declared} the limit of {MAX_PIXELS:,} pixels: split the image, or "
        "check whether it is damaged"
    )
