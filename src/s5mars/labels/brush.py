"""The run-length encoding of Label Studio's brush.

A stream of bits, the most significant first: 32 bits with the number of values, 5 with the bits of
a value less one, four times 4 with the bits of a length less one. Then runs until all values are
there: 1 bit (one value that repeats, or each value by itself), 2 bits that choose the width of the
length, the length less one, the value or the values. The values are the R, G, B and alpha of each
pixel, row by row; a pixel is painted where alpha is not 0.

Source: ``label_studio_converter/brush.py`` of HumanSignal, after the package rle-pack.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4


def decode_brush(data: Sequence[int], *, width: int, height: int) -> NDArray[np.bool_]:
    """(height, width) bool, True where painted.

    Args:
        data: bytes as whole numbers, ``value.rle`` of a result.
        width: ``original_width`` in pixels.
        height: ``original_height`` in pixels.

    Raises:
        ValueError, TypeError: if the data are not an image of this size.
    """
    coded = bytes(list(data))  # of a number, bytes() makes as many zeros
    bits = format(int.from_bytes(coded), f"0{8 * len(coded)}b") if coded else ""
    place = 0

    def read(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise ValueError("the run lengths end too early")
        place += count
        return int(bits[place - count : place], 2)

    total = read(32)
    if total != _CHANNELS * width * height:
        raise ValueError(
            f"the run lengths have {total:,} values, not {_CHANNELS} for each of "
            f"{width}×{height} pixels"
        )
    word = read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values: list[NDArray[np.bool_]] = []
    lengths: list[NDArray[np.int64]] = []
    done = 0
    while done < total:
        repeats = read(1)
        length = read(widths[read(2)]) + 1
        if done + length > total:
            raise ValueError("a run is longer than the image")
        if repeats:
            values.append(np.array([read(word) != 0]))
            lengths.append(np.array([length], np.int64))
        else:
            end = place + word * length
            if end > len(bits):
                raise ValueError("the run lengths end too early")
            single = np.frombuffer(bits[place:end].encode("ascii"), np.uint8) != ord("0")
            values.append(single.reshape(length, word).any(1))
            lengths.append(np.ones(length, np.int64))
            place = end
        done += length
    channels = np.repeat(np.concatenate(values), np.concatenate(lengths))
    return channels.reshape(height, width, _CHANNELS)[..., 3]
