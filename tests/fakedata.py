"""Writes tiny data sets in every layout; tests get this module as the fixture ``fake_data``.

A scene is a sky above ground of stripes, so that each class has its own colour and place. All
is a function of the arguments: the same calls write the same bytes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array(
    [
        (200, 180, 150), (150, 120, 100), (160, 100, 60), (190, 140, 90), (120, 90, 70),
        (90, 60, 50), (230, 230, 225), (140, 95, 65), (60, 40, 35),
    ],
    np.uint8,
)  # fmt: skip

PLAIN = """\
name: fake
ignore: [255]
classes:
  - {name: soil, ids: [0], color: "#a0522d"}
  - {name: bedrock, ids: [1, 4]}
  - {name: sky, ids: [7], criterion: above the horizon}
"""
PLAIN_IDS = (0, 1, 7)


def scene(
    seed: int, *, classes: Sequence[int], size: tuple[int, int] = (48, 40)
) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 and its class indices (H, W) uint8, 255 along the boundaries."""
    width, height = size
    random = np.random.default_rng(seed)
    stripe = np.linspace(0, len(classes), height, endpoint=False).astype(int)
    label = np.repeat(np.array(classes, np.uint8)[stripe][:, None], width, axis=1)
    noise = random.integers(-12, 13, (height, width, 3))
    image = np.clip(COLOURS[label % len(COLOURS)].astype(int) + noise, 0, 255).astype(np.uint8)
    boundary = np.flatnonzero(np.diff(stripe))
    label[boundary] = 255
    return image, label


def write_image(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix != ".png" else {}))
    return path


def plain(
    root: Path,
    *,
    images: int = 12,
    unlabelled: int = 3,
    size: tuple[int, int] = (48, 40),
    splits: bool = True,
    description: str = PLAIN,
    rare: Sequence[int] = (0,),
) -> Path:
    """The plain folder: half of the images train, a quarter each val and test.

    Masks hold the ids 0, 1 and 7; only the images in ``rare`` show class 1 (id 1).
    """
    names = [f"sol_{i:03d}" for i in range(images)]
    for i, name in enumerate(names):
        classes = (2, 1, 0) if i in rare else (2, 0)
        image, label = scene(i, classes=classes, size=size)
        ids = np.where(label == 255, 255, np.array(PLAIN_IDS, np.uint8)[np.minimum(label, 2)])
        write_image(root / "images" / f"{name}.jpg", image)
        write_image(root / "masks" / f"{name}.png", ids.astype(np.uint8))
    for i in range(unlabelled):
        image, _ = scene(1000 + i, classes=(2, 0), size=size)
        write_image(root / "unlabelled" / f"later_{i:03d}.jpg", image)
    (root / "dataset.yaml").write_text(description)
    if splits:
        half, quarter = images // 2, images // 4
        write_split(root, "train", names[:half])
        write_split(root, "val", names[half : half + quarter])
        write_split(root, "test", names[half + quarter :])
    return root


def write_split(root: Path, split: str, names: Sequence[str]) -> Path:
    path = root / "splits" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def s5mars_release(root: Path, *, train: int = 6, val: int = 2, test: int = 3) -> Path:
    """The release: ids 0..9; JSON lists of train and test in an order of their own."""
    names = [f"{i:04d}MR_x" for i in range(train + val + test)]
    for i, name in enumerate(names):
        image, label = scene(i, classes=(0, 1, 2, 3 + i % 6))
        ids = np.where(label == 255, 0, label.astype(int) + 1).astype(np.uint8)
        write_image(root / "images" / f"{name}.jpg", image)
        write_image(root / "labels" / f"{name}.png", ids)
    backwards = names[::-1]
    (root / "new_train_random.json").write_text(json.dumps(backwards[:train]))
    (root / "new_test_random.json").write_text(json.dumps(backwards[train : train + test]))
    return root


def mars_bench(root: Path) -> Path:
    """The Mars-Bench copy, with a train image without a mask and a partition list."""
    number = 0
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        for _ in range(count):
            image, label = scene(number, classes=(0, 2, 4))
            ids = np.where(label == 255, 0, label.astype(int) + 1).astype(np.uint8)
            folder = root / "data" / split
            write_image(folder / "images" / f"mb_{number}.jpg", image)
            write_image(folder / "masks" / f"mb_{number}.png", ids)
            number += 1
    image, _ = scene(99, classes=(0, 2))
    write_image(root / "data" / "train" / "images" / "mb_free.jpg", image)
    partition = root / "partitions" / "0.40x_partition.csv"
    partition.parent.mkdir()
    with partition.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("file_id", "split"), ("mb_1", "train"), ("mb_3", "train")])
        rows.writerows([("mb_5", "val"), ("mb_7", "test")])
    return root


def ai4mars_name(site: int, frame: int, *, product: str = "EDR") -> str:
    return f"NLA_39768{frame:04d}{product}_F{site:07d}NCAM00419M1"


def ai4mars(root: Path, *, below: str = "msl", places: int = 40) -> Path:
    """AI4Mars: two labelled frames a place, two free frames, three gold sets of 4, 3 and 2.

    In every frame the lowest 5 rows are rover and the topmost 3 beyond 30 m.
    """
    folder = root / below
    size = (32, 32)
    rover, far = np.zeros((2, 32, 32), np.uint8)
    rover[-5:], far[:3] = 1, 1

    def frame(site: int, number: int) -> np.ndarray:
        image, label = scene(number, classes=(0, 1, 2, 3), size=size)
        images = folder / "images"
        write_image(images / "edr" / f"{ai4mars_name(site, number)}.JPG", image[..., 0])
        write_image(images / "mxy" / f"{ai4mars_name(site, number, product='MXY')}.png", rover)
        write_image(images / "rng-30m" / f"{ai4mars_name(site, number, product='RNG')}.png", far)
        return label

    for place in range(places):
        for number in (2 * place, 2 * place + 1):
            label = frame(10 * place, number)
            name = ai4mars_name(10 * place, number)
            write_image(folder / "labels" / "train" / f"{name}.png", label)
    for number in (5000, 5001):
        frame(7777, number)
    for number in range(6000, 6004):
        label = frame(8888, number)
        # The crowd has labelled some of the gold frames too.
        crowd = folder / "labels" / "train" / f"{ai4mars_name(8888, number)}.png"
        write_image(crowd, np.zeros_like(label))
        for agree, count in ((1, 4), (2, 3), (3, 2)):
            if number - 6000 < count:
                gold = folder / "labels" / "test" / f"masked-gold-min{agree}-100agree"
                write_image(gold / f"{ai4mars_name(8888, number)}_merged.png", label)
    return root


def ai4mars_mastcam(root: Path, *, sols: int = 40) -> Path:
    """Curiosity's Mastcam of AI4Mars 0.6: two frames a sol; every second label ignores by 4."""
    folder = root / "msl" / "mcam"
    for sol in range(sols):
        for number in range(2):
            image, label = scene(2 * sol + number, classes=(0, 1, 2, 3), size=(32, 32))
            name = f"{sol:04d}ML{sol:09d}{number:07d}E01_DRCL"
            write_image(folder / "images" / f"{name}.JPG", image)
            label[label == 255] = 4 if number else 255
            write_image(folder / "labels" / "train" / f"{name}_15033_merged.png", label)
    image, _ = scene(999, classes=(0, 1), size=(32, 32))
    write_image(folder / "images" / "0099ML0000990000000000E01_DRCL.JPG", image)
    return folder


def ai4mars_perseverance(root: Path, *, sols: int = 40) -> Path:
    """Perseverance of AI4Mars 0.6: Navcam with NAV labels, Mastcam-Z with geology."""
    folder = root / "m2020"
    for sol in range(sols):
        image, label = scene(sol, classes=(0, 1, 2, 3), size=(32, 32))
        name = f"NLF_{sol:04d}_06677{sol:05d}_167ECM_N0030000NCAM05000_01_295J"
        write_image(folder / "images" / "ncam" / f"{name}.jpeg", image)
        write_image(folder / "labels" / "NAV" / f"{name}_merged{sol}.png", label)
        name = f"ZL0_{sol:04d}_06677{sol:05d}_167EBY_N0030000ZCAM05000_110085J"
        write_image(folder / "images" / "mcam" / f"{name}.jpg", image)
        ids = np.where(label == 255, 255, np.array((6, 17, 30, 50), np.uint8)[label % 4])
        path = folder / "labels" / "M2020_GEO" / f"{name}_merged7.png"
        write_image(path, ids.astype(np.uint8))
    for camera, name in (("ncam", "NLF_0099_0667799999_1"), ("HAFIQ", "Vgnc_1")):
        write_image(folder / "images" / camera / f"{name}.jpg", image)
    write_image(folder / "labels" / "NAV" / "VgncRawLeft_0709_rectified_merged13.png", label)
    return folder


def mars_seg(root: Path, *, form: str = "release", part: str = "MER", images: int = 40) -> Path:
    """One part of Mars-Seg, as released (ids 1..9) or as Co2S copies it (ids 0..8)."""
    folder = root / part
    names, first = (("JPEGImages", "SegmentationClassPNG"), 1)
    if form == "copy":
        names, first = (("images", "labels"), 0)
    for i in range(images):
        image, label = scene(i, classes=(8, 0, 3, 4 + i % 4))
        ids = np.where(label == 255, 255, label.astype(int) + first).astype(np.uint8)
        write_image(folder / names[0] / f"1P{i:04d}EFF.jpg", image[..., 0])
        write_image(folder / names[1] / f"1P{i:04d}EFF.png", ids)
    return folder


def co2s_lists(folder: Path, *, images: int = 12) -> None:
    """The lists of Co2S: 2 and 4 labelled images of all but the last three, which are for tests."""
    lines = [f"images/1P{i:04d}EFF.jpg labels/1P{i:04d}EFF.png" for i in range(images)]
    train = lines[:-3]
    lists = {"val": lines[-3:], "all/labeled": train[::-1]}
    for name, count in (("1_8", 2), ("1_4", 4)):
        lists |= {f"{name}/labeled": train[:count], f"{name}/unlabeled": train[count:]}
    for name, chosen in lists.items():
        path = folder / "splits" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(chosen) + "\n")


LAYOUTS = {
    "plain": plain,
    "mars-seg": mars_seg,
    "s5mars": s5mars_release,
    "mars-bench": mars_bench,
    "ai4mars": ai4mars,
}
