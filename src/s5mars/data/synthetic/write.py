"""A folder of synthetic scenes in the plain layout: images, masks, splits and their description."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, S5MARS, hex_colour
from s5mars.data.synthetic.scene import SMALLEST, render_scene
from s5mars.errors import UserError
from s5mars.files import disk_full, encoded_picture, is_disk_full, put_folder

_SHARES = (("train", 0.6), ("val", 0.2), ("test", 0.2))
_QUALITY = 92
_DESCRIPTION = "dataset.yaml"


def write_synthetic(
    out: str | os.PathLike[str],
    *,
    images: int = 60,
    size: int = 512,
    seed: int = 0,
    unlabelled: int = 0,
) -> Path:
    """Render a data set of synthetic Mars scenes; a new folder appears when it is complete.

    The layout is the plain folder: ``images/*.jpg``, ``masks/*.png`` (class index of
    ``s5mars.classes.S5MARS``, 255 unlabelled), ``dataset.yaml``,
    ``splits/{train,val,test}.txt`` with 60, 20 and 20 % of the images. Every class that is in
    enough images is in all three splits.

    Args:
        out: Output folder; it must be empty or not exist.
        images: Number of labelled scenes.
        size: Width and height of each scene, in pixels.
        seed: Equal seeds give equal bytes (with the same versions of numpy, scipy and Pillow).
        unlabelled: Number of additional scenes without a mask, written to ``unlabelled/``.

    Returns:
        ``out``.

    Raises:
        UserError: if ``out`` exists and is not empty, or a number is too small.
        OSError: if writing fails; the message says so if the disk is full.
    """
    out = Path(out)
    if images < len(_SHARES):
        raise UserError(
            f"--images must be at least {len(_SHARES)}, one for each of the splits train, val and "
            f"test (got {images})"
        )
    if size < SMALLEST:
        raise UserError(f"--size must be at least {SMALLEST} pixels (got {size})")
    if unlabelled < 0:
        raise UserError(f"unlabelled must be at least 0 (got {unlabelled})")
    _check_free(out)
    real = out.resolve()  # "." has no name, and a link is no folder to write beside
    real.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=f".{real.name}-", dir=real.parent) as beside:
            part = Path(beside) / "set"
            _fill(part, images, size, seed, unlabelled)
            _check_free(out)  # another process may have made it
            put_folder(part, real, last=_DESCRIPTION)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(out) from error
        raise
    return out


def _check_free(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        what = "is not empty" if out.is_dir() else "is a file"
        raise UserError(f"{out} {what}: choose a new folder, or remove this one")


def _fill(folder: Path, images: int, size: int, seed: int, unlabelled: int) -> None:
    names = [f"scene_{index:04d}" for index in range(images + unlabelled)]
    for part in ("images", "masks", "splits", *(["unlabelled"] if unlabelled else [])):
        (folder / part).mkdir(parents=True)
    pixels = np.zeros((images, len(S5MARS)), np.int64)
    for index, name in enumerate(names):
        image, label = render_scene(size, seed=seed, index=index)
        place = "images" if index < images else "unlabelled"
        jpeg = encoded_picture(Image.fromarray(image), ".jpg", quality=_QUALITY)
        (folder / place / f"{name}.jpg").write_bytes(jpeg)
        if index < images:
            png = encoded_picture(Image.fromarray(label), ".png")
            (folder / "masks" / f"{name}.png").write_bytes(png)
            pixels[index] = np.bincount(label.ravel(), minlength=IGNORE + 1)[: len(S5MARS)]
    for split, members in _spread(pixels > 0).items():
        text = "".join(f"{names[index]}\n" for index in members)
        (folder / "splits" / f"{split}.txt").write_text(text, encoding="utf-8")
    (folder / _DESCRIPTION).write_text(_description(seed, size), encoding="utf-8")


def _spread(present: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Distribute images (N, C) over the splits, the rarest class first."""
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
        # The split that lacks most of this class; ties go to the split with most room.
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
