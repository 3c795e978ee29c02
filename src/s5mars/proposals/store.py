"""The object store: proposals of many images in Parquet.

A row is a mask and a row group is an image, so that a loader reads only the rows of its image. The
footer contains the names of the images in the order of their row groups; opening a store reads only
the footers. A store is one file or a folder of such files (shards).
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from s5mars.errors import MissingFileError, UserError, listed
from s5mars.files import replacing, visible
from s5mars.files.reading import open_parquet, parse_object, reading, require_format
from s5mars.proposals.proposal import Proposal
from s5mars.text.numbers import plural

_FORMAT = 1
_FOOTER_KEY = b"s5mars.proposals"
_OPEN_FILES = 128

_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("rank", pa.int32()),
        ("counts", pa.binary()),
        ("box_x", pa.float64()),
        ("box_y", pa.float64()),
        ("box_width", pa.float64()),
        ("box_height", pa.float64()),
        ("area", pa.int64()),
        ("predicted_iou", pa.float64()),
        ("stability", pa.float64()),
        ("proposer", pa.string()),
        ("settings", pa.string()),
    ]
)
_REPEATED = ("image", "height", "width", "proposer", "settings")
_READ = [name for name in _SCHEMA.names if name not in ("image", "rank", "settings")]
_READ_SCHEMA = pa.schema([_SCHEMA.field(name) for name in _READ])

Rows = Iterable[tuple[str, Sequence[Proposal]]]
"""Image names (as in ``Sample.name``) and their proposals, best first; they may be empty."""


def write_store(
    path: Path | str,
    rows: Rows,
    *,
    proposer: str,
    settings: Mapping[str, object] | None = None,
    digests: Mapping[str, str] | None = None,
) -> None:
    """Write one Parquet file atomically.

    ``rows`` may be a generator; one image is in memory at a time. The order of the proposals of an
    image is their rank. ``settings``, which must be valid JSON, are stored with every row.
    ``digests`` of the image files by name tell images of the same name apart.

    Raises:
        UserError: if an image occurs twice or its proposals differ in image size.
    """
    path = Path(path)
    written_settings = json.dumps(settings or {}, sort_keys=True)
    counts: dict[str, int] = {}
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary,
            _SCHEMA,
            compression="zstd",
            use_dictionary=list(_REPEATED),
            write_statistics=False,
            write_page_checksum=True,
        ) as writer,
    ):
        for name, proposals in rows:
            if name in counts:
                raise UserError(f"{path}: image {name!r} occurs twice: names must be unique")
            counts[name] = len(proposals)
            if proposals:
                writer.write_table(_table(name, proposals, written_settings))
        footer = {
            "format": _FORMAT,
            "proposer": proposer,
            "settings": settings or {},
            "images": counts,
            "digests": dict(digests or {}),
        }
        writer.add_key_value_metadata({_FOOTER_KEY: json.dumps(footer).encode()})


@dataclass(frozen=True)
class ImageProposals:
    """The stored proposals of one image by rank; each is decoded when it is accessed."""

    table: Any  # pyarrow.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image; (0, 0) if there are no masks."""
        if not len(self):
            return 0, 0
        return self.table.column("height")[0].as_py(), self.table.column("width")[0].as_py()

    @property
    def share(self) -> NDArray[np.float64]:
        """(N,) area of each mask as a share of the image."""
        columns = [self.table.column(name).to_numpy() for name in ("area", "height", "width")]
        shares: NDArray[np.float64] = columns[0] / (columns[1] * columns[2].astype(np.float64))
        return shares

    def share_inside(self, window: tuple[float, float, float, float]) -> NDArray[np.float64]:
        """(N,) share of the box of each mask inside (left, top, right, bottom), in pixels."""
        x, y, width, height = (
            self.table.column(f"box_{name}").to_numpy() for name in ("x", "y", "width", "height")
        )
        left, top, right, bottom = window
        columns = np.clip(np.minimum(x + width, right) - np.maximum(x, left), 0, None)
        rows = np.clip(np.minimum(y + height, bottom) - np.maximum(y, top), 0, None)
        shares: NDArray[np.float64] = columns * rows / np.maximum(width * height, 1e-9)
        return shares

    @property
    def predicted_iou(self) -> NDArray[np.float64]:
        """(N,) predicted IoUs."""
        values: NDArray[np.float64] = self.table.column("predicted_iou").to_numpy()
        return values

    def __getitem__(self, rank: int) -> Proposal:
        if not 0 <= rank < len(self):
            raise IndexError(rank)
        row = {name: self.table.column(name)[rank].as_py() for name in _READ}
        return Proposal(
            counts=row["counts"],
            size=(row["height"], row["width"]),
            box=(row["box_x"], row["box_y"], row["box_width"], row["box_height"]),
            area=row["area"],
            predicted_iou=row["predicted_iou"],
            stability=row["stability"],
            proposer=row["proposer"],
        )

    def __iter__(self) -> Iterator[Proposal]:
        return (self[rank] for rank in range(len(self)))


class ObjectStore:
    """Reads a store, one file or a folder of shards, image by image.

    It is fast to pickle and safe to share with worker processes, because each process opens the
    files itself. It is not thread-safe.

    Args:
        path: A ``.parquet`` file, or a folder whose ``*.parquet`` files are shards.

    Raises:
        MissingFileError: if ``path`` does not exist or the folder contains no shard.
        UserError: if a file is damaged or not an object store, two shards contain the same image,
            or shards were made with different settings.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.proposer = ""
        self.settings: dict[str, object] = {}
        self.masks = 0  # total number of masks
        self.digests: dict[str, str] = {}  # of the image files; an older store has none
        self._shards = _shards(self.path)
        self._place: dict[str, tuple[int, int]] = {}  # name → shard, row group (-1: no masks)
        for number, shard in enumerate(self._shards):
            self._index(number, _read_footer(shard))
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._process = os.getpid()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all images in the store, including those without masks."""
        return tuple(self._place)

    @property
    def description(self) -> str:
        """One line for logs and reports."""
        masks, images = plural(self.masks, "mask"), plural(len(self), "image")
        return f"{self.path.name}: {masks} of {images} by {self.proposer}"

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, name: object) -> bool:
        return name in self._place

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the ``names`` that are not in the store, in their order."""
        return [name for name in names if name not in self._place]

    def check(self, names: Iterable[str]) -> None:
        """Raise a UserError if any of these images is not in the store."""
        names = list(names)
        missing = self.missing(names)
        if missing:
            content = f"has others ({listed(self.names, 3)})" if self.names else "is empty"
            raise UserError(
                f"{self.path} lacks {len(missing)} of {len(names)} images ({listed(missing, 3)}) "
                f"and {content}: make the masks of these images"
            )

    def proposals(self, name: str) -> ImageProposals:
        """Return the proposals of one image, which may be empty.

        Raises:
            UserError: if the image is not in the store, or its part of the file is damaged.
        """
        if name not in self._place:
            self.check([name])
        shard, group = self._place[name]
        if group < 0:
            return ImageProposals(_SCHEMA.empty_table().select(_READ))
        with _reading(self._shards[shard]):
            table = self._file(shard).read_row_group(group, columns=_READ, use_threads=False)
            table = table.select(_READ).cast(_READ_SCHEMA)
            if any(column.null_count for column in table.columns):
                raise ValueError("a value is missing")
        return ImageProposals(table)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict(), "_process": -1}

    def _index(self, number: int, footer: Mapping[str, Any]) -> None:
        shard = self._shards[number]
        made = (footer["proposer"], footer["settings"])
        if number == 0:
            self.proposer, self.settings = made
        elif made != (self.proposer, self.settings):
            raise UserError(
                f"{shard} was made by {made[0]} with {made[1]}, but {self._shards[0].name} by "
                f"{self.proposer} with {self.settings}: put them into different folders"
            )
        self.digests |= footer.get("digests", {})
        group = 0
        for name, count in footer["images"].items():
            if name in self._place:
                other = self._shards[self._place[name][0]].name
                raise UserError(f"{shard}: image {name!r} is also in {other}: remove one of them")
            self._place[name] = (number, group if count else -1)
            group += count > 0
            self.masks += count

    def _file(self, shard: int) -> Any:
        # After a fork, an open file would share its position with the parent process.
        if self._process != os.getpid():
            self._files = OrderedDict()
            self._process = os.getpid()
        if shard not in self._files:
            while len(self._files) >= _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            self._files[shard] = open_parquet(self._shards[shard])
        self._files.move_to_end(shard)
        return self._files[shard]


def _table(name: str, proposals: Sequence[Proposal], settings: str) -> pa.Table:
    sizes = {proposal.size for proposal in proposals}
    if len(sizes) > 1:
        raise UserError(f"image {name!r}: all masks must have the same size (got {sorted(sizes)})")
    count = len(proposals)
    boxes = zip(*(proposal.box for proposal in proposals), strict=True)
    columns = [
        [name] * count,
        [proposal.size[0] for proposal in proposals],
        [proposal.size[1] for proposal in proposals],
        list(range(count)),
        [proposal.counts for proposal in proposals],
        *(list(edge) for edge in boxes),
        [proposal.area for proposal in proposals],
        [proposal.predicted_iou for proposal in proposals],
        [proposal.stability for proposal in proposals],
        [proposal.proposer for proposal in proposals],
        [settings] * count,
    ]
    return pa.table(columns, schema=_SCHEMA)


def _shards(path: Path) -> list[Path]:
    if path.exists() and not path.is_dir():
        return [path]
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such object store (a .parquet file or a folder)")
    shards = visible(path, "*.parquet")
    if not shards:
        raise MissingFileError(
            f"{path} contains no *.parquet file; give the --out of an earlier `s5mars masks`"
        )
    return shards


def _read_footer(path: Path) -> dict[str, Any]:
    with _reading(path):
        metadata = open_parquet(path).metadata.metadata or {}
        if _FOOTER_KEY not in metadata:
            raise UserError(f"{path} is a Parquet file but not an object store of s5mars")
        footer = parse_object(metadata[_FOOTER_KEY])
        require_format(path, footer.get("format"), _FORMAT)
        counts = footer["images"].values()
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("numbers of masks must be integers of at least 0")
        str(footer["proposer"]), dict(footer["settings"]), dict(footer.get("digests", {}))
        return footer


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, kind="object store", remedy="delete it and make it again")
