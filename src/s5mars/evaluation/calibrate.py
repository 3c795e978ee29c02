"""The ``calibrate`` command: fit a temperature and class biases, and show their effect."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from s5mars.errors import UserError, require_choice, require_limit
from s5mars.evaluation.class_biases import class_biases_entry, describe_class_biases
from s5mars.evaluation.opening import open_split
from s5mars.evaluation.reliability import (
    BINS,
    HIGHEST,
    LOWEST,
    PIXELS,
    THRESHOLDS,
    collect_pixels,
    fit_temperature,
    is_at_limit,
    measure,
)
from s5mars.files import write_json
from s5mars.files.reading import object_in, reading
from s5mars.models.checkpoint import load_model
from s5mars.models.facts import (
    checkpoint_path,
    is_installed,
    recorded_class_biases,
    temperature_of,
    write_calibration,
    write_class_biases,
)
from s5mars.predict.inference import AUTO_DEVICE, Inference

logger = logging.getLogger("s5mars")

CLASS_BIASES = ("keep", "fit", "none")


def calibrate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "val",
    splits: Path | None = None,
    network: str = "teacher",
    inference: Inference = AUTO_DEVICE,
    pixels: int = PIXELS,
    seed: int = 0,
    class_biases: str = "keep",
) -> dict[str, Any]:
    """Fit a temperature, print its effect, and write it where ``s5mars.load`` finds it.

    ``calibration.json`` (``calibration-student.json``) next to the checkpoint contains the numbers,
    and the checkpoint's JSON file the temperature: it belongs to these weights, and is lost when
    weights are saved again. Training fits no temperature, because the user has to choose the split,
    and weights are often replaced by better ones.

    Args:
        run: a run folder or a checkpoint.
        data: path to a data set with the classes of the checkpoint; None is the one that it was
            trained on.
        split: split to fit on; must not be used in training.
        splits: folder of the split lists (see ``data.trained_on``).
        network: ``"teacher"`` or ``"student"``.
        inference: device, windows and precision.
        pixels: maximum number of labelled pixels to fit and measure on, drawn uniformly.
        class_biases: ``"keep"`` those of the model, ``"fit"`` new ones (see
            ``evaluation.class_biases``), or remove them, ``"none"``.

    Returns:
        The content of the file: ``temperature``, ``before`` and ``after`` (see
        ``reliability.measure``), ``at_limit`` (whether the fit stopped at the end of its range),
        ``class_biases`` (the entry of the checkpoint, or None) and ``fitted_on``.

    Raises:
        MissingFileError: if the run, the data or one of its files is missing.
        UserError: if the data set has other classes than the checkpoint, the split does not exist,
            ``pixels`` is below 1, the model is an installed one, or a file is damaged.
    """
    run = Path(run)
    if is_installed(run):
        folder = checkpoint_path(run).parent
        raise UserError(
            f"{run} is installed and stays as it is; calibrate a copy of the folder {folder}"
        )
    require_limit("at least 1", **{"--pixels": pixels})
    require_choice(class_biases, CLASS_BIASES, name="--class-biases")
    loaded = load_model(run, network=network)
    if class_biases != "keep":
        loaded = replace(loaded, class_biases=None)
    opened = open_split(run, loaded, split, data=data, splits=splits, inference=inference)
    if opened.trained_on:
        logger.warning(
            "The model was trained on the labels of %d of the %d images of %s. It is surer there "
            "than on new images, so its confidence will be too high: use another --split",
            opened.trained_on,
            len(opened.samples),
            split,
        )
    with tqdm(
        total=len(opened.samples), unit="image", desc=f"calibrate {split}", disable=None
    ) as bar:
        found = collect_pixels(
            opened.predictor,
            opened.samples,
            opened.dataset.coding,
            limit=pixels,
            seed=seed,
            progress=bar.update,
        )
    entry = recorded_class_biases(loaded.facts, loaded.network)
    if class_biases == "none":
        entry = None
    elif class_biases == "fit":
        entry = class_biases_entry(found, split=split)
        biases = np.array(entry["values"], np.float32)
        found = replace(found, logits=found.logits + biases)
    temperature = fit_temperature(found)
    fitted_on = {
        "data": str(opened.dataset.root),
        "split": split,
        "images": len(opened.samples),
        "pixels": len(found),
        "seed": seed,
        "window": inference.window,
        "overlap": inference.overlap,
        "precision": inference.precision,
    }
    result = {
        "temperature": temperature,
        "at_limit": is_at_limit(found, temperature),
        "network": loaded.network,
        "bins": BINS,
        "class_biases": entry,
        "fitted_on": fitted_on,
        "before": measure(found, 1.0),
        "after": measure(found, temperature),
    }
    folder = checkpoint_path(run).parent
    path = folder / calibration_file(network)
    write_json(path, result)
    if class_biases != "keep":
        write_class_biases(run, loaded.network, entry)
    write_calibration(run, loaded.network, {"temperature": temperature, **fitted_on})
    if class_biases == "fit" and entry is not None:
        print(f"class biases: {describe_class_biases(entry, loaded.taxonomy.names)}")
    print(_table(result, path))
    return result


def calibration_file(network: str) -> str:
    """File name of the calibration of a network."""
    return "calibration-student.json" if network == "student" else "calibration.json"


def read_calibration(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The calibration of the teacher in a run folder; None without, or if it is of other weights.

    Args:
        folder: the run folder.
        facts: the JSON file of the checkpoint.

    Raises:
        UserError: if the file is damaged.
    """
    path = folder / calibration_file("teacher")
    if not path.is_file():
        return None
    with reading(path, kind="calibration", remedy="remove it, or run `s5mars calibrate` again"):
        found = object_in(path)
        same = float(found["temperature"]) == temperature_of(facts, str(found["network"]))
        if same and "thresholds" not in found["after"]:
            raise ValueError("without the counts at thresholds, which an earlier version left out")
    return found if same else None


def at_threshold(measured: Mapping[str, Any], threshold: float) -> tuple[float, float | None]:
    """Coverage and risk when abstaining below a confidence threshold.

    Args:
        measured: result of ``reliability.measure``.
        threshold: 0 or one of ``THRESHOLDS``.

    Returns:
        Fraction of pixels kept, and fraction of wrong pixels among them; (0, None) if none is kept.
    """
    if threshold == 0:
        return 1.0, measured["risk_coverage"]["risk"][-1]
    at = measured["thresholds"]
    index = at["threshold"].index(threshold)
    return at["coverage"][index], at["risk"][index]


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
        f"{'abstain below confidence':<34}{'pixels kept':>12}{'of them wrong':>15}",
    ]
    for threshold in (0.0, *THRESHOLDS):
        left, risk = at_threshold(after, threshold)
        wrong = "–" if risk is None else f"{100 * risk:.2f}%"
        lines.append(f"{threshold or 'never':<34}{100 * left:>11.1f}%{wrong:>15}")
    if result["at_limit"]:
        lines.append(
            f"The fit stopped at the end of its range, {LOWEST} to {HIGHEST}: there are too few "
            "pixels, or all of them are right or wrong."
        )
    lines += [
        "",
        "Measured on the pixels of the fit; the temperature changes no class.",
        f"Written to {path}",
    ]
    return "\n".join(lines)
