"""Images in, maps out: class map, confidence, overlay for each, and one table for all."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from s5mars.classes import IGNORE, Taxonomy
from s5mars.data.read import IMAGE_ENDINGS, no_data, read_image
from s5mars.files import write_text
from s5mars.predict.ahead import ahead
from s5mars.predict.overlay import indexed_png, overlay
from s5mars.predict.predictor import Predictor, Segmentation
from s5mars.predict.writing import write_picture

TABLE = "summary.csv"
WRITERS = 2
"""Threads that encode and write; as many finished images wait at most."""


@dataclass(frozen=True)
class Source:
    """An image to predict and what its maps are called."""

    path: Path
    name: str  # path below the output folder, with forward slashes, without an ending

    def outputs(self, out: Path, *, overlays: bool, confidence: bool) -> dict[str, Path]:
        """The files that will be written: ``labels``, ``confidence``, ``overlay``."""
        wanted = {"labels": f"{self.name}.png"}
        if confidence:
            wanted["confidence"] = f"{self.name}_confidence.png"
        if overlays:
            wanted["overlay"] = f"{self.name}_overlay.jpg"
        return {what: out / name for what, name in wanted.items()}


@dataclass(frozen=True)
class Summary:
    """What ``predict_images`` did."""

    images: int
    skipped: tuple[str, ...]  # one line for each file that could not be read
    table: Path
    doubt: str = ""  # see ``Predictor.doubt``

    def __str__(self) -> str:
        """What the user is told."""
        left_out = f"; skipped {len(self.skipped)}: {self.skipped[0]}" if self.skipped else ""
        doubt = f"; {self.doubt}" if self.doubt else ""
        return f"{self.table}: {self.images} image(s){doubt}{left_out}"


@dataclass(frozen=True)
class _Read:
    source: Source
    image: NDArray[np.uint8]  # (H, W, 3)
    empty: NDArray[np.bool_]  # (H, W), no data


def predict_images(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    skip_bad: bool = False,
    overlays: bool = True,
    confidence: bool = True,
    opacity: float = 0.5,
) -> Summary:
    """Predict images and write their maps, every file by rename.

    For each image ``NAME.png`` (indexed colours, class indices, 255 = no data, at full size),
    ``NAME_confidence.png`` (grey, largest class probability, 0..255 for 0..1) and
    ``NAME_overlay.jpg``; then ``summary.csv``: image, width, height, mean confidence in 0..1, share
    of the image without data, and for each class its share of the pixels with data. Images of a
    folder keep their sub-folders. Black borders (``s5mars.data.read.no_data``) become 255.

    Images are read ahead and maps are written behind, in threads, so the network does not wait.

    Args:
        predictor: see ``s5mars.load``.
        inputs: image files, or folders that are searched with all their sub-folders.
        out: folder for the maps; made if it is not there.
        skip_bad: leave out files that cannot be read, instead of stopping at the first.
        overlays: write overlays.
        confidence: write confidence maps.
        opacity: of the class colours in overlays, in [0, 1].

    Raises:
        FileNotFoundError: if an input is not there.
        ValueError: if a folder holds no image, two images would be written to one name or an
            image be overwritten, or a file is no image.
        OSError: if writing fails; a full disk is said in words.
    """
    out = Path(out)
    if not 0 <= opacity <= 1:
        raise ValueError(f"an opacity of {opacity}: not in [0, 1]")
    sources = find_sources(inputs, out=out)
    _refuse_collisions(sources, out, overlays=overlays, confidence=confidence)
    rows: list[dict[str, object]] = []
    skipped: list[str] = []
    bar = tqdm(total=len(sources), unit="image", desc="predict", disable=None)
    with bar, ThreadPoolExecutor(WRITERS) as writers:
        waiting: deque[Future[dict[str, object]]] = deque()

        def finish(*, leave: int) -> None:
            while len(waiting) > leave:
                rows.append(waiting.popleft().result())
                bar.update()

        for source, found in zip(sources, ahead(_read, sources), strict=True):
            if isinstance(found, Exception):
                if not skip_bad:
                    raise found
                skipped.append(_named(source, found))
                bar.update()
                continue
            answer = predictor.segment(found.image)
            files = source.outputs(out, overlays=overlays, confidence=confidence)
            finish(leave=WRITERS - 1)
            waiting.append(
                writers.submit(_write, found, answer, predictor.taxonomy, files, opacity)
            )
        finish(leave=0)
    if not rows:
        raise ValueError(f"no image could be read, {len(skipped)} skipped; first: {skipped[0]}")
    _write_table(out / TABLE, rows)
    return Summary(len(rows), tuple(skipped), out / TABLE, predictor.doubt)


def find_sources(inputs: Sequence[str | Path], *, out: Path) -> list[Source]:
    """Image files among the inputs and below input folders, in a fixed order, each once.

    Where ``out`` lies inside an input folder it is left out, so that maps of an earlier run are no
    input of the next.

    Raises:
        FileNotFoundError: if an input is not there.
        ValueError: if there is no input, a folder holds no image, or ``out`` is an input folder.
    """
    if not inputs:
        raise ValueError("nothing to predict: give image files or folders")
    found: dict[Path, Source] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            if given.resolve() == out.resolve():
                raise ValueError(f"{out}: maps would lie among the images: choose another out")
            files = list(_images_below(given, out=out))
            if not files:
                endings = " ".join(sorted(IMAGE_ENDINGS))
                raise ValueError(f"{given}: no image in this folder; looked for {endings}")
            names = [path.relative_to(given).with_suffix("").as_posix() for path in files]
        elif given.exists():
            files, names = [given], [given.stem]
        else:
            raise FileNotFoundError(f"{given}: no such file or folder")
        for path, name in zip(files, names, strict=True):
            found.setdefault(path.resolve(), Source(path, name))
    return list(found.values())


def _images_below(folder: Path, *, out: Path) -> Iterator[Path]:
    inside = folder.resolve() in out.resolve().parents
    for path in sorted(folder.rglob("*")):
        if inside and out.resolve() in path.resolve().parents:
            continue
        is_image = path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")
        if is_image and path.is_file():
            yield path


def _refuse_collisions(
    sources: Sequence[Source], out: Path, *, overlays: bool, confidence: bool
) -> None:
    inputs = {source.path.resolve() for source in sources}
    taken: dict[Path, Source] = {}
    for source in sources:
        for path in source.outputs(out, overlays=overlays, confidence=confidence).values():
            if path.resolve() in inputs:
                raise ValueError(f"{path} is an input and would be overwritten: choose another out")
            other = taken.setdefault(path, source)
            if other is not source:
                raise ValueError(
                    f"{other.path} and {source.path} would both be written to {path}: "
                    "rename one, or predict them in two runs with two output folders"
                )


def _read(source: Source) -> _Read | Exception:
    try:
        image = read_image(source.path)
        return _Read(source, image, no_data(image))
    except (ValueError, OSError) as error:
        return error


def _named(source: Source, error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return text if str(source.path) in text else f"{source.path}: {text}"


def _write(
    read: _Read,
    answer: Segmentation,
    taxonomy: Taxonomy,
    files: dict[str, Path],
    opacity: float,
) -> dict[str, object]:
    labels, confidence = answer.labels, answer.confidence
    labels[read.empty] = IGNORE
    confidence[read.empty] = 0
    if "confidence" in files:
        write_picture(files["confidence"], Image.fromarray(confidence), compress_level=3)
    if "overlay" in files:
        picture = overlay(read.image, labels, taxonomy, opacity=opacity)
        write_picture(files["overlay"], picture, quality=90)
    # Last, so that where there is a class map the image is done.
    write_picture(files["labels"], indexed_png(labels, taxonomy))
    return _row(read, labels, confidence, taxonomy)


def _row(
    read: _Read, labels: NDArray[np.uint8], confidence: NDArray[np.uint8], taxonomy: Taxonomy
) -> dict[str, object]:
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    pixels = labels.size - int(counts[IGNORE])
    # Pixels without data have confidence 0, so the sum is that of the others.
    total = int(confidence.sum(dtype=np.int64))
    row: dict[str, object] = {
        "image": f"{read.source.name}{read.source.path.suffix}",
        "width": labels.shape[1],
        "height": labels.shape[0],
        "mean_confidence": f"{total / 255 / pixels:.4f}" if pixels else "",
        "no_data": f"{1 - pixels / labels.size:.6f}",
    }
    for index, name in enumerate(taxonomy.names):
        share = f"{counts[index] / pixels:.6f}" if pixels else ""
        row[f"class {name}" if name in row else name] = share
    return row


def _write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())
