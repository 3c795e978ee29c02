"""From the export of a label tool to a plain folder that every command reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from s5mars.classes import IGNORE, MaskCoding, Taxonomy
from s5mars.data.layouts.plain import DESCRIPTION, write_description
from s5mars.errors import MissingFileError, UserError, require_choice, warn_of_all
from s5mars.files import below, encoded_picture, printable, put_folder, write_bytes, write_text
from s5mars.labels.images import Images, place
from s5mars.labels.naming import Classes
from s5mars.labels.page import Made, class_rows, pictures, write_import_page
from s5mars.labels.paint import Painted, over, paint
from s5mars.labels.recognise import ENDINGS, FORMATS, recognise
from s5mars.labels.regions import Entry, Export
from s5mars.labels.unpack import unpack
from s5mars.predict.overlay import indexed_png
from s5mars.products.decode import decode_mask
from s5mars.text.numbers import count, plural, share

PAGE = "import.html"
WARNINGS = "warnings.txt"


@dataclass(frozen=True)
class Imported:
    """What an import has made."""

    out: Path
    title: str  # of the format
    masks: int  # images with labels
    pool: int  # images without
    placed: str  # how the images were put there
    classes: tuple[tuple[str, str], ...]  # names with their shares of the painted pixels
    unpainted: str  # share of the pixels of images with labels
    overlap: str
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """Lines for the user."""
        shares = ", ".join(f"{name} {part}" for name, part in self.classes)
        warned = f"{plural(len(self.warnings), 'warning')}: see {self.out / WARNINGS}"
        lines = [
            f"{self.out}: {self.title}; {plural(self.masks, 'image')} with labels, "
            f"{count(self.pool)} without (pool); {self.placed}",
            f"classes (share of the painted pixels): {shares}",
            f"unpainted (ignored, never background): {self.unpainted} of the pixels of images with "
            "labels",
            f"overlaps: {self.overlap}",
            warned if self.warnings else "no warnings",
            f"check the overlays in {self.out / PAGE}",
        ]
        return "\n".join(lines)


def import_labels(
    export: Path | str,
    *,
    images: Path | str,
    out: Path | str,
    form: str | None = None,
    classes: Sequence[str] = (),
) -> Imported:
    """Write a plain folder (see ``data.layouts.plain``) from the export of a label tool.

    The folder has ``images/`` (all images: hard links, or copies where those are impossible),
    ``masks/`` (indexed colours; images without a painted pixel have none and join the pool),
    ``dataset.yaml`` with colours, ``import.html`` with overlays to check, and ``warnings.txt`` if
    there are warnings. It appears, or an empty folder is filled, when all is complete.

    Args:
        images: folder of the images that were labelled, and of others.
        form: one of ``recognise.FORMATS``; None recognises it.
        classes: entries ``"class=label,label"`` that merge and rename labels, see ``Classes``.

    Raises:
        MissingFileError: if the export or the images are missing.
        UserError: if ``out`` contains files, the format is unknown, or no label could be imported.
        OSError: if writing fails.
    """
    export, images, out = Path(export), Path(images), Path(out)
    if form is not None:
        require_choice(form, FORMATS, name="--from")
    if not export.exists():
        raise MissingFileError(f"{export}: no such file or folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} contains files; choose a new folder")
    real = out.resolve()  # "." has no name, and a link is no folder to replace
    real.parent.mkdir(parents=True, exist_ok=True)
    beside = TemporaryDirectory(  # on the same disk
        prefix=f".{real.name}.", dir=real.parent, ignore_cleanup_errors=True
    )
    with beside as scratch, _said_of(export, Path(scratch) / "export"):
        work, opened = Path(scratch), export
        if export.is_file() and export.suffix.lower() == ".zip":
            opened = unpack(export, work / "export", endings=ENDINGS)
        found = recognise(opened, images=images, form=form)
        new = work / "folder"
        run = _Import(
            found,
            Images(images, without=_no_images(export, found, images, out)),
            Classes(found.labels, classes),
            new=new,
            out=out,
            shown_as=(str(work / "export"), str(export)),
        )
        summary = run()
        put_folder(new, real, last=DESCRIPTION)
    return summary


@dataclass
class _Import:
    """One import; ``new`` is the folder while it is being made."""

    export: Export
    images: Images
    classes: Classes
    new: Path
    out: Path
    shown_as: tuple[str, str]  # in warnings: a folder for unpacking, and the export
    made: dict[str, Made] = field(default_factory=dict)  # by file of the image
    warnings: list[str] = field(default_factory=list)
    drawn_as: dict[str, Taxonomy] = field(default_factory=dict)  # by the same: colours of its mask
    overlaps: dict[str, int] = field(default_factory=dict)
    empty: int = 0

    def __post_init__(self) -> None:
        self.kept = self._one_of_a_name()
        self.clashes = len(self.warnings)  # about names of images

    def __call__(self) -> Imported:
        for item in tqdm(self.export.entries(), unit="image", desc="import", disable=None):
            if isinstance(item, Entry):
                self._take(item)
            else:
                self._warn(item)
        for label, clean in self.classes.replaced.items():
            self._warn(f"the label {label!r} has control characters; its class is {clean!r}")
        for label in self.classes.not_found:
            hint = self.classes.hint(label)
            self._warn(f"--classes names the label {label!r}, which the export does not have{hint}")
        if not self.made:
            warn_of_all(self.warnings)  # no folder is made, and so no file with them
            # A clash of names may have nothing to do with it.
            first = [*self.warnings[self.clashes :], *self.warnings][:1]
            raise UserError(
                f"{self.shown_as[1]}: no label could be imported from this export "
                f"({self.export.title}; {plural(len(self.warnings), 'warning')})"
                + "".join(f"; first warning about a label: {line}" for line in first)
            )
        return self._finish()

    def _one_of_a_name(self) -> dict[str, Path]:
        """The images, of which a plain folder has one of a name; the first one is taken."""
        kept: dict[str, str] = {}
        for name in self.images.files:
            first = kept.setdefault(Path(name).with_suffix("").as_posix(), name)
            if first != name:
                self._warn(f"{name}: has the same name as {first}, and is left out")
        for path in self.images.broken:
            self._warn(f"{path}: a broken link, which is left out")
        return {name: self.images.files[name] for name in kept.values()}

    def _take(self, entry: Entry) -> None:
        try:
            name = self.images.find(entry.names, stems=entry.stems, agreeing=entry.agreeing)
        except UserError as error:
            self._warn(f"{entry.source}: {error} in {self.images.folder}; its labels are left out")
            return
        if name not in self.kept:
            return  # already reported as left out
        try:
            painted = paint(entry, self.kept[name], self.classes)
        except UserError as error:
            self._warn(f"{name}: {error}" if name not in str(error) else str(error))
            return
        path = below(self.new / "masks", Path(name).with_suffix(".png").as_posix(), source=name)
        if name in self.made:
            painted = over(decode_mask(path).ids, painted)
        for note in painted.notes:
            self._warn(f"{name}: {note}")
        if painted.overlap:
            self.overlaps[name] = self.overlaps.get(name, 0) + painted.overlap
        if (painted.labels != IGNORE).any():
            self._write(name, path, painted)
        else:
            self.empty += 1

    def _write(self, name: str, path: Path, painted: Painted) -> None:
        self.drawn_as[name] = self._taxonomy
        picture = indexed_png(painted.labels, self.drawn_as[name])
        write_bytes(path, encoded_picture(picture, ".png"))
        counts = np.bincount(painted.labels.ravel(), minlength=IGNORE + 1)
        before = self.made[name].notes if name in self.made else ()
        self.made[name] = Made(
            name=printable(Path(name).with_suffix("").as_posix()),
            image=self.kept[name],
            mask=path,
            pixels=counts,
            size=painted.labels.size,
            notes=(*before, *painted.notes),
        )

    @property
    def _taxonomy(self) -> Taxonomy:
        return self.classes.taxonomy(printable(self.out.resolve().name))

    def _finish(self) -> Imported:
        linked = sum(
            place(path, below(self.new / "images", name, source=path))
            for name, path in self.kept.items()
        )
        taxonomy = self._taxonomy
        self._recolour(taxonomy)
        made = [
            replace(each, pixels=each.pixels[: len(taxonomy)])
            for _, each in sorted(self.made.items())
        ]
        rows = class_rows(made, taxonomy)
        size = sum(each.size for each in made)
        for row in rows:
            if row["absent"]:
                self._warn(f"no pixel has the class {row['name']!r}")
        shown, unreadable = pictures(made, taxonomy)
        for note in unreadable:
            self._warn(note)
        write_description(self.new / DESCRIPTION, taxonomy, MaskCoding.identity(len(taxonomy)))
        if self.warnings:
            write_text(self.new / WARNINGS, "".join(f"{line}\n" for line in self.warnings))
        summary = Imported(
            out=self.out,
            title=self.export.title,
            masks=len(made),
            pool=len(self.kept) - len(made),
            placed=_placed(linked, len(self.kept) - linked),
            classes=tuple((str(row["name"]), str(row["share"])) for row in rows),
            unpainted=share(size - sum(int(each.pixels.sum()) for each in made), size),
            overlap=self._overlap(),
            warnings=tuple(self.warnings),
        )
        write_import_page(
            self.new / PAGE,
            made,
            shown,
            taxonomy,
            title=f"Labels of {taxonomy.name}",
            lead=f"{plural(len(made), 'image')} with labels, from {self.export.title}.",
            facts=_facts(summary, self.empty),
            warnings=self.warnings,
            written_to=self.out / PAGE,
        )
        return summary

    def _recolour(self, taxonomy: Taxonomy) -> None:
        """Give masks the final colours: those of classes change with labels that appear later."""
        for name, drawn in self.drawn_as.items():
            if drawn.classes != taxonomy.classes[: len(drawn)]:
                path = self.made[name].mask
                picture = indexed_png(decode_mask(path).ids, taxonomy)
                write_bytes(path, encoded_picture(picture, ".png"))

    def _overlap(self) -> str:
        if not self.overlaps:
            return "none"
        total = sum(self.overlaps.values())
        return (
            f"{count(total)} pixels in {plural(len(self.overlaps), 'image')}; the later label wins"
        )

    def _warn(self, text: str) -> None:
        text = _renamed(text, *self.shown_as)
        self.warnings.append(printable(" ".join(text.split())))


def _facts(summary: Imported, empty: int) -> list[tuple[str, str]]:
    return [
        ("Format", summary.title),
        ("Images with labels", count(summary.masks)),
        ("Images without (pool)", count(summary.pool)),
        ("Listed without a painted pixel", count(empty)),
        ("Unpainted, ignored", f"{summary.unpainted} of the pixels of images with labels"),
        ("Overlaps", summary.overlap),
        ("Image files", summary.placed),
        ("Warnings", count(len(summary.warnings))),
    ]


def _placed(linked: int, copied: int) -> str:
    if not copied:
        return "hard links to the images (a program that edits one in place edits both)"
    return f"{plural(copied, 'image')} copied" + (f", {count(linked)} hard-linked" * bool(linked))


def _no_images(export: Path, found: Export, images: Path, out: Path) -> list[Path]:
    """What may lie below the images' folder and is no image to label."""
    inside = export.is_dir() and images.resolve() in export.resolve().parents
    return [*found.files, out, *([export] if inside else [])]


@contextmanager
def _said_of(export: Path, unpacked: Path) -> Iterator[None]:
    """Errors name the archive, not the place where it was unpacked."""
    try:
        yield
    except UserError as error:
        raise type(error)(_renamed(str(error), str(unpacked), str(export))) from None


def _renamed(text: str, unpacked: str, archive: str) -> str:
    return text.replace(f"{unpacked}/", f"{archive}:").replace(unpacked, archive)
