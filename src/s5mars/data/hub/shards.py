"""Gets the shards from the hub, or from a folder with the same files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from s5mars.data.hub.sources import Source
from s5mars.errors import MissingFileError, UserError
from s5mars.files import disk_full, is_disk_full
from s5mars.files.reading import parse_yaml, read_text
from s5mars.products.files import files_below

HUB = "https://huggingface.co"
UNSTATED = "not stated: ask the authors"

_SHARD = re.compile(r"(?P<split>\w+?)-(?P<number>\d+)-of-(?P<count>\d+)(-\w+)?\.parquet")


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a split."""

    name: str  # path in the repository
    split: str
    number: int
    count: int  # number of shards of the split
    size: int  # bytes


@dataclass(frozen=True)
class Listing:
    """The available shards."""

    where: str
    revision: str  # "" for a folder
    licence: str
    shards: tuple[Shard, ...]  # by split and number

    @property
    def size(self) -> int:
        """Total size in bytes."""
        return sum(shard.size for shard in self.shards)

    def __str__(self) -> str:
        revision = f" (revision {self.revision[:12]})" if self.revision else ""
        return (
            f"{self.where}{revision}: {len(self.shards)} files, {self.size / 1e9:.2f} GB, "
            f"licence {self.licence}"
        )


@dataclass(frozen=True)
class LocalStore:
    """A folder with the files of the hub repository."""

    source: Source
    folder: Path

    def listing(self) -> Listing:
        """List the shards.

        Raises:
            MissingFileError: if the folder does not exist.
            UserError: if shards of a split are missing.
        """
        if not self.folder.is_dir():
            raise MissingFileError(f"{self.folder}: no such folder")
        files = {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in files_below(self.folder, {".parquet"})
        }
        card = self.folder / "README.md"
        text = read_text(card) if card.is_file() else ""
        return Listing(str(self), "", _licence(text), _shards(files, self.source, self))

    def local_file(self, shard: Shard, folder: Path) -> Path:
        """Return the shard where it is; nothing is copied."""
        return self.folder / shard.name

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class HubStore:
    """The hub; interrupted downloads are resumed."""

    source: Source
    endpoint: str | None = None  # None: the setting of huggingface_hub
    revision: str | None = None  # commit, so that the files of a download do not mix

    def listing(self) -> Listing:
        """List the shards; downloads nothing.

        Raises:
            ConnectionError: if the hub cannot be reached; the message names another source.
            UserError: if shards of a split are missing.
        """
        from huggingface_hub import HfApi

        try:
            info = HfApi(endpoint=self.endpoint).dataset_info(
                self.source.repo, revision=self.revision, files_metadata=True
            )
        except Exception as error:  # the type depends on the version of huggingface_hub
            raise self._unreachable(error) from None
        files = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
        licence = _first(getattr(info.card_data, "license", None)) or UNSTATED
        return Listing(
            str(self),
            str(info.sha or ""),
            licence,
            _shards(files, self.source, self),
        )

    def local_file(self, shard: Shard, folder: Path) -> Path:
        """Return the shard as a local file, downloaded to ``folder`` if necessary.

        Raises:
            ConnectionError: if the hub cannot be reached.
        """
        from huggingface_hub import hf_hub_download

        try:
            return Path(
                hf_hub_download(
                    self.source.repo,
                    shard.name,
                    repo_type="dataset",
                    revision=self.revision,
                    local_dir=folder,
                    endpoint=self.endpoint,
                )
            )
        except Exception as error:
            if is_disk_full(error):
                raise disk_full(folder / shard.name) from None
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ConnectionError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return ConnectionError(
            f"the hub cannot be reached ({reason[:120]}); downloaded files are kept: run the "
            f"command again, or download {self} by other means and give the "
            f"folder with --from; the data set is published at {self.source.published}"
        )

    def __str__(self) -> str:
        return f"{HUB}/datasets/{self.source.repo}"


Store = LocalStore | HubStore


def _shards(files: dict[str, int], source: Source, where: object) -> tuple[Shard, ...]:
    shards: list[Shard] = []
    for name, size in files.items():
        found = _SHARD.fullmatch(name.rpartition("/")[2])
        if found and found["split"] in source.splits:
            number, count = int(found["number"]), int(found["count"])
            shards.append(Shard(name, found["split"], number, count, size))
    for split in source.splits:
        _complete([shard for shard in shards if shard.split == split], split, where)
    return tuple(sorted(shards, key=lambda s: (source.splits.index(s.split), s.number)))


def _complete(shards: Iterable[Shard], split: str, where: object) -> None:
    numbers = sorted((shard.number, shard.count) for shard in shards)
    count = numbers[0][1] if numbers else 1
    if numbers != [(number, count) for number in range(count)]:
        raise UserError(
            f"{where} has {len(numbers)} of {count} shards of {split!r} "
            f"({split}-NNNNN-of-NNNNN.parquet): download the missing ones"
        )


def _licence(card: str) -> str:
    found = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    try:
        facts = parse_yaml(found[1]) if found else None
    except (yaml.YAMLError, ValueError):
        facts = None
    said = _first(facts.get("license")) if isinstance(facts, dict) else None
    return said or UNSTATED


def _first(value: object) -> str | None:
    value = value[0] if isinstance(value, list) and value else value
    return str(value) if value else None
