"""Reads PDS3 and PDS4 image products with pdr.

The label is compared with the size of the file before memory is allocated, and with the values
afterwards. A label that contradicts its data is an error.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import REMEDY, DamagedFileError, MissingFileError, UserError, needed
from s5mars.files.reading import reading, reason_of, require_regular
from s5mars.products.errors import check_image_size
from s5mars.products.info import ProductInfo
from s5mars.products.labels import info_of_pds3, info_of_pds4, local, texts_of
from s5mars.products.raster import Raster, valid_values

MAX_LABEL = 16 << 20
"""Maximum size of a detached label in bytes."""


def read_pds(path: Path) -> Raster:
    """Read an ``.IMG``, ``.LBL`` or ``.XML`` and the other file of the product.

    Raises:
        MissingFileError: if the file, or the file that its label names, does not exist.
        DamagedFileError: if it is empty, truncated, too large, not a product, or contradicts its
            label.
        UserError: if pdr is not installed, or the product has no image of 1 or 3 channels.
    """
    with reading(path, kind="product"):
        if path.stat().st_size == 0:
            raise DamagedFileError(f"{path} is empty (0 bytes): {REMEDY}")
        label = _label_of(path)
        require_regular(label)
        if label != path or path.suffix.lower() != ".img":
            _refuse_long(label)
        return _read_pds4(label) if label.suffix.lower() == ".xml" else _read_pds3(path, label)


def _refuse_long(label: Path) -> None:
    size = label.stat().st_size
    if size > MAX_LABEL:
        raise DamagedFileError(
            f"{label} has {size:,} bytes, but labels have at most {MAX_LABEL:,}: {REMEDY}"
        )


def _label_of(path: Path) -> Path:
    """The detached label of a data file, .LBL before .XML; else the file itself."""
    if path.suffix.lower() != ".img":
        return path
    label = next((label for ending in (".lbl", ".xml") for label in _siblings(path, ending)), path)
    if label == path and not _attached(path):
        raise DamagedFileError(
            f"{path} is not a PDS product: it has no label, and there is no .LBL or .XML of its "
            "name: add the label, or leave the file out"
        )
    return label


def _siblings(path: Path, ending: str) -> list[Path]:
    return [p for p in (path.with_suffix(ending), path.with_suffix(ending.upper())) if p.exists()]


def _attached(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1024)  # older products start with a transport line
    return b"PDS_VERSION_ID" in start or b"ODL_VERSION_ID" in start


def _pdr() -> Any:
    pdr = needed("pdr", extra="products")
    warnings.filterwarnings("ignore", module=r"pdr(\..*)?")  # about duplicate keywords, ...
    return pdr


def _read_pds3(path: Path, label: Path) -> Raster:
    pdr = _pdr()
    try:
        data = pdr.Data(str(path), label_fn=str(label))
        pointers = [str(name) for name in data.index]
    except Exception as error:  # parsers of damaged text raise anything
        raise DamagedFileError(
            f"{path}: its label cannot be read ({reason_of(error)}): {REMEDY}"
        ) from None
    names = [n for n in pointers if n.endswith("IMAGE")]
    if not names:
        there = ", ".join(n for n in pointers if n != "LABEL") or "none"
        raise UserError(
            f"{path} is a PDS product without an image (objects: {there}): leave it out"
        )
    name = "IMAGE" if "IMAGE" in names else names[0]
    block = data.metablock_(name) or {}
    where = _file_of(data, name, label)
    require_regular(where)
    _check_size(label, where, block, offset=_offset(data, name), name=name)
    try:
        # Not load(), which turns errors into warnings.
        data.file_mapping[name] = str(where)
        array = data.load_from_pointer(name)[name]
    except Exception as error:
        raise DamagedFileError(f"{where}: damaged image ({reason_of(error)}): {REMEDY}") from None
    return _raster(
        path,
        array,
        missing=_constants(array.dtype, block, "MISSING_CONSTANT", "INVALID_CONSTANT"),
        full_scale=_full_scale(int(_number(block.get("SAMPLE_BIT_MASK")) or 0)),
        most=_number(block.get("MAXIMUM")),
        mosaic=_pds3_mosaic(data.metaget_),
        info=info_of_pds3(data.metaget_),
    )


def _file_of(data: Any, name: str, path: Path) -> Path:
    target = data.metaget_(f"^{name}")
    first = target[0] if isinstance(target, list | tuple) and target else target
    if not isinstance(first, str):
        if path.suffix.lower() == ".lbl":
            raise DamagedFileError(f"{path} names no file for its {name}: correct ^{name}")
        return path
    folder = path.parent
    wanted = Path(first.strip()).name  # a label must not lead to another folder
    for each in (wanted, wanted.lower(), wanted.upper()):
        if each and (folder / each).exists():
            return folder / each
    raise MissingFileError(
        f"{path}: its label names {wanted}, which is missing: put both into one folder"
    )


def _offset(data: Any, name: str) -> int:
    target = data.metaget_(f"^{name}")
    last = target[-1] if isinstance(target, list | tuple) and target else target
    if isinstance(last, Mapping):  # 28673 <BYTES>
        return int(_number(last.get("value")) or 0) - 1
    record = _number(data.metaget_("RECORD_BYTES"))
    number = _number(last)
    return int((number - 1) * record) if number is not None and record else 0


def _check_size(
    path: Path, where: Path, block: Mapping[str, object], *, offset: int, name: str
) -> None:
    lines, samples = _number(block.get("LINES")), _number(block.get("LINE_SAMPLES"))
    bits = _number(block.get("SAMPLE_BITS"))
    if not lines or not samples or not bits:
        raise DamagedFileError(
            f"{path}: its label does not define the size of its {name}: {REMEDY}"
        )
    bands = _channels(path, _number(block.get("BANDS")) or 1)
    check_image_size(path, width=int(samples), height=int(lines), bytes_per_pixel=bands * bits / 8)
    if bits not in (8, 16, 32, 64):
        raise DamagedFileError(
            f"{path}: its label declares {bits:g} bits per pixel, not 8, 16, 32 or 64: {REMEDY}"
        )
    if offset < 0 or (path == where and offset == 0):
        raise DamagedFileError(
            f"{path}: its label places its {name} at the start of the label: correct ^{name}"
        )
    _check_bytes(path, where, offset + int(lines * samples * bands * bits) // 8)


def _check_bytes(label: Path, where: Path, wanted: int) -> None:
    found = where.stat().st_size
    if found < wanted:
        raise DamagedFileError(
            f"{where} has {found:,} bytes, but {label.name if label != where else 'its label'} "
            f"declares {wanted:,}: the file is truncated or the label is wrong: {REMEDY}"
        )


def _full_scale(mask: int) -> int | None:
    """The largest value of a bit mask, if its bits are the lowest ones."""
    return mask if mask > 0 and mask & (mask + 1) == 0 else None


def _pds3_mosaic(lookup: Any) -> str | None:
    method = str(lookup("BAYER_METHOD") or lookup("CFA_METHOD") or "").upper()
    if not method or method in ("N/A", "UNK", "NONE", "NULL"):
        return None
    if "RAW_BAYER" not in method:
        return ""
    return _pattern(str(lookup("CFA_TYPE") or lookup("BAYER_PATTERN") or ""))


_LEAST_BITS = 2**30
"""Whole numbers from here on that a label states for 32-bit floats are the bits of one."""

_HEXADECIMAL = re.compile(r"16#([0-9a-fA-F]+)#|0x([0-9a-fA-F]+)")

_PDS4_BYTES = {
    "UnsignedByte": 1, "SignedByte": 1,
    "UnsignedLSB2": 2, "UnsignedMSB2": 2, "SignedLSB2": 2, "SignedMSB2": 2,
    "UnsignedLSB4": 4, "UnsignedMSB4": 4, "SignedLSB4": 4, "SignedMSB4": 4,
    "IEEE754LSBSingle": 4, "IEEE754MSBSingle": 4, "IEEE754LSBDouble": 8, "IEEE754MSBDouble": 8,
}  # fmt: skip


def _read_pds4(path: Path) -> Raster:
    pdr = _pdr()
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeError) as error:
        raise DamagedFileError(
            f"{path} is not an XML label ({reason_of(error)}): {REMEDY}"
        ) from None
    area, array = _image_array(root)
    if area is None or array is None:
        raise UserError(
            f"{path} has no Array_2D_Image or Array_3D_Image, so it is not an image: leave it out"
        )
    file = Path(texts_of(area).get("file_name", "")).name
    where = path.parent / file
    if not file or not where.exists():
        raise MissingFileError(
            f"{path}: its label names {file or 'no file'}, which is missing: put both into one "
            "folder"
        )
    require_regular(where)
    texts = texts_of(array)
    axes = [texts_of(axis) for axis in array.iter() if local(axis.tag) == "Axis_Array"]
    try:
        lengths = {a.get("axis_name", "").lower(): int(a.get("elements", "0")) for a in axes}
        offset = int(float(texts.get("offset", "0")))
    except (ValueError, OverflowError) as error:
        raise DamagedFileError(
            f"{path}: a size or offset is not a number ({reason_of(error)}): {REMEDY}"
        ) from None
    size = _PDS4_BYTES.get(texts.get("data_type", ""))
    if size is None or "line" not in lengths or "sample" not in lengths:
        raise DamagedFileError(
            f"{path}: its image must have a PDS4 type and the axes Line and Sample (and Band); "
            f"got {texts.get('data_type')!r} and {', '.join(lengths) or 'none'}: {REMEDY}"
        )
    count = math.prod(lengths.values())
    width, height = lengths["sample"], lengths["line"]
    bands = _channels(path, count / max(width * height, 1))
    check_image_size(path, width=width, height=height, bytes_per_pixel=bands * size)
    _check_bytes(path, where, offset + count * size)
    try:
        data = pdr.Data(str(path))
        name = texts.get("local_identifier") or texts.get("name")
        values = data[_pds4_name(data, name)]
    except Exception as error:
        raise DamagedFileError(f"{path}: damaged image ({reason_of(error)}): {REMEDY}") from None
    order = list(lengths)
    if values.ndim == 3:
        band = next(i for i, axis in enumerate(order) if axis not in ("line", "sample"))
        # In the order of PDS3.
        values = values.transpose(band, order.index("line"), order.index("sample"))
    texts_of_label = texts_of(root)
    state, kind = (
        texts_of_label.get(f"color_filter_array_{what}", "") for what in ("state", "type")
    )
    mosaic = None
    if state or kind:
        mosaic = _pattern(kind) if state.lower() == "encoded" else ""
    return _raster(
        path,
        values,
        missing=_constants(values.dtype, texts, "missing_constant", "invalid_constant"),
        full_scale=_pds4_mask(texts_of_label.get("sample_bit_mask", "")),
        most=_number(texts.get("maximum")),
        mosaic=mosaic,
        info=info_of_pds4(root),
    )


def _image_array(
    root: ElementTree.Element,
) -> tuple[ElementTree.Element | None, ElementTree.Element | None]:
    for area in root.iter():
        if local(area.tag) == "File_Area_Observational":
            for array in area:
                if local(array.tag) in ("Array_2D_Image", "Array_3D_Image"):
                    return area, array
    return None, None


def _pds4_name(data: Any, name: str | None) -> str:
    wanted = (name or "").replace(" ", "_")
    names: list[str] = [n for n in data.index if n.lower() != "label"]
    if wanted in names:
        return wanted
    return next(n for n in names if getattr(data[n], "ndim", 0) in (2, 3))


def _pds4_mask(text: str) -> int | None:
    mask = text.partition("#")[2].strip("#")
    return _full_scale(int(mask, 2)) if mask and set(mask) <= {"0", "1"} else None


def _raster(
    path: Path,
    array: object,
    *,
    missing: tuple[float, ...],
    full_scale: int | None,
    most: float | None,
    mosaic: str | None,
    info: ProductInfo,
) -> Raster:
    values = np.asarray(array)
    if values.dtype.kind not in "uif" or values.ndim not in (2, 3):
        raise UserError(f"{path}: its image has {values.ndim} axes of {values.dtype}: leave it out")
    if values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
        _channels(path, values.shape[2])
        values = values[..., 0] if values.shape[2] == 1 else values
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    valid = valid_values(values, missing=missing)
    counted = values if valid is None else values[valid]
    _check_values(path, counted, full_scale, most)
    if values.dtype.kind == "i" and (counted.size == 0 or counted.min() >= 0):
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        values = np.where(values < 0, 0, values).astype(unsigned)
    return Raster(values, valid, full_scale, mosaic, info)


def _channels(path: Path, number: float) -> int:
    if number not in (1, 3):
        raise UserError(f"{path}: its image has {number:g} channels, not 1 or 3: leave it out")
    return int(number)


def _check_values(
    path: Path, values: NDArray[Any], full_scale: int | None, most: float | None
) -> None:
    if values.dtype.kind == "f" or values.size == 0:
        return
    limit = full_scale if full_scale is not None else most
    least, largest = int(values.min()), int(values.max())
    if limit is None or (largest <= limit and (least >= 0 or full_scale is None)):
        return
    swapped = values.byteswap()
    if int(swapped.max()) <= limit and int(swapped.min()) >= 0:
        raise DamagedFileError(
            f"{path} has values up to {largest}, but its label allows {limit:g}, which fits with "
            "swapped bytes: the byte order in the label is wrong: correct SAMPLE_TYPE"
        )
    if full_scale is not None:
        raise DamagedFileError(
            f"{path} has values from {least} to {largest}, but its label declares 0 to "
            f"{full_scale}: label and data do not belong together: {REMEDY}"
        )


def _constants(dtype: np.dtype[Any], block: Mapping[str, object], *names: str) -> tuple[float, ...]:
    numbers = (_number(_of_all_bands(block.get(name))) for name in names)
    return tuple({_value(number, dtype) for number in numbers if number is not None})


def _of_all_bands(constant: object) -> object:
    """The constant that all bands share; labels of colour images state it for each band."""
    if not isinstance(constant, list | tuple):
        return constant
    return constant[0] if constant and all(each == constant[0] for each in constant) else None


def _value(number: float, dtype: np.dtype[Any]) -> float:
    """A constant as a value of the image: labels of floats may state its bits, 16#FF7FFFFB#."""
    floats = dtype.kind == "f" and dtype.itemsize == 4
    if not floats or not number.is_integer() or not _LEAST_BITS <= number < 2**32:
        return number
    return float(np.array(int(number), np.uint32).view(np.float32))


def _number(value: object) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("value")
    try:
        based = isinstance(value, str) and _HEXADECIMAL.fullmatch(value.strip())
        number = float(int(based[1] or based[2], 16) if based else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _pattern(text: str) -> str:
    letters = "".join(c for c in text.upper().replace("BAYER", "") if c in "RGB")
    return letters if len(letters) == 4 else "RGGB"
