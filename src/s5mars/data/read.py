"""Reads one image or one label from a file.

Every error names the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.errors import UserError, listed
from s5mars.products.decode import MaskFile, decode_mask, head_size, plain_image
from s5mars.products.files import IMAGE_ENDINGS, PDS_ENDINGS
from s5mars.products.names import parse_name
from s5mars.products.no_data import empty_pixels
from s5mars.products.reader import open_product
from s5mars.text.numbers import plural
from s5mars.types import Sample

Bytes = NDArray[np.uint8]


def open_image(path: Path | str) -> Image.Image:
    """Decode an image file or product to mode RGB.

    The pixels are those of ``products.open_product`` with the stretch ``auto``: grey is repeated
    over three channels, palettes and EXIF orientations are applied, Bayer mosaics are interpolated,
    and values of more than 8 bits are scaled by their full scale. Missing pixels are black;
    ``missing_pixels`` returns where they are.

    Raises:
        MissingFileError: if the file does not exist.
        DamagedFileError: if the file is truncated, not an image, or too large.
        UserError: if a product cannot be read, see ``open_product``.
    """
    path = Path(path)
    if path.suffix.lower() not in PDS_ENDINGS and not _is_mosaic(path):
        # The fast path of almost all images: Pillow has done all the work.
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
    """The missing pixels of an image of ``open_image`` (mode 1); None if there are none."""
    return image.info.get(_MISSING)


def without_data(image: Image.Image) -> NDArray[np.bool_]:
    """(H, W): True on the missing pixels and the black borders of an image of ``open_image``."""
    missing = missing_pixels(image)
    return empty_pixels(np.asarray(image), None if missing is None else ~np.asarray(missing))


def _is_mosaic(path: Path) -> bool:
    named = parse_name(path.name)
    return named is not None and named.mosaic


def read_image(path: Path | str) -> Bytes:
    """Read an image as (H, W, 3) uint8 RGB; conversions and errors as ``open_image``."""
    return np.array(open_image(path))


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) of the image of ``open_image``; reads only the header of common formats.

    Raises:
        MissingFileError: if the file does not exist.
        DamagedFileError: if it is not an image.
    """
    path = Path(path)
    return head_size(path)[0] if path.suffix.lower() in IMAGE_ENDINGS else open_image(path).size


def open_label(sample: Sample, coding: MaskCoding) -> Image.Image:
    """Read the label of a sample as an image of mode L that holds class indices.

    A pixel is 255 (``IGNORE``) if the coding ignores its id, if the mask is transparent or has no
    data there, or if one of the masks ``sample.hide`` is not zero there. Palette masks are read as
    indices; the channels of a colour mask must be equal.

    Raises:
        UserError: if the sample has no mask, or the mask is damaged, has colours, contains ids
            that the coding does not define (listed with their pixel counts), or differs in size
            from a mask of ``sample.hide``.
        MissingFileError: if a file does not exist.
    """
    mask = known_ids(sample, coding)
    label = _indices(mask.ids, coding)
    if mask.valid is not None:
        label.paste(IGNORE, mask=Image.fromarray(~mask.valid))
    if sample.hide:
        label.paste(IGNORE, mask=open_hidden(sample, size=label.size))
    return label


def open_hidden(sample: Sample, *, size: tuple[int, int]) -> Image.Image:
    """Read ``sample.hide``: mode L, 255 where one of its masks is not zero, else 0.

    This needs no label, so the rover is hidden in unlabelled images too.

    Args:
        sample: Its ``hide`` may be empty.
        size: (width, height) that the masks must have.

    Raises:
        UserError: if a mask is damaged or has another size.
        MissingFileError: if a mask does not exist.
    """
    hidden = Image.new("L", size)
    for path in sample.hide:
        covered = decode_mask(path).ids != 0
        found = covered.shape[1::-1]
        if found != size:
            raise UserError(
                f"{path}: the mask has {_size(found)} pixels, but its image {sample.image} has "
                f"{_size(size)}: resize the mask (nearest neighbour) or remove it"
            )
        hidden.paste(255, mask=Image.fromarray(covered.any(-1) if covered.ndim == 3 else covered))
    return hidden


def read_label(sample: Sample, coding: MaskCoding) -> Bytes:
    """Read a label as (H, W) uint8 class indices, 255 = ignore; details as ``open_label``."""
    return np.array(open_label(sample, coding))


def open_pair(sample: Sample, coding: MaskCoding) -> tuple[Image.Image, Image.Image]:
    """Return ``open_image`` and ``open_label`` of one sample.

    Raises:
        UserError: as both, and if image and mask differ in size.
    """
    image, label = open_image(sample.image), open_label(sample, coding)
    if image.size != label.size:
        raise UserError(_size_mismatch(sample, image.size, label.size))
    return image, label


def _size_mismatch(sample: Sample, image: tuple[int, int], mask: tuple[int, int]) -> str:
    said = f"{sample.image}: {_size(image)} pixels, but its mask {sample.mask} has {_size(mask)}"
    if mask == image[::-1] and sample.image.suffix.lower() in IMAGE_ENDINGS:
        _, orientation = head_size(sample.image)
        if orientation != 1:
            return (
                f"{said}, which is the size without the EXIF tag Orientation = {orientation}: draw "
                "the mask on the rotated image, or remove the tag from the image"
            )
    return f"{said}: resize the mask (nearest neighbour) or replace one of the files"


def mask_ids(sample: Sample) -> MaskFile:
    """Read the ids in the mask file of a sample, (H, W) uint8 or uint16.

    Raises:
        UserError: if the sample has no mask, or the mask is damaged or has colours.
        MissingFileError: if the file does not exist.
    """
    if sample.mask is None:
        raise UserError(
            f"{sample.image} has no mask: add one, or move the image to the unlabelled images"
        )
    mask = decode_mask(sample.mask)
    ids = mask.ids
    if ids.ndim == 3:
        if not (ids == ids[..., :1]).all():
            raise UserError(
                f"{sample.mask} is a colour mask: save it as a grey or palette PNG of class ids, "
                "or convert all masks with `s5mars import` (docs/labelling.md)"
            )
        ids = ids[..., 0]
    if ids.dtype == np.uint8:
        return replace(mask, ids=ids)
    if mask.valid is not None:
        ids = np.where(mask.valid, ids, 0)
    if ids.dtype.kind == "f" or ids.min() < 0 or ids.max() > 65535:
        raise UserError(f"{sample.mask}: mask values must be integers from 0 to 65535")
    return replace(mask, ids=ids.astype(np.uint16))


def known_ids(sample: Sample, coding: MaskCoding) -> MaskFile:
    """As ``mask_ids``; a UserError lists the ids that the coding does not define."""
    mask = mask_ids(sample)
    ids = mask.ids if mask.valid is None else mask.ids[mask.valid]
    if ids.dtype == np.uint8 and ids.ndim == 2:
        # Several times faster than numpy, and labels are read often.
        counts = np.array(Image.fromarray(ids).histogram())
    else:
        counts = np.bincount(ids.ravel())
    known = coding.index_of.keys() | coding.ignored
    unknown = {int(v): int(counts[v]) for v in np.flatnonzero(counts) if v not in known}
    if not unknown:
        return mask
    remedy = "assign them to a class or to `ignore` in dataset.yaml"
    if mask.lossy:
        remedy = "lossy compression changes ids: export the mask again as PNG"
    raise UserError(f"{sample.mask}: unknown mask ids {listed_ids(unknown)}: {remedy}")


def listed_ids(unknown: Mapping[int, int]) -> str:
    """``"42 (7 pixels), 99 (1 pixel)"``."""
    return listed([f"{value} ({plural(count, 'pixel')})" for value, count in unknown.items()])


def _indices(ids: NDArray[Any], coding: MaskCoding) -> Image.Image:
    table = index_table(coding)
    if ids.dtype == np.uint8:
        # Several times faster than numpy, and labels are read often.
        return Image.fromarray(ids).point(table[:256].tolist())
    return Image.fromarray(table.take(ids))


def index_table(coding: MaskCoding) -> Bytes:
    """(65536,) class index of each id in mask files; ``IGNORE`` for ids of no class."""
    return _table(tuple(coding.index_of.items()))


@lru_cache(maxsize=16)
def _table(index_of: tuple[tuple[int, int], ...]) -> Bytes:
    table = np.full(65536, IGNORE, np.uint8)
    for file_id, index in index_of:
        table[file_id] = index
    table.flags.writeable = False
    return table


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
