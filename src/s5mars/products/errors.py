"""What may be wrong with a file that should hold an image."""

from __future__ import annotations

from s5mars.errors import WAY_OUT, DamagedFileError

__all__ = ["MAX_PIXELS", "WAY_OUT", "DamagedFileError", "refuse_huge"]

MAX_PIXELS = 178_956_970
"""Above it a file is refused before memory is taken: Pillow's own limit, 16 000 × 11 000 pixels."""


def refuse_huge(where: object, *, width: int, height: int) -> None:
    """Refuse a declared size before anything of that size is made.

    Raises:
        DamagedFileError: if it is not in 1..``MAX_PIXELS``.
    """
    if width < 1 or height < 1:
        raise DamagedFileError(
            f"{where}: declares {width}×{height} pixels, an image without any: {WAY_OUT}"
        )
    if width * height > MAX_PIXELS:
        raise DamagedFileError(
            f"{where}: declares {width}×{height} pixels, more than the {MAX_PIXELS:,} that are "
            "read at once: cut it into parts, or check whether it is damaged"
        )
