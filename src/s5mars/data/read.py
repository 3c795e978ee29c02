"""Reading one image or one label, from a file to memory.

Every reader names the file in its error, so that a user can go and look at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.errors import DamagedFileError, UserError
from s5mars.products.decode import MaskFile, decode_mask, head_size, plain_image
from s5mars.products.files import IMAGE_ENDINGS, PDS_ENDINGS
from s5mars.products.names import parse_name
from s5mars.products.reader import open_product

if TYPE_CHECKING:  # it brings torch, which processes that only read do without
    from s5mars.types import Sample

__all__ = [
    "DamagedFileError",
    "UnknownIdsError",
    "has_black_edge",
    "image_size",
    "listed_ids",
    "mask_ids",
    "missing_pixels",
    "no_data",
    "open_hidden",
    "open_image",
    "open_label",
    "open_pair",
    "read_image",
    "read_label",
    "size_mismatch",
]

NO_DATA_LEVEL = 12
"""At most this bright in every channel is black: JPEG noise lifts a black border a little."""

NO_DATA_SHARE = 0.001
"""A black component smaller than this share of the image is a shadow at the edge, not a border."""

NO_DATA_PURE = (2, 0.3)
"""Of a border, at least this share is at most this bright; deep shadows are not that pure."""

NO_DATA_STRIP = 512
"""Rows that are counted at a time: memory beside the image's own stays small."""

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]


class UnknownIdsError(UserError):
    """A mask holds ids that the coding neither maps nor ignores."""

    ids: Mapping[int, int] = MappingProxyType({})  # with the number of their pixels


def open_image(path: Path | str) -> Image.Image:
    """Decode an image file or product to mode RGB: the cheap way for somebody who will crop it.

    What ``products.open_product`` makes of it, with its stretch ``auto``: grey is repeated over
    three channels, a palette is applied, an EXIF orientation turns it, a Bayer mosaic is
    interpolated, values of more than 8 bits are scaled by their full scale. Missing pixels are
    black, and ``missing_pixels`` tells where they are.

    Raises:
        MissingFileError: if there is no such file.
        DamagedFileError: if the file is truncated, no image, or of a huge size.
        UserError: if a product cannot be read, see ``open_product``.
    """
    path = Path(path)
    if path.suffix.lower() not in PDS_ENDINGS and not _is_mosaic(path):
        # Almost all images go this way: nothing is copied or computed that Pillow has done already.
        image = plain_image(path)
        if image is not None:
            return image
    product = open_product(path)
    image = Image.fromarray(product.image)
    if product.valid is not None:
        image.info[_MISSING] = Image.fromarray(~product.valid)
    return image


_MISSING = "s5mars.missing"


def missing_pixels(image: Image.Image) -> Image.Image | None:
    """Where what ``open_image`` gave has no data: mode 1, 0 elsewhere; None: nowhere."""
    return image.info.get(_MISSING)


def _is_mosaic(path: Path) -> bool:
    named = parse_name(path.name)
    return named is not None and named.mosaic


def read_image(path: Path | str) -> Bytes:
    """Read an image as (H, W, 3) uint8, RGB, 0..255; ``open_image`` states the conversions."""
    return np.array(open_image(path))


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) of what ``open_image`` gives; only the head of usual formats is read.

    Raises:
        MissingFileError: if there is no such file.
        DamagedFileError: if it is no image.
    """
    path = Path(path)
    return head_size(path)[0] if path.suffix.lower() in IMAGE_ENDINGS else open_image(path).size


def open_label(sample: Sample, coding: MaskCoding) -> Image.Image:
    """Read the label of a sample as an image of mode L holding class indices.

    255 (``IGNORE``) stands where the coding ignores the id, where the mask is transparent or has no
    data, and where one of ``sample.hide`` is not zero. Palette masks give their indices; a colour
    mask must have equal channels.

    Raises:
        UserError: if the sample has no mask, the mask is damaged, has colours, holds ids that
            the coding does not know (they are listed with their pixel counts), or differs in
            size from a mask of ``sample.hide``.
        MissingFileError: if a file is missing.
    """
    mask = mask_ids(sample)
    _refuse_unknown(mask, coding, sample)
    label = _indices(mask.ids, coding)
    if mask.valid is not None:
        label.paste(IGNORE, mask=Image.fromarray(~mask.valid))
    if sample.hide:
        label.paste(IGNORE, mask=open_hidden(sample, size=label.size))
    return label


def open_hidden(sample: Sample, *, size: tuple[int, int]) -> Image.Image:
    """What ``sample.hide`` covers: mode L, 255 where one of its masks is not zero, else 0.

    Needs no label, so that an unlabelled image hides the rover too.

    Args:
        sample: whose ``hide`` is read; it may be empty.
        size: (width, height) that the masks must have.

    Raises:
        UserError: if a mask is damaged or of another size.
        MissingFileError: if a mask is missing.
    """
    hidden = Image.new("L", size)
    for path in sample.hide:
        covered = decode_mask(path).ids != 0
        found = covered.shape[1::-1]
        if found != size:
            raise UserError(
                f"{path}: {_size(found)} pixels, but what it hides of {sample.image} has "
                f"{_size(size)}: resize it (nearest neighbour) or remove it"
            )
        hidden.paste(255, mask=Image.fromarray(covered.any(-1) if covered.ndim == 3 else covered))
    return hidden


def read_label(sample: Sample, coding: MaskCoding) -> Bytes:
    """Read a label as (H, W) uint8 class indices, 255 = ignore; ``open_label`` states the rest."""
    return np.array(open_label(sample, coding))


def open_pair(sample: Sample, coding: MaskCoding) -> tuple[Image.Image, Image.Image]:
    """``open_image`` and ``open_label`` of one sample, whose sizes must agree.

    Raises:
        UserError: also if image and mask differ in size.
    """
    image, label = open_image(sample.image), open_label(sample, coding)
    if image.size != label.size:
        raise UserError(size_mismatch(sample, image.size, label.size))
    return image, label


def size_mismatch(sample: Sample, image: tuple[int, int], mask: tuple[int, int]) -> str:
    """The line that reports an image (width, height) unequal to its mask's."""
    said = f"{sample.image}: {_size(image)} pixels, but its mask {sample.mask} has {_size(mask)}"
    if mask == image[::-1] and sample.image.suffix.lower() in IMAGE_ENDINGS:
        _, orientation = head_size(sample.image)
        if orientation != 1:
            return (
                f"{said}, as the image has without its EXIF tag Orientation = {orientation}: draw "
                "the mask on the image as viewers show it, or take the tag out of the image"
            )
    return f"{said}: resize the mask (nearest neighbour) or replace one of them"


def mask_ids(sample: Sample) -> MaskFile:
    """The numbers in a sample's mask file as they stand, (H, W) uint8 or uint16.

    Raises:
        UserError: if the sample has no mask, or the mask is damaged or has colours.
        MissingFileError: if the file is missing.
    """
    if sample.mask is None:
        raise UserError(
            f"{sample.image}: has no mask: add one, or move the image to the unlabelled ones"
        )
    mask = decode_mask(sample.mask)
    ids = mask.ids
    if ids.ndim == 3:
        if not (ids == ids[..., :1]).all():
            raise UserError(
                f"{sample.mask}: a colour mask; write one class id a pixel (grey or palette PNG)"
            )
        ids = ids[..., 0]
    if ids.dtype == np.uint8:
        return replace(mask, ids=ids)
    if mask.valid is not None:
        ids = np.where(mask.valid, ids, 0)
    if ids.dtype.kind == "f" or ids.min() < 0 or ids.max() > 65535:
        raise UserError(f"{sample.mask}: mask values are not whole numbers in 0..65535")
    return replace(mask, ids=ids.astype(np.uint16))


def listed_ids(unknown: Mapping[int, int], *, limit: int = 8) -> str:
    """``"42 (7 pixels), 99 (2 pixels)"``."""
    shown = [f"{value} ({count} pixels)" for value, count in list(unknown.items())[:limit]]
    more = len(unknown) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def no_data(image: Bytes) -> Bools:
    """Where an image (H, W, 3) uint8 has no data: (H, W) bool, True on black borders.

    A pixel has no data when all its channels are at most ``NO_DATA_LEVEL`` and it is connected
    (4-neighbours) to the edge of the image through such pixels. Components that are small
    (``NO_DATA_SHARE``) or not pure black (``NO_DATA_PURE``) are shadows that the edge cuts, and
    count as data. The stripe of a few grey pixels along a border that JPEG leaves is not found.
    """
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    if not any(_darker(edge, NO_DATA_LEVEL).any() for edge in edges):
        return np.zeros(image.shape[:2], bool)
    # Heavy, and most images have no black edge.
    from scipy import ndimage

    components, count = ndimage.label(_darker(image, NO_DATA_LEVEL))
    level, share = NO_DATA_PURE
    sizes, pure = np.zeros((2, count + 1), np.int64)
    # In strips, because bincount copies what it counts into 8 bytes a pixel.
    for top in range(0, len(image), NO_DATA_STRIP):
        strip = components[top : top + NO_DATA_STRIP]
        sizes += np.bincount(strip.ravel(), minlength=count + 1)
        dark = _darker(image[top : top + NO_DATA_STRIP], level)
        pure += np.bincount(strip[dark], minlength=count + 1)
    outer = (components[0], components[-1], components[:, 0], components[:, -1])
    border = np.zeros(count + 1, bool)
    border[np.concatenate(outer)] = True
    border &= (sizes >= NO_DATA_SHARE * components.size) & (pure >= share * sizes)
    border[0] = False
    return np.asarray(border[components])


def has_black_edge(image: Image.Image) -> bool:
    """Whether ``no_data`` could find anything: a cheap answer before the image is copied."""
    width, height = image.size
    strips = (
        (0, 0, width, 1), (0, height - 1, width, height),
        (0, 0, 1, height), (width - 1, 0, width, height),
    )  # fmt: skip
    pixels = (np.asarray(image.crop(strip)) for strip in strips)
    return any(bool(_darker(strip, NO_DATA_LEVEL).any()) for strip in pixels)


def _darker(pixels: Bytes, level: int) -> Bools:
    # A reduction over the short last axis is many times slower than three comparisons.
    return (pixels[..., 0] <= level) & (pixels[..., 1] <= level) & (pixels[..., 2] <= level)


def _refuse_unknown(mask: MaskFile, coding: MaskCoding, sample: Sample) -> None:
    ids = mask.ids if mask.valid is None else mask.ids[mask.valid]
    fast = ids.dtype == np.uint8 and ids.ndim == 2
    counts = _histogram(ids) if fast else np.bincount(ids.ravel())
    known = _known(_key(coding.index_of), coding.ignored)
    unknown = {int(v): int(counts[v]) for v in np.flatnonzero(counts) if v not in known}
    if not unknown:
        return
    said = f"{sample.mask}: mask ids that the taxonomy does not know: {listed_ids(unknown)}"
    if mask.lossy:
        way_out = "its format changes ids as it packs them: save the mask as PNG where it was drawn"
        raise UserError(f"{said}: {way_out}")
    error = UnknownIdsError(f"{said}: give them to a class or to `ignore` in dataset.yaml")
    error.ids = unknown
    raise error


def _indices(ids: NDArray[Any], coding: MaskCoding) -> Image.Image:
    table = _table(_key(coding.index_of))
    if ids.dtype == np.uint8:
        # Pillow's look-up is several times faster than numpy's, and labels are read often.
        return Image.fromarray(ids).point(table[:256].tolist())
    return Image.fromarray(table.take(ids))


def _key(index_of: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple(index_of.items())


@lru_cache(maxsize=16)
def _known(index_of: tuple[tuple[int, int], ...], ignored: frozenset[int]) -> frozenset[int]:
    return frozenset(file_id for file_id, _ in index_of) | ignored


@lru_cache(maxsize=16)
def _table(index_of: tuple[tuple[int, int], ...]) -> Bytes:
    table = np.full(65536, IGNORE, np.uint8)
    for file_id, index in index_of:
        table[file_id] = index
    table.flags.writeable = False
    return table


def _histogram(ids: Bytes) -> NDArray[np.int64]:
    # Pillow's histogram is several times faster than numpy's on bytes, and labels are read often.
    return np.array(Image.fromarray(ids).histogram(), np.int64)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
