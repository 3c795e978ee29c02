"""The masks of a folder, their versions, and unlimited undo.

Every change goes through one lock: the mask is renamed into place, then a line is appended to the
history. A change names the version of the mask that it was made on; another version is a conflict,
and nothing is written. Undo works on the image, from the history, so it survives a restart.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE
from s5mars.data.read import index_table
from s5mars.errors import MissingFileError, UserError
from s5mars.labels.loop.folder import LabelFolder
from s5mars.labels.loop.history import NAME, History
from s5mars.labels.loop.mask_files import MaskFiles, Stamp, stamp_of
from s5mars.labels.loop.patch import KEEP, Patch, read_patch
from s5mars.labels.loop.splits import Splits
from s5mars.products import read_info
from s5mars.types import Sample

Status = Literal["open", "done", "skipped"]
STATUSES: tuple[Status, ...] = ("open", "done", "skipped")

_KEPT_IN_MEMORY = 12
"""Number of masks that are not read again from disk."""


class ConflictError(UserError):
    """A change of a mask that is not the newest one."""


@dataclass(frozen=True)
class Mask:
    """A mask as it is now."""

    ids: NDArray[np.uint8]  # (H, W), as in the file
    version: int  # grows with every change


@dataclass(frozen=True)
class _Change:
    before: Patch
    after: Patch


class Store:
    """The masks of a folder.

    Args:
        folder: the folder; its masks are all read once, to count their pixels.

    Raises:
        UserError: if a mask or the history is damaged, or has ids that ``dataset.yaml`` lacks, or
            two masks have the same name.
    """

    def __init__(self, folder: LabelFolder) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self._files = MaskFiles(folder)
        self.sols = {name: read_info(path).sol for name, path in folder.images.items()}
        classes = len(folder.taxonomy)
        self._id_of = np.full(256, folder.ignored_id, np.uint8)
        self._id_of[:classes] = [folder.id_of(index) for index in range(classes)]
        self._index_of = index_table(folder.coding)[:256]
        self._version = dict.fromkeys(folder.images, 0)
        self._done: dict[str, list[_Change]] = {}
        self._undone: dict[str, list[_Change]] = {}
        self._stamp: dict[str, Stamp] = {}
        self._masks: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._sizes: dict[str, tuple[int, int]] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}  # painted pixels by class, painted ones only
        self.status: dict[str, Status] = {}
        self.may_remove: Callable[[], bool] = lambda: True  # no training reads the masks
        self.history = History(folder.state / NAME)
        for record in self.history.read():
            try:
                self._replay(record)
            except UserError as error:
                raise self.history.damaged(error) from None
        self._scan()
        samples = {name: Sample(name, path) for name, path in folder.images.items()}
        self.splits = Splits(folder.root / "splits", samples, self.sols)
        self.splits.add(self.counts)

    @property
    def painted(self) -> list[str]:
        """Images with at least one painted pixel."""
        return list(self.counts)

    def is_open(self, name: str) -> bool:
        """Whether an image is neither painted nor marked as done or skipped."""
        return name not in self.counts and self.status.get(name, "open") == "open"

    def open(self, name: str, size: tuple[int, int]) -> Mask:
        """The mask of an image of ``size`` (H, W).

        Raises:
            UserError: if the mask is damaged or has another size.
        """
        with self.lock:
            self._sizes[name] = size
            path = self._files.existing(name)
            stamp = stamp_of(path)
            if name in self._masks and self._stamp.get(name, stamp) == stamp:
                self._masks.move_to_end(name)
                return Mask(self._masks[name], self._version[name])
            if path is None:
                ids = np.full(size, self.folder.ignored_id, np.uint8)
            else:
                ids = self._files.read(name, path)
            if ids.shape != size:
                raise UserError(
                    f"{path}: {ids.shape[1]}×{ids.shape[0]} pixels, but the image has "
                    f"{size[1]}×{size[0]}: replace or remove the mask"
                )
            # Only now that the file has been read: after an error, the mask in memory stays an old
            # one, and a stroke on it would overwrite the file.
            if name in self._stamp and self._stamp[name] != stamp:
                self._version[name] += 1  # another program has written it
            self._stamp[name] = stamp
            self._remember(name, ids)
            self._count(name, ids)
            return Mask(ids, self._version[name])

    def indices(self, mask: Mask) -> NDArray[np.uint8]:
        """(H, W) class index or 255 of a mask."""
        return self._index_of[mask.ids]

    def labels(self, name: str) -> NDArray[np.uint8]:
        """(H, W) class index or 255 of an image that has been opened or has a mask."""
        with self.lock:
            size = self._sizes.get(name)
            if size is None:
                path = self._files.existing(name)
                if path is None:
                    raise UserError(f"{name} has no mask")
                height, width = self._files.read(name, path).shape
                size = height, width
            return self.indices(self.open(name, size))

    def paint(self, name: str, version: int, *, box: Any, runs: Any, tool: str, by: str) -> int:
        """Write a stroke: class indices, 255 to erase; returns the new version.

        Raises:
            ConflictError: if the mask has another version.
            UserError: if the patch is wrong, the image is gone, or its mask cannot be read.
        """
        with self.lock:
            mask = self._current(name, version)
            allowed = (*range(len(self.folder.taxonomy)), IGNORE)
            given = read_patch(box, runs, size=mask.ids.shape, allowed=allowed)
            kept = given.values == KEEP
            new = self._id_of[given.values.clip(0)].astype(np.int16)
            # A pixel that has the class keeps its id, which may be one of several.
            same = self._index_of[mask.ids[given.region]] == given.values
            after = Patch(given.x, given.y, np.where(kept | same, np.int16(KEEP), new))
            ids, before = after.applied(mask.ids)
            self._write(name, ids)
            self._done.setdefault(name, []).append(_Change(before, after))
            self._undone.pop(name, None)
            self._log("paint", name, by, tool=tool, box=after.box, before=before.runs(),
                      after=after.runs())  # fmt: skip
            return self._version[name]

    def undo(self, name: str, version: int, *, by: str) -> tuple[int, Patch | None]:
        """Take back the last stroke on an image.

        Returns:
            The new version and the change in class indices; the same version and None if there is
            nothing to take back.

        Raises:
            ConflictError: if the mask has another version, or was changed by another program since,
                or the stroke is not inside the image.
        """
        return self._turn("undo", name, version, by=by)

    def redo(self, name: str, version: int, *, by: str) -> tuple[int, Patch | None]:
        """Repeat the last stroke that was taken back; see ``undo``."""
        return self._turn("redo", name, version, by=by)

    def mark(self, name: str, status: Status, *, by: str) -> None:
        """Record that an image is done, skipped, or open again."""
        with self.lock:
            self.status[name] = status
            self.history.append("status", image=name, status=status, by=by)

    def opened(self, name: str, *, by: str) -> None:
        """Record that a person looks at an image: the time counts."""
        with self.lock:
            self.history.append("open", image=name, by=by)

    def version(self, name: str) -> int:
        """The version of a mask."""
        return self._version[name]

    def undoable(self, name: str) -> tuple[int, int]:
        """Number of strokes that can be taken back, and repeated."""
        return len(self._done.get(name, ())), len(self._undone.get(name, ()))

    def remove_empty(self) -> None:
        """Remove the masks without paint that the page wrote, so that their images are the pool."""
        with self.lock:
            for name in {*self._done, *self._undone} - self.counts.keys():
                # Another program may have painted since the mask was counted.
                if stamp_of(self.path(name)) == self._stamp.get(name):
                    self._remove(name)

    def path(self, name: str) -> Path:
        """Where the mask of an image is written."""
        return self._files.path(name)

    def _turn(
        self, do: Literal["undo", "redo"], name: str, version: int, *, by: str
    ) -> tuple[int, Patch | None]:
        take, give = (self._done, self._undone) if do == "undo" else (self._undone, self._done)
        with self.lock:
            mask = self._current(name, version)
            stack = take.get(name)
            if not stack:
                return version, None
            change = stack[-1]
            now, then = (
                (change.after, change.before) if do == "undo" else (change.before, change.after)
            )
            if not now.fits(mask.ids):
                raise ConflictError(
                    f"{do} is not possible on {name}, because its image was replaced by a smaller "
                    "one since that stroke"
                )
            changed = change.before.values != KEEP
            if (mask.ids[now.region][changed] != now.values[changed]).any():
                raise ConflictError(
                    f"{do} is not possible on {name}, because another program has changed its mask "
                    "since that stroke"
                )
            ids, _ = then.applied(mask.ids)
            self._write(name, ids)
            give.setdefault(name, []).append(stack.pop())
            self._log(do, name, by)
            indices = self._index_of[then.values.clip(0)].astype(np.int16)
            values = np.where(then.values == KEEP, np.int16(KEEP), indices)
            return self._version[name], Patch(then.x, then.y, values)

    def _current(self, name: str, version: int) -> Mask:
        size = self._sizes.get(name)
        if size is None:
            raise ConflictError(f"{name} has not been opened since the server started; reload it")
        image = self.folder.images[name]
        if not image.is_file():  # a mask without an image would be an error in all commands
            raise MissingFileError(
                f"{image} does not exist any more, so nothing was saved; restore the image, or "
                "restart the label page to leave it out"
            )
        mask = self.open(name, size)
        if mask.version != version:
            raise ConflictError(
                f"{name} was changed in another tab, by another person or by another program; your "
                "last stroke was not saved, and the newest mask is shown now"
            )
        return mask

    def _log(self, do: str, name: str, by: str, **facts: object) -> None:
        self._version[name] += 1
        self.history.append(do, image=name, by=by, version=self._version[name], **facts)

    def _replay(self, record: dict[str, Any]) -> None:
        name, do = record.get("image"), record["do"]
        if not isinstance(name, str) or name not in self._version:
            return  # an image that was removed from the folder
        if do == "status" and record["status"] in STATUSES:
            self.status[name] = record["status"]
        elif do == "paint":
            every = frozenset(range(256))
            box = record["box"]
            size = (box[1] + box[3], box[0] + box[2])
            before, after = (
                read_patch(box, record.get(key), size=size, allowed=every)
                for key in ("before", "after")
            )
            self._done.setdefault(name, []).append(_Change(before, after))
            self._undone.pop(name, None)
        elif do in ("undo", "redo"):
            take, give = (self._done, self._undone) if do == "undo" else (self._undone, self._done)
            if take.get(name):
                give.setdefault(name, []).append(take[name].pop())
        else:
            return
        if do != "status":
            self._version[name] = record["version"]

    def _scan(self) -> None:
        """Count the painted pixels of every mask."""
        for name, path in self._files.found.items():
            ids = self._files.read(name, path)
            self._stamp[name] = stamp_of(path)
            self._count(name, ids)

    def _remember(self, name: str, ids: NDArray[np.uint8]) -> None:
        self._masks[name] = ids
        self._masks.move_to_end(name)
        while len(self._masks) > _KEPT_IN_MEMORY:
            self._masks.popitem(last=False)

    def _count(self, name: str, ids: NDArray[np.uint8]) -> None:
        counts = np.bincount(self._index_of[ids].ravel(), minlength=256)
        counts = counts[: len(self.folder.taxonomy)]
        if counts.any():
            self.counts[name] = counts
        else:
            self.counts.pop(name, None)

    def _write(self, name: str, ids: NDArray[np.uint8]) -> None:
        self._files.write(name, ids)
        self._stamp[name] = stamp_of(self.path(name))
        self._remember(name, ids)
        was = name in self.counts
        self._count(name, ids)
        if name in self.counts:
            self.splits.add([name])
        elif was:
            self.splits.remove(name)
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove a mask without paint, unless a training reads the masks now."""
        if not self.may_remove():
            return
        self.path(name).unlink(missing_ok=True)
        self._stamp[name] = None
