"""What a run takes from its labels before it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s5mars.classes import IGNORE
from s5mars.data.layouts import open_dataset
from s5mars.methods import METHODS
from s5mars.settings.config import TrainConfig
from s5mars.training.streams import choose_streams, recorded_streams, with_usable_alignment

YAML = "classes: [{name: soil}, {name: rock}]\nignore: [255]\n"


def config_of(data: Path, **changes: object) -> TrainConfig:
    settings = {"alignment": 0.98, "alignment_coverage": 0.9, "crop": 32, "keep": "last"}
    return TrainConfig(data=data, out=data / "run", steps=4, **(settings | changes))  # type: ignore[arg-type]


def folder(root: Path, *, unlabelled_rows: int) -> Path:
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "dataset.yaml").write_text(YAML)
    for i in range(4):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, 32:] = 1
        mask[:unlabelled_rows] = IGNORE
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(root / f"images/{i}.png")
        Image.fromarray(mask).save(root / f"masks/{i}.png")
    return root


@pytest.mark.parametrize(("rows", "aligned"), [(0, True), (32, False)])
def test_alignment_needs_labels_that_cover_the_crops(
    tmp_path: Path, rows: int, aligned: bool
) -> None:
    data = folder(tmp_path / "data", unlabelled_rows=rows)
    config, method = config_of(data), METHODS["s5mars"]()
    dataset = open_dataset(data)
    streams = choose_streams(dataset, config, method)
    # By symmetry half of the area of plain crops lies in the upper half of the images.
    assert streams.coverage == pytest.approx(1 - rows / 64)
    assert with_usable_alignment(config, streams).alignment == (0.98 if aligned else 0)
    # A resumed run decides in the same way.
    streams.write(config.out / "splits")
    again = recorded_streams(dataset, config.out, config, method)
    assert again.coverage == streams.coverage
    # Without the setting alignment is as it was asked for.
    assert with_usable_alignment(config_of(data, alignment_coverage=0.0), streams).alignment == 0.98
