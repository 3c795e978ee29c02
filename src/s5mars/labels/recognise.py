"""Which tool an export comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5mars.errors import MissingFileError, UserError
from s5mars.files.reading import read_json
from s5mars.labels import coco, cvat_masks, cvat_xml, label_studio, labelme, mask_files
from s5mars.labels.regions import MAX_JSON, WAY_OUT, Export, Note
from s5mars.products.files import IMAGE_ENDINGS, files_below

ENDINGS = IMAGE_ENDINGS | {".json", ".xml", ".txt", ".yaml"}
"""Endings of the files that exports consist of, in lower case."""

FORMATS = ("cvat", "labelstudio", "labelme", "coco", "masks")

_JSON_ALONE = ("labelme", "labelstudio", "coco")


@dataclass(frozen=True)
class _Found:
    """The content of an export."""

    export: Path
    json: list[Path]
    xml: list[Path]
    pngs: list[Path]  # of Label Studio's brush

    @property
    def root(self) -> Path:
        """The folder; of a single file the folder of that."""
        return self.export if self.export.is_dir() else self.export.parent


def recognise(export: Path, *, images: Path, form: str | None = None) -> Export:
    """Open an export.

    Args:
        export: a folder, or a JSON or XML file.
        images: folder of the images.
        form: one of ``FORMATS``, or None to recognise it: the most peculiar first.

    Raises:
        MissingFileError: if there is nothing of this name.
        UserError: if it is no export of that format, or of none.
    """
    if not export.exists():
        raise MissingFileError(f"{export}: no such file or folder")
    found = _found(export)
    readers: dict[Callable[[_Found, str | None, Path], Export | None], tuple[str, ...]] = {
        _cvat: ("cvat",),
        _brush_pngs: ("labelstudio",),
        _json: ("cvat", *_JSON_ALONE),
        _masks: ("masks",),
    }
    for read, forms in readers.items():
        if form is None or form in forms:
            opened = read(found, form, images)
            if opened is not None:
                return opened
    if found.json and form != "masks":
        _content(found.json[0])  # if it is damaged, that is the reason
    listing = ""
    if export.is_dir():
        names = sorted(path.name for path in export.iterdir())
        listing = f" (found {', '.join(names[:8]) or 'nothing'})"
    raise UserError(
        f"{export}: not an export of {form or 'a known format'}{listing}; choose --from among "
        f"{', '.join(FORMATS)}, or give the export's folder, zip archive, JSON or XML file"
    )


def _found(export: Path) -> _Found:
    files = files_below(export, {".json", ".xml", ".png"}) if export.is_dir() else [export]
    return _Found(
        export,
        [path for path in files if path.suffix.lower() == ".json"],
        [path for path in files if path.suffix.lower() == ".xml" and cvat_xml.is_cvat_xml(path)],
        [path for path in files if label_studio.is_brush_png(path)],
    )


def _cvat(found: _Found, form: str | None, images: Path) -> Export | None:
    if found.xml:
        return cvat_xml.read(found.xml)
    folder = cvat_masks.find(found.export) if found.export.is_dir() else None
    return None if folder is None else cvat_masks.read(folder)


def _brush_pngs(found: _Found, form: str | None, images: Path) -> Export | None:
    if not found.pngs:
        return None
    contents, problems = _parsed(found.json, label_studio.is_label_studio)
    return label_studio.read(contents, problems, pngs=found.pngs)


def _json(found: _Found, form: str | None, images: Path) -> Export | None:
    """By the first file that is of a known format."""
    for path in found.json:
        try:
            content = _content(path)
        except UserError:
            continue
        if labelme.is_labelme(content) and form in (None, "labelme"):
            return labelme.read(found.root, found.json)
        if label_studio.is_label_studio(content) and form in (None, "labelstudio"):
            return label_studio.read(*_parsed(found.json, label_studio.is_label_studio))
        if coco.is_coco(content) and form in (None, "coco", "cvat"):
            return coco.read(*_parsed(found.json, coco.is_coco))
    return None


def _masks(found: _Found, form: str | None, images: Path) -> Export | None:
    if not found.export.is_dir():
        return None
    if form is None and found.json and mask_files.description_of(found.export) is None:
        return None  # what is wrong with the JSON is the better message
    return mask_files.read(found.export, images)


def _content(path: Path) -> Any:
    return read_json(path, way_out=WAY_OUT, limit=MAX_JSON)


def _parsed(
    files: list[Path], fits: Callable[[object], bool]
) -> tuple[dict[Path, Any], list[Note]]:
    """The files of a format, and notes on the others."""
    contents, problems = {}, []
    for path in files:
        try:
            content = _content(path)
        except UserError as error:
            problems.append(Note(str(error)))
            continue
        if fits(content):
            contents[path] = content
        else:
            problems.append(Note(f"{path}: of another format, and not read"))
    return contents, problems
