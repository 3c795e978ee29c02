"""Small archives and what an output folder holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, *, size: tuple[int, int] = (60, 40), grey: int = 255) -> Path:
    """An image whose left third is ``grey``, the rest 128."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    pixels[:, : size[0] // 3] = grey
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def archive(folder: Path, *, products: int = 6) -> Path:
    """Products in sub-folders that share a file name, and one bad file in the middle."""
    for number in range(products):
        save(folder / f"sol{number}/a.png", size=(40 + number, 36), grey=(7 * number) % 256)
    (folder / "sol2/bad.jpg").write_bytes(b"")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of an output folder; of the manifest what it says, not how it lies there."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: _rows(path) if name == "manifest.sqlite" else path.read_bytes()
        for name, path in sorted(found.items())
    }


def _rows(path: Path) -> bytes:
    with sqlite3.connect(path) as database:
        said = "\n".join(database.iterdump())
    database.close()
    return said.encode()
