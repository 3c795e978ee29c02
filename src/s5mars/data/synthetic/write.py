"""A folder of synthetic scenes in the plain layout: images, masks, splits and their description."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, S5MARS, hex_colour
from s5mars.data.synthetic.scene import SMALLEST, render_scene
from s5mars.errors import UserError
from s5mars.files import disk_full, is_disk_full

_SHARES = (("train", 0.6), ("val", 0.2), ("test", 0.2))
_QUALITY = 92


def write_synthetic(
    out: str | os.PathLike[str],
    *,
    images: int = 60,
    size: int = 512,
    seed: int = 0,
    unlabelled: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render a data set of synthetic Mars scenes; the folder appears whole or not at all.

    The layout is the plain folder: ``images/*.jpg``, ``masks/*.png`` (class index of
    ``s5mars.classes.S5MARS``, 255 unlabelled), ``dataset.yaml``,
    ``splits/{train,val,test}.txt`` with 60, 20 and 20 % of the images, spread so that every
    class that occurs often enough is in each of the three.

    Args:
        out: folder to make; it may exist if it is empty.
        images: number of labelled scenes.
        size: width and height of each, in pixels.
        seed: equal seeds give equal bytes (with the same versions of numpy, scipy and Pillow).
        unlabelled: number of further scenes, written to ``unlabelled/`` without a mask.
        progress: called with (scenes done, scenes in all) after each scene.

    Returns:
        The folder.

    Raises:
        UserError: if ``out`` is in use, or a number is too small.
        OSError: if writing fails; a full disk is said in words.
    """
    out = Path(out)
    if images < len(_SHARES):
        raise UserError(
            f"--images {images} is too few for a train, a val and a test split: "
            f"take {len(_SHARES)} or more"
        )
    if size < SMALLEST:
        raise UserError(f"--size {size} is too small for a scene: take {SMALLEST} pixels or more")
    if unlabelled < 0:
        raise UserError(f"unlabelled={unlabelled} is negative: take 0 or more further scenes")
    _check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _fill(part, images, size, seed, unlabelled, progress)
        part.chmod(0o777 & ~_umask())
        _check_free(out)  # somebody may have been faster
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if is_disk_full(error):
            raise disk_full(out) from error
        raise
    return out


def _check_free(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        what = "is not empty" if out.is_dir() else "is a file"
        raise UserError(f"{out} {what}: name a new folder, or remove this one first")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fill(
    folder: Path,
    images: int,
    size: int,
    seed: int,
    unlabelled: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    names = [f"scene_{index:04d}" for index in range(images + unlabelled)]
    for part in ("images", "masks", "splits", *(["unlabelled"] if unlabelled else [])):
        (folder / part).mkdir()
    pixels = np.zeros((images, len(S5MARS)), np.int64)
    for index, name in enumerate(names):
        image, label = render_scene(size, seed=seed, index=index)
        place = "images" if index < images else "unlabelled"
        _save(Image.fromarray(image), folder / place / f"{name}.jpg", quality=_QUALITY)
        if index < images:
            _save(Image.fromarray(label), folder / "masks" / f"{name}.png")
            pixels[index] = np.bincount(label.ravel(), minlength=IGNORE + 1)[: len(S5MARS)]
        if progress is not None:
            progress(index + 1, len(names))
    for split, members in _spread(pixels > 0).items():
        text = "".join(f"{names[index]}\n" for index in members)
        (folder / "splits" / f"{split}.txt").write_text(text, encoding="utf-8")
    (folder / "dataset.yaml").write_text(_description(seed, size), encoding="utf-8")


def _save(picture: Image.Image, path: Path, **options: object) -> None:
    # In memory first, because Pillow does not report a full disk as such.
    encoded = io.BytesIO()
    picture.save(encoded, Image.registered_extensions()[path.suffix], **options)
    path.write_bytes(encoded.getbuffer())


def _spread(present: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Deal images (N, C) out to the splits, the rarest class first, where it is most wanted."""
    count = len(present)
    room = {name: round(share * count) for name, share in _SHARES}
    room = {name: max(places, 1) for name, places in room.items()}
    room["train"] = count - room["val"] - room["test"]
    shares = dict(_SHARES)
    wanted = {name: present.sum(0) * share for name, share in _SHARES}
    members: dict[str, list[int]] = {name: [] for name, _ in _SHARES}
    left = np.ones(count, bool)
    while left.any():
        counts = present[left].sum(0)
        rare = int(np.where(counts > 0, counts, count + 1).argmin())
        having = left & present[:, rare] if counts[rare] else left
        index = int(having.nonzero()[0][0])
        open_ = [name for name in members if len(members[name]) < room[name]]
        # The split that lacks most of this class; a tie goes to the one with most room.
        best = max(
            open_,
            key=lambda name: (
                wanted[name][rare] / shares[name],
                (room[name] - len(members[name])) / room[name],
            ),
        )
        members[best].append(index)
        wanted[best] = wanted[best] - present[index]
        left[index] = False
    return {name: sorted(indices) for name, indices in members.items()}


def _description(seed: int, size: int) -> str:
    width = max(len(name) for name in S5MARS.names) + 1
    lines = [
        f"# Synthetic Mars scenes, {size}x{size}, seed {seed}. Order is the class index; "
        "`ids` are the values in the mask files.",
        "# No score on them says anything about Mars.",
        "name: synthetic",
        f"ignore: [{IGNORE}]",
        "classes:",
    ]
    for index, kind in enumerate(S5MARS.classes):
        name = f"{kind.name},".ljust(width)
        lines.append(f'  - {{name: {name} ids: [{index}], color: "{hex_colour(kind.colour)}"}}')
    return "\n".join(lines) + "\n"
