"""Writes tiny products: PDS3 with an attached or a detached label, PDS4; PNG of few bits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

RECORD = 256
NAVCAM = "NLB_516721703EDR_F0540992CCAM15900M1"
MASTCAM = "0042ML0001930000102057C00_DXXX"

TYPES = {">u1": ("MSB_UNSIGNED_INTEGER", 8), ">i2": ("MSB_INTEGER", 16),
         ">u2": ("MSB_UNSIGNED_INTEGER", 16), "<i2": ("LSB_INTEGER", 16),
         "<f4": ("PC_REAL", 32)}  # fmt: skip


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def grey_png(path: Path, values: np.ndarray, *, bits: int, transparent: int | None = None) -> Path:
    """Write a grey PNG of 1, 2 or 4 bits, which Pillow cannot write."""
    height, width = values.shape
    split = (values[..., None] >> np.arange(bits)[::-1] & 1).astype(bool)
    lines = np.packbits(split.reshape(height, -1), axis=1)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
        + (b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent)))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines)))
        + chunk(b"IEND", b"")
    )
    return path


def pds3(
    path: Path,
    values: np.ndarray,
    *,
    detached: bool = False,
    declared: str | None = None,
    lines: int | None = None,
    more: str = "",
    image: str = "",
) -> Path:
    """Write ``values`` (H, W) or (bands, H, W) as they lie in memory; the label may lie.

    ``declared`` is the dtype that the label names, ``lines`` the height, ``more`` and ``image``
    further lines of the label and of its IMAGE object.
    """
    bands, height, width = values.shape if values.ndim == 3 else (1, *values.shape)
    kind, bits = TYPES[declared or values.dtype.newbyteorder("=").str.replace("|", ">")]
    label = [
        "PDS_VERSION_ID = PDS3",
        "RECORD_TYPE = FIXED_LENGTH",
        f"RECORD_BYTES = {RECORD}",
        f'^IMAGE = ("{path.name}",1)' if detached else "^IMAGE = 9",
        'MISSION_NAME = "MARS SCIENCE LABORATORY"',
        *more.splitlines(),
        "OBJECT = IMAGE",
        f"LINES = {lines or height}",
        f"LINE_SAMPLES = {width}",
        f"SAMPLE_TYPE = {kind}",
        f"SAMPLE_BITS = {bits}",
        f"BANDS = {bands}",
        "BAND_STORAGE_TYPE = BAND_SEQUENTIAL",
        *image.splitlines(),
        "END_OBJECT = IMAGE",
        "END",
    ]
    text = "\r\n".join(label).encode() + b"\r\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    if detached:
        path.with_suffix(".LBL").write_bytes(text)
        path.write_bytes(values.tobytes())
    else:
        assert len(text) <= 8 * RECORD
        path.write_bytes(text.ljust(8 * RECORD) + values.tobytes())
    return path


def pds4(path: Path, values: np.ndarray, *, kind: str, lines: int | None = None,
         more: str = "") -> Path:  # fmt: skip
    """Write ``path`` (.xml) and the data beside it (.IMG)."""
    height, width = values.shape
    data = path.with_suffix(".IMG")
    data.write_bytes(values.tobytes())
    path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<Product_Observational xmlns="http://pds.nasa.gov/pds4/pds/v1">
 <Identification_Area>
  <logical_identifier>urn:nasa:pds:mars2020_navcam:data:{path.stem.lower()}</logical_identifier>
  <version_id>1.0</version_id><title>t</title>
  <information_model_version>1.11.0.0</information_model_version>
  <product_class>Product_Observational</product_class>
 </Identification_Area>
 <Observation_Area>
  <Time_Coordinates>
   <start_date_time>2023-01-08T01:02:03.4Z</start_date_time>
   <stop_date_time>2023-01-08T01:02:04Z</stop_date_time>
  </Time_Coordinates>
  <Investigation_Area><name>Mars 2020 Rover Mission</name><type>Mission</type></Investigation_Area>
  <Observing_System><Observing_System_Component>
   <name>Left Navigation Camera</name><type>Instrument</type>
  </Observing_System_Component></Observing_System>
  <Discipline_Area>{more}</Discipline_Area>
 </Observation_Area>
 <File_Area_Observational>
  <File><file_name>{data.name}</file_name></File>
  <Array_2D_Image>
   <local_identifier>image</local_identifier>
   <offset unit="byte">0</offset><axes>2</axes>
   <axis_index_order>Last Index Fastest</axis_index_order>
   <Element_Array><data_type>{kind}</data_type></Element_Array>
   <Axis_Array><axis_name>Line</axis_name><elements>{lines or height}</elements>
    <sequence_number>1</sequence_number></Axis_Array>
   <Axis_Array><axis_name>Sample</axis_name><elements>{width}</elements>
    <sequence_number>2</sequence_number></Axis_Array>
  </Array_2D_Image>
 </File_Area_Observational>
</Product_Observational>
""")
    return path
