"""Draw the README's figure: five test images of the demo, their labels, and maps of ``navcam``.

python benchmarks/overview.py --out docs/images/navcam.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import s5mars
from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_image, read_label
from s5mars.demo import DATA

SHOWN = (1, 2, 7, 4, 12)
"""Indices in the test list; the images show each class, the rover, and errors."""

SIDE, GAP, LEGEND = 205, 5, 26
BRIGHTER = 1.7
OPACITY = 0.55


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    predictor = s5mars.load("navcam")
    dataset = open_dataset(DATA)
    classes = dataset.taxonomy.classes
    colours = np.array([each.colour for each in classes], np.uint8)
    step = SIDE + GAP
    sheet = Image.new("RGB", (len(SHOWN) * step - GAP, 3 * step + LEGEND), "white")
    for column, place in enumerate(SHOWN):
        sample = dataset.split("test")[place]
        image = read_image(sample.image)
        rows = (None, read_label(sample, dataset.coding), predictor.predict(image))
        for row, labels in enumerate(rows):
            tile = Image.fromarray(painted(image, labels, colours)).resize((SIDE, SIDE))
            sheet.paste(tile, (column * step, row * step))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for place, each in enumerate(classes):
        left, top = 140 * place, 3 * step + 4
        draw.rectangle((left, top, left + 16, top + 16), fill=each.colour)
        draw.text((left + 22, top - 2), each.name.replace("_", " "), fill="black", font=font)
    sheet.save(options.out, quality=80)


def painted(
    image: NDArray[np.uint8], labels: NDArray[np.uint8] | None, colours: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The brightened image, overlaid with the colours of the classes."""
    bright = np.clip(image * BRIGHTER, 0, 255)
    if labels is not None:
        known = labels < len(colours)
        bright[known] = (1 - OPACITY) * bright[known] + OPACITY * colours[labels[known]]
    return bright.astype(np.uint8)


if __name__ == "__main__":
    main()
