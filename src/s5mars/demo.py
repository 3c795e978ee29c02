"""The demo: train two methods on the same few labels, score them, and write maps and a page."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5mars.errors import UserError

METHODS = ("supervised", "s5mars")
EXAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings that take less than ten minutes on two cores."""

    labelled: float = 0.25
    steps: int = 300
    batch: int = 4
    crop: int = 160
    model: str = "tf_efficientnet_lite0"
    images: int = 72  # synthetic scenes
    size: int = 320
    seed: int = 0


def demo(out: Path, *, data: Path | None = None, settings: DemoSettings | None = None) -> Path:
    """Train *Supervised* and *S5Mars* on the same labels, score both, and write one page.

    Args:
        out: folder of the demo; an earlier demo in it is replaced.
        data: folder of a data set; None renders synthetic scenes.
        settings: sizes and budget.

    Returns:
        Path of the page.

    Raises:
        UserError: if ``out`` contains files that are not a demo.
    """
    from s5mars.data.layouts import open_dataset
    from s5mars.data.synthetic import write_synthetic
    from s5mars.evaluation.command import evaluate
    from s5mars.predict.archive import predict_images
    from s5mars.predict.predictor import load
    from s5mars.report.comparison import write_comparison
    from s5mars.settings.parsing import parse_training
    from s5mars.training.run import train

    settings = settings or DemoSettings()
    _make_room(out)
    if data is None:
        data = out / "scenes"
        print(f"rendering {settings.images} synthetic scenes into {data}")
        write_synthetic(data, images=settings.images, size=settings.size, seed=settings.seed)
    dataset = open_dataset(data)
    scores: dict[str, Any] = {}
    for number, method in enumerate(METHODS, 1):
        print(f"\n[{number} of {len(METHODS)}] training {method}, {settings.steps} steps")
        run = out / method
        training = parse_training(
            [
                f"--data={data}",
                f"--out={run}",
                f"--method={method}",
                f"--labelled={settings.labelled}",
                f"--steps={settings.steps}",
                f"--batch={settings.batch}",
                f"--crop={settings.crop}",
                f"--model={settings.model}",
                f"--seed={settings.seed}",
                f"--validate-every={max(1, settings.steps // 6)}",
            ]
        )
        train(training.config, training.method, config_text=training.text)
        scores[method] = evaluate(run, data=data, split="test")
        images = [sample.image for sample in dataset.split("test")[:EXAMPLES]]
        predict_images(load(run), images, out=out / f"maps-{method}")
    page = write_comparison(
        [out / method for method in METHODS],
        out=out / "report.html",
        title="Supervised and S5Mars on the same few labels",
    )
    print()
    for method in METHODS:
        print(f"{method:<11} mIoU {scores[method]['mIoU']:5.2f} %  on {data}, test split")
    if dataset.root == out / "scenes":
        print("(The scenes are synthetic; these scores say nothing about Mars.)")
    print(f"report:     {page}\nmaps:       {out / 'maps-s5mars'}")
    return page


def _make_room(out: Path) -> None:
    """Remove an earlier demo; raise if the folder contains anything else."""
    mark = out / ".demo"
    if out.exists() and any(out.iterdir()):
        if not mark.is_file():
            raise UserError(f"{out} contains files that are not a demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()
