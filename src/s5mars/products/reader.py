"""One function for whatever holds an image of Mars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import WAY_OUT, DamagedFileError, UserError
from s5mars.products.bayer import debayer
from s5mars.products.decode import decode
from s5mars.products.files import PDS_ENDINGS
from s5mars.products.info import ProductInfo, first_known
from s5mars.products.names import parse_name
from s5mars.products.pds import read_pds
from s5mars.products.raster import Raster
from s5mars.products.stretch import Rule, Stretch, choose


@dataclass(frozen=True)
class Product:
    """An image ready to be looked at or predicted, and all that is known of it."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, 0 where not valid; may be read-only
    valid: NDArray[np.bool_] | None  # (H, W), False: missing, invalid or NaN; None: all are valid
    info: ProductInfo
    stretch: Stretch  # how its values became 8 bits
    mosaic: str | None = None  # Bayer pattern that it was interpolated from; None: no mosaic

    def row(self) -> dict[str, str | int | float | None]:
        """``info.row()`` with ``stretch`` (its formula) and ``mosaic``, for a table."""
        return {**self.info.row(), "stretch": str(self.stretch), "mosaic": self.mosaic}


def open_product(path: str | Path, *, stretch: Rule = "auto") -> Product:
    """Read JPEG, PNG, TIFF (8 or 16 bits or floats, tiled or not), PDS3 or PDS4.

    One channel is repeated over three, a palette applied, an image turned as its EXIF orientation
    says. What is transparent, of the value that GDAL or a label gives for missing ones, or a
    special pixel of ISIS is not valid. A Bayer mosaic is interpolated (``bayer.debayer``) where the
    label or the file name says that it is one. The label's word goes before the file name's, in all
    fields of ``info``.

    Args:
        path: the image; of PDS products the data or the label, the other one is found.
        stretch: how values of more than 8 bits become 8, see ``stretch.choose``.

    Raises:
        MissingFileError: if the file is missing, or the one that its label names.
        DamagedFileError: if the file is empty, truncated, no image, no regular file, contradicts
            its label, declares more than ``errors.MAX_PIXELS`` or ``MAX_BYTES``, or holds no value.
        UserError: if pdr is needed and missing, the product is no image of 1 or 3 channels, or a
            TIFF has several pages.
    """
    path = Path(path)
    named = parse_name(path.name)
    raster = read_pds(path) if path.suffix.lower() in PDS_ENDINGS else decode(path)
    values, valid = raster.values, raster.valid
    if valid is not None and not valid.any():
        raise DamagedFileError(
            f"{path}: no pixel with a value (all missing, transparent or NaN): {WAY_OUT}"
        )
    pattern = raster.mosaic
    if pattern is None and named is not None and named.mosaic:
        pattern = "RGGB"
    flat = _one_channel(values) if pattern else values
    chosen = _choose(flat, raster, stretch, path)
    if pattern and flat.ndim == 2:
        image = chosen.apply(debayer(flat, pattern=pattern, valid=valid))
    else:
        pattern = None
        image = chosen.apply(values)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if valid is not None:
        image = np.where(valid[:, :, None], image, 0)
    info = first_known(raster.info, named.info if named else ProductInfo())
    return Product(np.ascontiguousarray(image), valid, info, chosen, pattern or None)


def read_info(path: str | Path) -> ProductInfo:
    """What the file name alone says; nothing is opened."""
    named = parse_name(Path(path).name)
    return named.info if named else ProductInfo()


def _choose(values: NDArray[Any], raster: Raster, rule: Rule, path: Path) -> Stretch:
    try:
        return choose(values, valid=raster.valid, full_scale=raster.full_scale, rule=rule)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _one_channel(values: NDArray[Any]) -> NDArray[Any]:
    """The raw feed stores mosaics as grey RGB, too."""
    if values.ndim == 3 and (values == values[..., :1]).all():
        return values[..., 0]
    return values
