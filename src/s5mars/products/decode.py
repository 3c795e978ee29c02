"""JPEG, PNG, TIFF and their like: from a file to pixel values."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from s5mars.products.errors import MAX_PIXELS, WAY_OUT, DamagedFileError, refuse_huge

# Panoramas are large and no attack; what is too large, `refuse_huge` says.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# What is damaged is said once, in the error; both libraries would also say it as they go.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
for _library in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


def decode(path: Path) -> Image.Image:
    """Decode an image file with Pillow, in the mode that it is stored in.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is empty, truncated, no image, or declares a huge size.
    """
    try:
        with Image.open(path) as image:
            refuse_huge(path, width=image.width, height=image.height)
            image.load()
            return image
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise _no_image(path) from None
    except DamagedFileError:
        raise
    except Image.DecompressionBombError:
        raise _huge(path) from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, PermissionError | IsADirectoryError):
            raise
        raise _damaged(path, error) from None


def decode_values(path: Path) -> NDArray[Any]:
    """The pixel values of an image file with all their bits.

    Returns:
        (H, W) or (H, W, 3), uint8, uint16 or what else the file holds. Palettes are applied,
        alpha is dropped.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is empty, truncated, no image, or declares a huge size.
        ValueError: if it holds neither one nor three channels.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        return _tiff(path)
    if path.suffix.lower() == ".png" and is_deep(path):
        return _deep_png(path)
    return values_of(decode(path))


def values_of(image: Image.Image) -> NDArray[Any]:
    """The values of a decoded image: (H, W) or (H, W, 3); alpha is dropped, a palette applied."""
    if image.mode in ("L", "RGB", "F") or image.mode.startswith("I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def is_deep(path: Path) -> bool:
    """Whether a file holds more than 8 bits a channel, or what Pillow does not know.

    Only its head is read. Of 16-bit colour Pillow would drop the low byte without a word.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it declares a huge size.
    """
    try:
        with Image.open(path) as image:
            refuse_huge(path, width=image.width, height=image.height)
            # The last entry of a tile is Pillow's name of how pixels lie in the file.
            deep_tile = any(";16" in str(tile[3]) for tile in image.tile)
            return deep_tile or image.mode == "F" or image.mode.startswith("I")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except DamagedFileError:
        raise
    except Image.DecompressionBombError:
        raise _huge(path) from None
    except (OSError, SyntaxError, ValueError):
        return path.suffix.lower() != ".png"  # what is wrong with it is said where it is decoded


def _deep_png(path: Path) -> NDArray[Any]:
    from torchvision.io import ImageReadMode, decode_image

    try:
        tensor = decode_image(str(path), ImageReadMode.UNCHANGED)
    except (RuntimeError, OSError) as error:
        raise _damaged(path, error) from None
    values: NDArray[Any] = tensor.permute(1, 2, 0).numpy()
    return values[..., 0] if values.shape[2] < 3 else values[..., :3]


def _tiff(path: Path) -> NDArray[Any]:
    """With tifffile, which keeps all bits; with Pillow where that lacks a codec."""
    import tifffile

    try:
        file = tifffile.TiffFile(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (PermissionError, IsADirectoryError):
        raise
    except Exception:  # of many kinds, by what is damaged
        return values_of(decode(path))
    with file:
        try:
            page = file.pages.first
            refuse_huge(path, width=page.imagewidth, height=page.imagelength)
            if page.samplesperpixel > 4:
                raise DamagedFileError(
                    f"{path}: {page.samplesperpixel} channels; 1 or 3 are needed: leave it out"
                )
            if page.photometric not in (0, 1, 2):  # palettes, YCbCr, ...: what Pillow knows better
                return values_of(decode(path))
            if page.dtype is not None and page.dtype.kind == "c":
                raise DamagedFileError(
                    f"{path}: complex numbers ({page.dtype}); whole or real ones are needed: leave "
                    "it out"
                )
            values: NDArray[Any] = page.asarray()
        except DamagedFileError:
            raise
        except Exception as error:  # damage, or a codec that is not installed
            try:
                return values_of(decode(path))
            except DamagedFileError:
                raise _damaged(path, error) from None
        return _arranged(values, page)


def _arranged(values: NDArray[Any], page: Any) -> NDArray[Any]:
    """(H, W) or (H, W, 3), 0 = black, of what tifffile gives."""
    if page.planarconfig == 2 and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    if page.photometric == 0 and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    return values[..., 0] if values.shape[2] < 3 else values[..., :3]


def _no_image(path: Path) -> DamagedFileError:
    if path.stat().st_size == 0:
        return DamagedFileError(f"{path}: an empty file (0 bytes): {WAY_OUT}")
    return DamagedFileError(f"{path}: not an image: {WAY_OUT}")


def _huge(path: Path) -> DamagedFileError:
    return DamagedFileError(
        f"{path}: declares more than the {MAX_PIXELS:,} pixels that are read at once: cut it into "
        "parts, or check whether it is damaged"
    )


def _damaged(path: Path, error: Exception) -> DamagedFileError:
    reason = str(error).partition("\n")[0]
    reason = reason if " " in reason else f"{type(error).__name__} {reason}".strip()
    return DamagedFileError(f"{path}: damaged image ({reason}): {WAY_OUT}")
