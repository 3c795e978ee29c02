"""The README's picture: four synthetic scenes, their sparse labels, and what a run predicts.

python benchmarks/overview.py runs/demo/s5mars --out docs/images/overview.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import s5mars
from s5mars.data.synthetic import render_scene

SCENES = ((0, 9), (0, 7), (1, 11), (1, 0))  # (seed, index): tracks, wheel, drill hole, rocks
SIDE, GAP = 300, 6


def main() -> None:
    """Render, predict, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    predictor = s5mars.load(options.run)
    palette = np.array(predictor.taxonomy.palette, np.uint8).reshape(256, 3)
    step = SIDE + GAP
    sheet = Image.new("RGB", (len(SCENES) * step - GAP, 3 * step - GAP), "white")
    for column, (seed, index) in enumerate(SCENES):
        image, label = render_scene(SIDE, seed=seed, index=index)
        rows = (image, palette[label], palette[predictor.predict(image)])
        for row, pixels in enumerate(rows):
            sheet.paste(Image.fromarray(pixels), (column * step, row * step))
    sheet.save(options.out)


if __name__ == "__main__":
    main()
