"""The demo: maps of an installed model, two methods on the same few labels, and one page."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s5mars.data.layouts import open_dataset
from s5mars.data.partition import as_fraction
from s5mars.data.synthetic import write_synthetic
from s5mars.demo import demo_data
from s5mars.errors import UserError, require_limit
from s5mars.evaluation.command import evaluate
from s5mars.methods import method_title
from s5mars.predict.archive import predict_images
from s5mars.predict.predictor import load
from s5mars.report.comparison import write_comparison
from s5mars.settings.keywords import as_arguments
from s5mars.text.numbers import plural
from s5mars.training.command import train

METHODS = {"supervised": (), "s5mars": ("--warm-up=0.5", "--unsupervised=0.25")}
"""Methods and their options. In a run of a few hundred steps, the pool must be used late and with
little weight, because the teacher does not recognise the classes before (docs/experiments.md)."""

EXAMPLES = 8
INSTALLED = "navcam"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings that take less than ten minutes on two cores."""

    labelled: float = 1.0  # share of the train labels to use
    steps: int = 300  # of each run
    batch: int = 12  # images of each stream in a step
    resolution: str = "1/2"  # to which images are resized first
    crop: int = 96  # after resizing
    model: str = "tf_efficientnet_lite0"  # timm name of the encoder
    seeds: tuple[int, ...] = (0, 1)  # the page shows the first, the summary the mean
    images: int = 72  # synthetic scenes
    size: int = 320  # of a synthetic scene, in pixels a side


def demo(
    out: Path,
    *,
    data: Path | None = None,
    synthetic: bool = False,
    settings: DemoSettings | None = None,
) -> Path:
    """Map images with the installed model, train *Supervised* and *S5Mars*; return the page.

    Args:
        out: folder of the demo; an earlier demo in it is replaced.
        data: folder of a data set; None uses the images of the package.

    Raises:
        UserError: if ``out`` contains ``data`` or files that are not a demo, both ``data`` and
            ``synthetic`` are given, ``data`` is no data set with a test split, or a setting is out
            of range. An earlier demo stays then.
    """
    if data is not None and synthetic:
        raise UserError("--data and --synthetic exclude each other; give one of them")
    settings = settings or DemoSettings()
    require_limit("at least 1", **{"--steps": settings.steps})
    as_fraction(settings.labelled)
    if data is not None and data.resolve().is_relative_to(out.resolve()):
        raise UserError(
            f"--data {data} is inside --out {out}, where an earlier demo is removed; choose "
            "another --out"
        )
    # Wrong data are an error before an earlier demo is removed.
    given = None if data is None else open_dataset(data).split("test")
    _remove_earlier_demo(out)
    images = data or _images(out, synthetic=synthetic, settings=settings)
    tested = given or open_dataset(images).split("test")
    examples = [sample.image for sample in tested[:EXAMPLES]]
    if not synthetic:
        print(f"\n[1 of 3] maps of the installed model {INSTALLED}, which needs no training")
        predict_images(load(INSTALLED), examples, out=out / f"maps-{INSTALLED}")
        print(f"maps: {out / f'maps-{INSTALLED}'}")
    scores: dict[str, list[float]] = {}
    for number, method in enumerate(METHODS, 2):
        scores[method] = [
            _train(method, seed, images, out, settings=settings, title=f"[{number} of 3] training")
            for seed in settings.seeds
        ]
        predict_images(
            load(out / f"{method}-{settings.seeds[0]}"), examples, out=out / f"maps-{method}"
        )
    means = {
        method: f"{statistics.mean(found):.1f} % ({', '.join(f'{s:.1f}' for s in found)})"
        for method, found in scores.items()
    }
    too_few = (
        f"{settings.steps} steps and {len(tested)} test images are too few to rank the methods"
    )
    if synthetic:
        verdict = "The scenes are synthetic; these scores are not evidence about images of Mars."
    elif data is None:
        verdict = f"{too_few}; docs/results.md\n  compares them after longer runs, on more images"
    else:
        verdict = ""
    page = _page(out, means, settings.seeds, note="" if data or synthetic else f" {too_few}.")
    print(f"\nmIoU on the test split of {images}, mean of {len(settings.seeds)} seeds")
    for method, mean in means.items():
        print(f"  {method:<11}{mean}")
    if verdict:
        print(f"  {verdict}")
    print(f"report:  {page}\nmaps:    {out / 'maps-s5mars'}")
    if data is None:
        print(
            "next, with a folder of your own images and masks (see README, Supported data):\n"
            "  s5mars predict YOUR_IMAGES --out maps\n"
            "  s5mars train YOUR_FOLDER"
        )
    return page


def _images(out: Path, *, synthetic: bool, settings: DemoSettings) -> Path:
    """Render scenes, or copy the images of the package; return their folder."""
    if synthetic:
        scenes = out / "scenes"
        print(f"rendering {settings.images} synthetic scenes into {scenes}")
        return write_synthetic(scenes, images=settings.images, size=settings.size, seed=0)
    data = demo_data(out / "data")
    print(f"60 Curiosity Navcam images (NASA/JPL-Caltech, labels of AI4Mars): {data}")
    return data


def _train(
    method: str, seed: int, data: Path, out: Path, *, settings: DemoSettings, title: str
) -> float:
    """Train one run, and return its mIoU on the test split in percent."""
    options = METHODS[method]
    how = ", ".join([f"{settings.steps} steps", f"seed {seed}", *options])
    print(f"\n{title} {method}, {how}")
    run = out / f"{method}-{seed}"
    arguments = as_arguments(
        {
            "data": data,
            "out": run,
            "method": method,
            "labelled": settings.labelled,
            "steps": settings.steps,
            "batch": settings.batch,
            "resolution": settings.resolution,
            "crop": settings.crop,
            "model": settings.model,
            "seed": seed,
            "keep": "last",
            "validate_every": max(1, settings.steps // 2),
        }
    )
    if train([*arguments, *options]).signal:  # it has caught the Ctrl-C that is for the demo
        raise KeyboardInterrupt("the same command begins the demo again")
    return float(evaluate(run, data=data, split="test")["mIoU"])


def _page(out: Path, means: Mapping[str, str], seeds: Sequence[int], *, note: str) -> Path:
    about = f"This page shows seed {seeds[0]}. "
    about += f"Mean mIoU of {plural(len(seeds), 'seed')} on the test split: "
    about += ", ".join(f"{method_title(name)} {mean}" for name, mean in means.items())
    return write_comparison(
        [out / f"{method}-{seeds[0]}" for method in METHODS],
        out=out / "report.html",
        title="Supervised and S5Mars on the same few labels",
        notes=[f"{about}.{note}"],
    )


def _remove_earlier_demo(out: Path) -> None:
    """Remove an earlier demo; raise if the folder contains anything else."""
    mark = out / ".demo"
    if out.exists() and any(out.iterdir()):
        if not mark.is_file():
            raise UserError(f"{out} contains files that are not a demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()
