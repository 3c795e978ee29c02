"""``index.parquet``, one row per product, made from the manifest; ``summary.csv``, an extract."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s5mars.classes import Taxonomy
from s5mars.errors import MissingFileError, UserError
from s5mars.files import printable, replacing, write_text
from s5mars.files.reading import open_parquet, parse_object, reading
from s5mars.files.spreadsheet import csv_text
from s5mars.predict.database import START_OVER
from s5mars.predict.manifest import Entry, Manifest
from s5mars.predict.sources import INDEX, TABLE
from s5mars.products import read_info

FOOTER = b"s5mars.index"

_PRODUCT = {
    "name": pa.string(),  # of the maps, relative to the output folder, without extension
    "image": pa.string(),  # the same with the product's extension
    "path": pa.string(),
    "status": pa.string(),  # done, failed, to do
    "reason": pa.string(),
    "mission": pa.string(),
    "rover": pa.string(),
    "camera": pa.string(),
    "sol": pa.int64(),
    "product_id": pa.string(),
    "utc": pa.string(),
    "sclk": pa.float64(),
    "sources": pa.string(),  # where mission ... sclk were read from
    "stretch": pa.string(),
    "mosaic": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "no_data": pa.float64(),  # fraction of all pixels
    "abstained": pa.float64(),  # fraction of the pixels with data, as in the following columns
    "mean_confidence": pa.float64(),
    "out_of_domain": pa.bool_(),  # unlike the training images; null if the model has no record
    "out_of_domain_reason": pa.string(),
    "domain_distance": pa.float64(),  # of the features, 1 at the limit; null if not compared
}
_IN_TABLE = ("image", "width", "height", "mean_confidence", "no_data", "out_of_domain")
_ROWS = 10_000


def write_index(manifest: Manifest, taxonomy: Taxonomy) -> Path:
    """Write both files atomically; the same manifest gives the same bytes.

    Columns of the index: metadata of the product (null if unknown), sizes, ``no_data`` (fraction of
    all pixels), ``out_of_domain`` (whether the product is unlike the training images) with its
    reason and the distance of its features, and for the pixels with data ``abstained``,
    ``mean_confidence``, one column per class with its fraction, and ``largest_CLASS`` with the
    number of pixels of its largest connected region.

    Raises:
        OSError: if writing fails, with a clear message for a full disk.
    """
    shares = class_columns(taxonomy)
    footer = json.dumps({"taxonomy": taxonomy.to_dict()}, ensure_ascii=False)
    schema = _schema(shares).with_metadata({FOOTER: footer})
    path = manifest.out / INDEX
    lines = [csv_text([[*_IN_TABLE, *shares]])]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for rows, block in _blocks(manifest, shares, schema):
            writer.write_table(block)
            done = [row for row in rows if row["status"] == "done"]
            lines.append(
                csv_text([_cell(n, row[n]) for n in (*_IN_TABLE, *shares)] for row in done)
            )
    write_text(manifest.out / TABLE, "".join(lines))
    return path


def read_index(maps: Path) -> tuple[pa.Table, Taxonomy]:
    """Read the index of an output folder and the classes of its maps.

    Args:
        maps: the folder, or its ``index.parquet``.

    Raises:
        MissingFileError: if there is no index.
        UserError: if the file is damaged or not an index.
    """
    path = maps / INDEX if maps.is_dir() else maps
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; `s5mars predict` writes it at its end")
    with reading(path, kind="index", remedy="run `s5mars predict` with --resume"):
        file = open_parquet(path)
        footer = (file.metadata.metadata or {}).get(FOOTER)
        if footer is None:
            raise UserError(f"{path} was not written by `s5mars predict`")
        taxonomy = Taxonomy.from_dict(parse_object(footer)["taxonomy"])
        shares = class_columns(taxonomy)
        schema = _schema(shares)
        # Drop other columns: DuckDB ignores the case of column names.
        return file.read().select(schema.names).cast(schema), taxonomy


def class_columns(taxonomy: Taxonomy) -> list[str]:
    """Names of the class columns: the class names, prefixed by ``class`` if already in use.

    Case is ignored, because queries ignore it.
    """
    taken = {name.lower() for name in _PRODUCT}
    columns = []
    for name in taxonomy.names:
        while name.lower() in taken or f"largest_{name}".lower() in taken:
            name = f"class {name}"
        taken |= {name.lower(), f"largest_{name}".lower()}
        columns.append(name)
    return columns


def _schema(shares: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            *_PRODUCT.items(),
            *((column, pa.float64()) for column in shares),
            *((f"largest_{column}", pa.int64()) for column in shares),
        ]
    )


def _blocks(
    manifest: Manifest, shares: Sequence[str], schema: pa.Schema
) -> Iterator[tuple[list[dict[str, Any]], pa.Table]]:
    with reading(manifest.path, kind="manifest", remedy=START_OVER):
        found = (_row(entry, shares) for entry in manifest.entries())
        while rows := list(islice(found, _ROWS)):
            yield rows, pa.Table.from_pylist(rows, schema=schema)


def _row(entry: Entry, shares: Sequence[str]) -> dict[str, Any]:
    # For a product that was not read, only its name provides metadata.
    facts: Mapping[str, Any] = entry.facts or read_info(entry.source.path).row()
    row: dict[str, Any] = {
        **{name: facts.get(name) for name in _PRODUCT},
        "name": entry.source.name,
        "image": (PurePosixPath(entry.source.name).parent / entry.source.path.name).as_posix(),
        "path": str(entry.source.path),
        "status": entry.state,
        "reason": entry.reason,
    }
    row = {k: printable(v) if isinstance(v, str) else v for k, v in row.items()}
    nothing = [None] * len(shares)
    row |= zip(shares, facts.get("shares", nothing), strict=True)
    largest = facts.get("largest", nothing)
    return row | {f"largest_{c}": pixels for c, pixels in zip(shares, largest, strict=True)}


def _cell(name: str, value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4f}" if name == "mean_confidence" else f"{value:.6f}"
    return value
