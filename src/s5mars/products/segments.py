"""Checks the tiles and strips of a TIFF before they are decoded.

tifffile decompresses a whole segment, whatever it expands to: a few kilobytes can fill the memory.
"""

from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s5mars.errors import REMEDY, DamagedFileError
from s5mars.products.errors import MAX_BYTES, check_image_size

_DEFLATE = (8, 32946)
_LZMA = 34925

_DEFLATE_RATIO = 1032  # maximum
_HARMLESS = 1 << 26  # a segment that cannot expand to more bytes is decoded without a check
_SLACK = 1 << 20  # some writers pad a segment

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_segments(path: Path, page: Any) -> None:
    """Check the size of the tiles or strips of a ``TiffPage``, declared and decompressed.

    Raises:
        DamagedFileError: if a tile exceeds the limits of an image, or a segment expands to more
            than its declared size.
    """
    tiled = page.is_tiled
    width = page.tilewidth if tiled else page.imagewidth
    rows = page.tilelength * page.tiledepth if tiled else min(page.rowsperstrip, page.imagelength)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    bits = samples * page.bitspersample
    check_image_size(f"{path}: its tile", width=width, height=rows, bytes_per_pixel=bits / 8)
    make = _decompressor(page.compression)
    if make is None:
        return
    limit = rows * math.ceil(width * bits / 8) + _SLACK
    length = path.stat().st_size
    with path.open("rb") as file:
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
            if page.compression in _DEFLATE and size * _DEFLATE_RATIO <= _HARMLESS:
                continue
            file.seek(offset)
            content = file.read(min(size, length))
            if page.fillorder == 2:
                content = content.translate(_REVERSED)
            if len(make().decompress(content, limit + 1)) > limit:
                raise DamagedFileError(
                    f"{path}: {size:,} compressed bytes expand to more than the declared "
                    f"{limit - _SLACK:,}: {REMEDY}"
                )


def _decompressor(compression: int) -> Callable[[], Any] | None:
    if compression in _DEFLATE:
        return zlib.decompressobj
    if compression == _LZMA:
        return lambda: lzma.LZMADecompressor(memlimit=MAX_BYTES)
    return None
