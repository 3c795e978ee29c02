"""Writes what label tools export, from their documentation and with nothing of the package.

A mask is (H, W) uint8: 0 unpainted, k the k-th label.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LABELS = ("soil", "big rock", "boulder")
COLOURS = ((160, 82, 45), (220, 60, 60), (0, 0, 128))


def photo(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))


def blocks(seed: int, size: tuple[int, int] = (40, 30), labels: int = 3) -> np.ndarray:
    """A mask of random blocks and single pixels, half of it unpainted."""
    random = np.random.default_rng(seed)
    mask = np.zeros((size[1], size[0]), np.uint8)
    for _ in range(9):
        x, y = random.integers(0, size[0] - 3), random.integers(0, size[1] - 3)
        w, h = random.integers(1, 12, 2)
        mask[y : y + h, x : x + w] = random.integers(0, labels + 1)
    dots = random.random(mask.shape) < 0.03
    mask[dots] = random.integers(0, labels + 1, dots.sum())
    return mask


def photos(folder: Path, names: Sequence[str], **kwargs: Any) -> Path:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(seed, **kwargs).save(path)
    return folder


def png(values: np.ndarray, palette: Sequence[Sequence[int]] | None = None) -> bytes:
    picture = Image.fromarray(values)
    if palette is not None:
        picture.putpalette([channel for colour in palette for channel in colour])
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def unpacked(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


# CVAT


def cvat_masks(
    masks: Mapping[str, np.ndarray], *, palette: bool = False, background: str = "0,0,0"
) -> dict[str, bytes]:
    """ "Segmentation mask 1.1": RGB, or the palette that older versions write."""
    lines = ["# label:color_rgb:parts:actions", f"background:{background}::"]
    for label, colour in zip(LABELS, COLOURS, strict=True):
        lines.append(f"{label}:{','.join(map(str, colour))}::")
    files = {"labelmap.txt": "\n".join(lines).encode()}
    colours = np.array([[int(v) for v in background.split(",")], *COLOURS], np.uint8)
    for name, mask in masks.items():
        picture = png(mask, colours.tolist()) if palette else png(colours[mask])
        files[f"SegmentationClass/{name}.png"] = picture
        files[f"SegmentationObject/{name}.png"] = picture
    files["ImageSets/Segmentation/default.txt"] = "\n".join(masks).encode()
    return files


def row_runs(window: np.ndarray) -> list[int]:
    """Runs row by row, unpainted ones first."""
    runs, value = [0], False
    for pixel in window.ravel().tolist():
        if bool(pixel) != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return runs


def cvat_mask_element(mask: np.ndarray, label: str, z_order: int = 0) -> str:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = window.shape
    return (
        f'<mask label="{label}" source="manual" occluded="0" '
        f'rle="{", ".join(map(str, row_runs(window)))}" left="{columns[0]}" top="{rows[0]}" '
        f'width="{width}" height="{height}" z_order="{z_order}"></mask>'
    )


def cvat_xml(images: Mapping[str, tuple[tuple[int, int], Sequence[str]]]) -> bytes:
    """Name → size and elements of its shapes."""
    labels = "".join(
        f"<label><name>{label}</name><color>#{r:02x}{g:02x}{b:02x}</color><type>any</type>"
        "<attributes></attributes></label>"
        for label, (r, g, b) in zip(LABELS, COLOURS, strict=True)
    )
    body = "".join(
        f'<image id="{k}" name="{name}" width="{size[0]}" height="{size[1]}">{"".join(shapes)}'
        "</image>"
        for k, (name, (size, shapes)) in enumerate(images.items())
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task>'
        f"<id>1</id><labels>{labels}</labels></task></meta>{body}</annotations>"
    ).encode()


# Label Studio


def brush_rle(painted: np.ndarray, *, literals: bool = True) -> list[int]:
    """rle-pack of RGBA values; short stretches as single values if ``literals``."""
    values = np.repeat(painted.ravel(), 4).astype(np.uint8) * 255
    widths = (3, 4, 8, 16)
    bits = [f"{len(values):032b}", f"{8 - 1:05b}", *(f"{w - 1:04b}" for w in widths)]

    def header(repeats: bool, length: int) -> str:
        which = next(k for k, w in enumerate(widths) if length <= 1 << w)
        return f"{repeats:b}{which:02b}{length - 1:0{widths[which]}b}"

    edges = np.flatnonzero(np.diff(values)) + 1
    pending: list[int] = []

    def flush() -> None:
        while pending:
            part = pending[: 1 << 16]
            bits.append(header(False, len(part)) + "".join(f"{v:08b}" for v in part))
            del pending[: 1 << 16]

    for run in np.split(values, edges):
        if literals and len(run) <= 4:
            pending.extend(run.tolist())
            continue
        flush()
        left = len(run)
        while left:
            length = min(left, 1 << 16)
            bits.append(f"{header(True, length)}{run[0]:08b}")
            left -= length
    flush()
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def brush_result(painted: np.ndarray, label: str, **kwargs: Any) -> dict[str, Any]:
    height, width = painted.shape
    value = {"format": "rle", "rle": brush_rle(painted, **kwargs), "brushlabels": [label]}
    return shape_result("brushlabels", value, (width, height))


def shape_result(kind: str, value: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": "abc", "type": kind, "from_name": "tag", "to_name": "image", "origin": "manual",
        "original_width": size[0], "original_height": size[1], "image_rotation": 0, "value": value,
    }  # fmt: skip


def label_studio_task(identity: int, name: str, results: Sequence[Any]) -> dict[str, Any]:
    return {
        "id": identity,
        "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
        "file_upload": f"0a1b2c3d-{name}",
        "annotations": [{"id": 7, "was_cancelled": False, "result": list(results)}],
        "predictions": [],
    }


def results_of(mask: np.ndarray, **kwargs: Any) -> list[dict[str, Any]]:
    return [
        brush_result(mask == k + 1, label, **kwargs)
        for k, label in enumerate(LABELS)
        if (mask == k + 1).any()
    ]


def brush_pngs(identity: int, mask: np.ndarray) -> dict[str, bytes]:
    return {
        f"task-{identity}-annotation-3-by-me@mars.org-tag-{label}-0.png": png(
            ((mask == k + 1) * 255).astype(np.uint8)
        )
        for k, label in enumerate(LABELS)
    }


# labelme


def labelme_mask(mask: np.ndarray, label: str) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    points = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
    coded = base64.b64encode(png(window.astype(np.uint8))).decode()
    return labelme_shape("mask", points, label) | {"mask": coded}


def labelme_shape(kind: str, points: Any, label: str) -> dict[str, Any]:
    return {
        "label": label, "points": points, "group_id": None, "description": "",
        "shape_type": kind, "flags": {},
    }  # fmt: skip


def labelme_file(image: str, shapes: Sequence[Any], size: tuple[int, int] = (40, 30)) -> bytes:
    content = {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image,
        "imageData": None, "imageHeight": size[1], "imageWidth": size[0],
    }  # fmt: skip
    return json.dumps(content, indent=2).encode()


# COCO


def coco(images: Mapping[str, tuple[tuple[int, int], Sequence[Mapping[str, Any]]]]) -> bytes:
    """Name → size and annotations, which have ``category_id`` and ``segmentation``."""
    content: dict[str, Any] = {
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(LABELS)],
        "images": [],
        "annotations": [],
    }
    for identity, (name, (size, regions)) in enumerate(images.items(), 1):
        content["images"].append(
            {"id": identity, "file_name": name, "width": size[0], "height": size[1]}
        )
        for annotation in regions:
            number = len(content["annotations"]) + 1
            content["annotations"].append({"id": number, "image_id": identity, **annotation})
    return json.dumps(content).encode()


def coco_rle(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed: runs column by column."""
    return {"size": list(mask.shape), "counts": row_runs(mask.T)}


def coco_of(mask: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"category_id": 10 + k, "segmentation": coco_rle(mask == k + 1), "iscrowd": 1}
        for k in range(len(LABELS))
        if (mask == k + 1).any()
    ]
