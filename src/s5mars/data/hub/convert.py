"""Converts Parquet shards that contain images to image files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

from s5mars.data.hub.sources import Source
from s5mars.errors import UserError
from s5mars.files import below, write_bytes
from s5mars.files.reading import open_parquet, reading

_KINDS = ((b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"))


@dataclass(frozen=True)
class Names:
    """Names of the rows of a split."""

    rows: tuple[str, ...]
    from_paths: bool  # False: numbered, because names are missing or not unique


def names_of(
    split: str, shards: Sequence[Path], column: str, *, taken: Collection[str] = ()
) -> Names:
    """Return the stems of the ``path`` of an image column over all shards of a split, in order.

    If one is missing, not unique or among the ``taken`` ones, all rows are named by their position:
    ``train-000042``. Only the paths are read, not the images.

    Raises:
        UserError: if a shard is not a Parquet file or lacks the column.
    """
    stems: list[str | None] = []
    for shard in shards:
        file = _opened(shard, (column,))
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[f"{column}.path"])
            if table.num_columns == 0:
                stems += [None] * file.metadata.row_group(group).num_rows
                continue
            for value in table.column(0).to_pylist():
                path = value.get("path") if isinstance(value, dict) else value
                stems.append(PurePosixPath(str(path).replace("\\", "/")).stem if path else None)
    named = [stem for stem in stems if stem]
    if len(named) == len(stems) == len(set(named) - set(taken)):
        return Names(tuple(named), from_paths=True)
    return Names(tuple(f"{split}-{i:06d}" for i in range(len(stems))), from_paths=False)


def convert(
    shard: Path, source: Source, *, split: str, names: Sequence[str], out: Path
) -> dict[str, list[str]]:
    """Write the files of one shard atomically; existing files are kept.

    ``source`` defines where the files of each column are written; ``names`` are those of the rows.

    Returns:
        Column → paths of its files below ``out``.

    Raises:
        UserError: if the shard is damaged, lacks a column, or an image is neither PNG nor JPEG
            (masks must be PNG, because JPEG changes ids).
    """
    files: dict[str, list[str]] = {}
    for name, row in zip(names, _rows(shard, source), strict=True):
        places = source.places(split, name, row)
        for column, place in places.items():
            content = _bytes_of(row.get(column))
            if content is None:
                if column == source.columns[0]:
                    raise UserError(f"{shard}: row {name!r} has no image: download the file again")
                continue
            ending = _ending(content)
            if ending is None or (ending == ".jpg" and column != source.columns[0]):
                kind = "JPEG, which changes ids" if ending else "neither PNG nor JPEG"
                raise UserError(
                    f"{shard}: {column!r} of {name!r} is {kind}: use another copy of the data set"
                )
            path = below(out, f"{place}{ending}", source=shard)
            if not path.exists():
                write_bytes(path, content)
            files.setdefault(column, []).append(f"{place}{ending}")
    return files


def rows_of(shard: Path) -> int:
    """Number of rows of a shard."""
    return int(_opened(shard, ()).metadata.num_rows)


def _rows(shard: Path, source: Source) -> Iterator[Mapping[str, object]]:
    file = _opened(shard, source.columns)
    flags = [flag for flag in source.flags if flag in file.schema_arrow.names]
    columns = [*source.columns, *flags]
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        # A few rows at a time: a row group may hold a gigabyte of images.
        for batch in file.iter_batches(batch_size=16, row_groups=[group], columns=columns):
            rows -= batch.num_rows
            yield from batch.to_pylist()
        if rows:
            raise UserError(f"{shard} has {rows} fewer rows than it declares: download it again")


def _opened(shard: Path, columns: Sequence[str]) -> pq.ParquetFile:
    with reading(shard, kind="Parquet file", remedy="remove it and run fetch again"):
        file = open_parquet(shard)
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        raise UserError(
            f"{shard} has no column {lacking[0]!r}, only {', '.join(file.schema_arrow.names)}"
        )
    return file


def _bytes_of(value: object) -> bytes | None:
    content = value.get("bytes") if isinstance(value, Mapping) else None
    return content if isinstance(content, bytes) and content else None


def _ending(content: bytes) -> str | None:
    return next((ending for magic, ending in _KINDS if content.startswith(magic)), None)
