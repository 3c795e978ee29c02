"""Opens an image or product of any format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import REMEDY, DamagedFileError, UserError
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
    """An 8-bit image and its metadata."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, 0 where not valid; may be read-only
    valid: NDArray[np.bool_] | None  # (H, W), False: missing, invalid or NaN; None: all valid
    info: ProductInfo
    stretch: Stretch  # how the values were converted to 8 bits
    mosaic: str | None = None  # Bayer pattern of the source; None: no mosaic

    def row(self) -> dict[str, str | int | float | None]:
        """Return ``info.row()`` with ``stretch`` (its formula) and ``mosaic``."""
        return {**self.info.row(), "stretch": str(self.stretch), "mosaic": self.mosaic}


def open_product(path: str | Path, *, stretch: Rule = "auto") -> Product:
    """Read JPEG, PNG, TIFF (8 or 16 bits or floats, tiled or not), PDS3 or PDS4.

    One channel is repeated over three; palettes and EXIF orientations are applied. Pixels are not
    valid if they are transparent, have the missing value of GDAL or of the label, or are special
    pixels of ISIS. A Bayer mosaic is interpolated (``bayer.debayer``) if the label or the file name
    says that it is one. In ``info`` the label takes precedence over the file name.

    Args:
        path: Path to the image; for PDS products to the data or the label.
        stretch: How values of more than 8 bits become 8 bits, see ``stretch.choose``.

    Raises:
        MissingFileError: if the file, or the file that its label names, does not exist.
        DamagedFileError: if the file is empty, truncated, not an image, not a regular file,
            contradicts its label, exceeds ``errors.MAX_PIXELS`` or ``MAX_BYTES``, or has no valid
            pixel.
        UserError: if pdr is needed and not installed, the product is not an image of 1 or 3
            channels, or a TIFF has several pages.
    """
    path = Path(path)
    named = parse_name(path.name)
    raster = read_pds(path) if path.suffix.lower() in PDS_ENDINGS else decode(path)
    values, valid = raster.values, raster.valid
    if valid is not None and not valid.any():
        raise DamagedFileError(
            f"{path} has no valid pixel (all are missing, transparent or NaN): {REMEDY}"
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
    """Read the metadata in the file name, without opening the file."""
    named = parse_name(Path(path).name)
    return named.info if named else ProductInfo()


def _choose(values: NDArray[Any], raster: Raster, rule: Rule, path: Path) -> Stretch:
    try:
        return choose(values, valid=raster.valid, full_scale=raster.full_scale, rule=rule)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _one_channel(values: NDArray[Any]) -> NDArray[Any]:
    """Reduce equal channels to one: the raw feed also stores mosaics as grey RGB."""
    if values.ndim == 3 and (values == values[..., :1]).all():
        return values[..., 0]
    return values
