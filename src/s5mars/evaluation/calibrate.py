"""The ``calibrate`` command: fit one temperature on a split, and show what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s5mars.classes import same_classes
from s5mars.data.layouts import open_dataset
from s5mars.errors import UserError
from s5mars.evaluation.reliability import (
    BINS,
    HIGHEST,
    LOWEST,
    PIXELS,
    collect_pixels,
    fit_temperature,
    measure,
)
from s5mars.files import write_json
from s5mars.models.checkpoint import checkpoint_path, load_model, write_calibration
from s5mars.predict.inference import AUTO_DEVICE, Inference
from s5mars.predict.predictor import Predictor

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Of confidence, for which the table says what abstaining below them leaves."""


def calibrate(
    run: str | Path,
    *,
    data: str | Path,
    split: str = "val",
    network: str = "teacher",
    inference: Inference = AUTO_DEVICE,
    pixels: int = PIXELS,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit a temperature, print what it changes, and write it where ``s5mars.load`` finds it.

    ``calibration.json`` (``calibration-student.json``) beside the checkpoint holds the numbers, and
    the checkpoint's own JSON the temperature: it travels with the weights, and better weights,
    written later, are without it again. Training does not calibrate by itself: which split may be
    used for it is the user's to say, and best weights are often replaced by better ones.

    Args:
        run: a run folder, or a checkpoint.
        data: a folder of images and labels with the classes of the checkpoint.
        split: to fit on; not one that was trained on.
        network: ``"teacher"`` or ``"student"``.
        inference: settings of inference.
        pixels: labelled pixels to fit and measure on, drawn evenly where the split has more.
        seed: of that draw.

    Returns:
        What the file holds: ``temperature``, ``before`` and ``after`` (see
        ``calibration.measure``), ``at_limit`` (the fit stopped at the end of the range), and what
        it was fitted on.

    Raises:
        MissingFileError: if the run, the data or one of its files is missing.
        UserError: if the data set has other classes than the checkpoint, there is no such split,
            ``pixels`` is below 1, or a file is damaged.
    """
    run = Path(run)
    if pixels < 1:
        raise UserError(f"{pixels} pixels to calibrate on: the least is 1")
    dataset = open_dataset(data)
    samples = dataset.split(split)
    loaded = load_model(run, network=network)
    same_classes(loaded.taxonomy, dataset.taxonomy, run=run, data=Path(data))
    predictor = Predictor.of(loaded, inference)
    with tqdm(total=len(samples), unit="image", desc=f"calibrate {split}", disable=None) as bar:
        found = collect_pixels(
            predictor, samples, dataset.coding, limit=pixels, seed=seed, progress=bar.update
        )
    temperature = fit_temperature(found)
    fitted_on = {
        "data": str(data),
        "split": split,
        "images": len(samples),
        "pixels": len(found),
        "seed": seed,
        "window": inference.window,
        "overlap": inference.overlap,
        "precision": inference.precision,
    }
    result = {
        "temperature": temperature,
        "at_limit": not 1.01 * LOWEST < temperature < HIGHEST / 1.01,
        "network": loaded.network,
        "bins": BINS,
        "fitted_on": fitted_on,
        "before": measure(found, 1.0),
        "after": measure(found, temperature),
    }
    folder = checkpoint_path(run).parent
    path = folder / calibration_file(network)
    write_json(path, result)
    write_calibration(run, loaded.network, {"temperature": temperature, **fitted_on})
    print(_table(result, path))
    return result


def calibration_file(network: str) -> str:
    """Its name in a run folder, for the network that was asked for."""
    return "calibration-student.json" if network == "student" else "calibration.json"


def at_threshold(measured: Mapping[str, Any], threshold: float) -> tuple[float, float | None]:
    """Coverage and risk where the predictor abstains below a confidence.

    Args:
        measured: what ``calibration.measure`` returned.
        threshold: least confidence of a pixel that keeps its class.

    Returns:
        The share of pixels left, and the share of them that is wrong; to the precision of the
        points that the curve is stored at. (0, None) if none is left.
    """
    curve = measured["risk_coverage"]
    left = [i for i, least in enumerate(curve["threshold"]) if least >= threshold]
    return (curve["coverage"][left[-1]], curve["risk"][left[-1]]) if left else (0.0, None)


def _table(result: Mapping[str, Any], path: Path) -> str:
    on, before, after = result["fitted_on"], result["before"], result["after"]
    lines = [
        f"temperature {result['temperature']:.4f}, fitted on {on['pixels']:,} labelled pixels of "
        f"{on['images']} images ({on['split']} split of {on['data']})",
        "",
        f"{'':<34}{'before':>9}{'after':>9}",
        f"{f'expected calibration error, {BINS} bins':<34}"
        f"{100 * before['ece']:>8.2f}%{100 * after['ece']:>8.2f}%",
        f"{'negative log-likelihood':<34}{before['nll']:>9.4f}{after['nll']:>9.4f}",
        f"{'area under risk-coverage':<34}{before['aurc']:>9.4f}{after['aurc']:>9.4f}",
        "",
        f"{'no class below confidence':<34}{'pixels left':>12}{'of them wrong':>15}",
    ]
    for threshold in (0.0, *THRESHOLDS):
        left, risk = at_threshold(after, threshold)
        wrong = "–" if risk is None else f"{100 * risk:.2f}%"
        lines.append(f"{threshold or 'never':<34}{100 * left:>11.1f}%{wrong:>15}")
    if result["at_limit"]:
        lines.append(
            f"The fit stopped at the end of its range, {LOWEST} to {HIGHEST}: too few pixels, or "
            "all of them right or wrong."
        )
    lines += ["", "Measured on the pixels it was fitted on; labels do not change.", f"{path}"]
    return "\n".join(lines)
