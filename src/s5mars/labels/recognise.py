"""Which tool an export comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from s5mars.errors import MissingFileError, UserError, listed
from s5mars.files.reading import read_json
from s5mars.labels import coco, cvat_masks, cvat_xml, label_studio, labelme, mask_files
from s5mars.labels.regions import MAX_JSON, REMEDY, Export, Note
from s5mars.products.files import IMAGE_ENDINGS, files_below

ENDINGS = IMAGE_ENDINGS | {".json", ".xml", ".txt", ".yaml"}
"""Endings of the files that exports consist of, in lower case."""

FORMATS = ("cvat", "labelstudio", "labelme", "coco", "masks")


def recognise(export: Path, *, images: Path, form: str | None = None) -> Export:
    """Open an export.

    Args:
        form: one of ``FORMATS``, or None to recognise it: the most peculiar first.

    Raises:
        MissingFileError: if there is nothing of this name.
        UserError: if it is no export of that format, or of none.
    """
    if not export.exists():
        raise MissingFileError(f"{export}: no such file or folder")
    is_folder = export.is_dir()
    files = files_below(export, {".json", ".xml", ".png"}) if is_folder else [export]
    jsons = [path for path in files if path.suffix.lower() == ".json"]
    xmls = [p for p in files if p.suffix.lower() == ".xml" and cvat_xml.is_cvat_xml(p)]
    if form in (None, "cvat"):
        if xmls:
            return cvat_xml.read(xmls)
        if is_folder and (folder := cvat_masks.find(export)) is not None:
            return cvat_masks.read(folder)
    pngs = [path for path in files if label_studio.is_brush_png(path)]
    if pngs and form in (None, "labelstudio"):
        return label_studio.read(*_parsed(jsons, label_studio.is_label_studio), pngs=pngs)
    if form != "masks":
        found = _by_json(export if is_folder else export.parent, jsons, form)
        if found is not None:
            return found
    # What is wrong with a JSON file is a better message than that there are no masks.
    plausible = not jsons or mask_files.description_of(export) is not None
    if is_folder and (form == "masks" or (form is None and plausible)):
        return mask_files.read(export, images)
    if jsons and form != "masks":
        _content(jsons[0])  # if it is damaged, that is the reason
    listing = ""
    if is_folder:
        names = sorted(path.name for path in export.iterdir())
        listing = f" (found {listed(names) or 'nothing'})"
    raise UserError(
        f"{export}: not an export of {form or 'a known format'}{listing}; choose --from among "
        f"{', '.join(FORMATS)}, or give the export's folder, zip archive, JSON or XML file"
    )


def _by_json(root: Path, files: list[Path], form: str | None) -> Export | None:
    """By the first file that is of a known format."""
    for path in files:
        try:
            content = _content(path)
        except UserError:
            continue
        if labelme.is_labelme(content) and form in (None, "labelme"):
            return labelme.read(root, files)
        if label_studio.is_label_studio(content) and form in (None, "labelstudio"):
            return label_studio.read(*_parsed(files, label_studio.is_label_studio))
        if coco.is_coco(content) and form in (None, "coco", "cvat"):
            return coco.read(*_parsed(files, coco.is_coco))
    return None


def _content(path: Path) -> Any:
    return read_json(path, remedy=REMEDY, limit=MAX_JSON)


def _parsed(
    files: list[Path], fits: Callable[[object], bool]
) -> tuple[dict[Path, Any], list[Note]]:
    """The files of a format, and notes on the others."""
    contents, problems = {}, []
    for path in files:
        try:
            content = _content(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if fits(content):
            contents[path] = content
        else:
            problems.append(f"{path}: of another format, and not read")
    return contents, problems
