"""Which files are images, and which file of a product stands for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Endings of what one library decodes without a label, in lower case."""

PDS_ENDINGS = frozenset({".img", ".lbl", ".xml"})
"""Endings of PDS3 and PDS4 products, in lower case."""

LISTED_ENDINGS = IMAGE_ENDINGS | {".img"}
"""Endings of files that are images of a data set, in lower case: their labels stand aside."""

PRODUCT_ENDINGS = IMAGE_ENDINGS | PDS_ENDINGS
"""Endings of all that ``open_product`` reads."""

_LABEL = b"Product_Observational"


def product_files(paths: Iterable[Path]) -> list[Path]:
    """One file a product, in the order given.

    A label stands aside where an ``.IMG`` of its name is there. One without stays: that its data
    are missing must be said. An ``.xml`` without stays only if it is the label of an observation.
    Hidden files and other endings are left out.
    """
    kept: list[Path] = []
    images: set[str] = set()
    for path in paths:
        ending = path.suffix.lower()
        if path.name.startswith(".") or ending not in PRODUCT_ENDINGS:
            continue
        kept.append(path)
        if ending == ".img":
            images.add(_stem(path))
    return [
        path
        for path in kept
        if path.suffix.lower() not in (".lbl", ".xml")
        or (_stem(path) not in images and (path.suffix.lower() == ".lbl" or _observes(path)))
    ]


def _stem(path: Path) -> str:
    return os.path.splitext(path)[0].lower()  # noqa: PTH122


def _observes(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _LABEL in file.read(4096)
    except OSError:
        return True
