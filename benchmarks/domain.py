"""Measure the share of images that a model marks as out of domain, for several sets of images.

    python benchmarks/domain.py MODEL test=DATA/test-images mastcam=OTHER/images --out domain.json

Each NAME=FOLDER is a folder of images, or a list file of image paths. The photographs in the
package of scikit-image are always measured: in colour, and in grey to exclude the effect of colour.
Folders with colour images are measured in the same two ways.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

import s5mars
from s5mars.models.domain import is_colour
from s5mars.predict.predictor import Predictor
from s5mars.products import PRODUCT_ENDINGS, open_product, product_files
from s5mars.products.files import files_below

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png",
    "coins.png", "color.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg",
    "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg",
    "text.png",
)  # fmt: skip
"""Images in the package of scikit-image; the moon is the most similar to Mars."""


def photographs() -> list[Path]:
    """Paths of the photographs that this version of scikit-image ships."""
    folder = Path(skimage.__file__).parent / "data"
    return [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]


def listed(place: Path, *, most: int) -> list[Path]:
    """At most ``most`` images of a folder or a list file, at regular intervals."""
    if place.is_dir():
        paths = product_files(files_below(place, PRODUCT_ENDINGS, without=place / "none"))
    else:
        paths = [Path(line) for line in place.read_text().splitlines() if line]
    at = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
    return [paths[i] for i in at]


def shares(
    predictor: Predictor, sets: Iterable[tuple[str, Sequence[Path]]]
) -> list[dict[str, Any]]:
    """One row per set: number of images, number out of domain with reasons, distance of features.

    A set with colour images gets a second row in which they are grey and have no camera, so that
    only features and shape decide.
    """
    if predictor.domain is None:
        raise SystemExit("the model has no record of its training images")
    rows = []
    for name, paths in sets:
        as_they_are, grey = [], []
        for path in tqdm(paths, desc=name, leave=False, disable=None):
            product = open_product(path)
            verdict = predictor.segment(product.image).verdict
            as_they_are.append(predictor.domain.with_camera(verdict, product.info))
            if is_colour(product.image):
                grey.append(predictor.segment(_grey(product.image)).verdict)
        rows.append(_row(name, as_they_are))
        if grey:
            rows.append(_row(f"{name}, in grey", grey))
    return rows


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| images | number | out of domain | by unusual features | distance (5 %, median, 95 %) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        low, middle, high = row["distance"]
        lines.append(
            f"| {row['name']} | {row['images']} | {100 * row['outside'] / row['images']:.0f} % | "
            f"{100 * row['by_features'] / row['images']:.0f} % | "
            f"{low:.2f}, {middle:.2f}, {high:.2f} |"
        )
    return "\n".join(lines)


def _row(name: str, verdicts: Sequence[Any]) -> dict[str, Any]:
    distances = [v.distance for v in verdicts if v.distance is not None] or [float("nan")]
    return {
        "name": name,
        "images": len(verdicts),
        "outside": sum(v.outside for v in verdicts),
        "by_features": sum("unusual features" in v.reasons for v in verdicts),
        "distance": [float(q) for q in np.quantile(distances, (0.05, 0.5, 0.95))],
    }


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[:, :, None], 3, axis=2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("sets", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument(
        "--most", type=int, default=200, help="Number of images per set (default: 200)"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    sets = []
    for given in options.sets:
        name, _, place = given.partition("=")
        sets.append((name, listed(Path(place), most=options.most)))
    sets.append(("photographs of scikit-image", photographs()))
    rows = shares(s5mars.load(options.model), sets)
    print(table(rows))
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
