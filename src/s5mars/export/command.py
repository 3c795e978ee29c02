"""The ``export`` command: write an ONNX file and compare it with torch."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from s5mars.data.audit import report_skipped
from s5mars.data.read import read_image
from s5mars.data.resolution import FULL
from s5mars.data.trained_on import dataset_of
from s5mars.errors import DamagedFileError, MissingFileError, UserError
from s5mars.evaluation.protocols import centre
from s5mars.export.graph import write_onnx
from s5mars.export.parity import (
    Parity,
    onnx_probabilities,
    parity,
    seconds_per_megapixel,
    torch_probabilities,
)
from s5mars.export.quantise import quantise
from s5mars.models.checkpoint import LoadedModel, load_model
from s5mars.models.facts import FORMAT, recorded_class_biases, without_folders
from s5mars.models.network import SegmentationNetwork
from s5mars.models.opened import ONNX, result_path
from s5mars.models.segmenter import Segmenter
from s5mars.predict.inference import SMALLEST_SIDE
from s5mars.predict.spacing import evenly_spaced
from s5mars.products.files import IMAGE_ENDINGS, files_below
from s5mars.randomness import generator
from s5mars.text.numbers import plural

logger = logging.getLogger("s5mars")

CALIBRATION_IMAGES = 32
"""Number of evenly spaced images for the ranges of ``int8``."""

CALIBRATION_SIDE = 512
"""Side of the centre crop of a calibration image: enough for ranges, and saves memory."""

LEAST_EQUAL = {"float32": 0.99, "int8": 0.9}
"""Fraction of pixels with the same class as in torch below which a warning is printed."""

COMPARED_IMAGES = 8
COMPARED_SIDE = 1024
"""Side of the centre crop that is compared: one forward pass of torch in bounded memory."""


def export(
    run: str | Path,
    *,
    out: str | Path | None = None,
    int8: bool = False,
    images: str | Path | None = None,
    network: str = "teacher",
) -> dict[str, Any]:
    """Export the network of a run as ONNX, and compare the two on images.

    Args:
        run: a run folder or a checkpoint.
        out: path to the file; None writes ``model.onnx`` or ``model.int8.onnx`` next to the
            checkpoint, or ``NAME.model.onnx`` in the working directory for an installed model.
        int8: quantise weights and activations to eight bits, see ``quantise.py``.
        images: folder of images for the comparison and for the ranges of ``int8``; None uses the
            images that the run was trained on.
        network: ``"teacher"`` or ``"student"``.

    Returns:
        ``file``, ``bytes``, ``temperature``, ``class_biases``, ``parity`` (see ``Parity``), ``on``
        (images of the comparison), ``threads``, ``seconds_per_megapixel`` of ``torch`` and of
        ``onnx``.

    Raises:
        MissingFileError: if the run or the folder of images is missing.
        UserError: if a package or the images for ``int8`` are missing, none of the images can be
            read, or the network cannot be exported.
    """
    loaded = _exportable(load_model(run, network=network))
    if int8 and loaded.model.layout.columnar:
        raise UserError(
            f"--int8 quantises convolutions, but {loaded.facts['model']['encoder']} computes with "
            "products of matrices; leave --int8 out"
        )
    name = "model.int8.onnx" if int8 else "model.onnx"
    target = result_path(run, name) if out is None else Path(out)
    if target.suffix.lower() != ONNX:
        raise UserError(f"--out must end in {ONNX} (got {target})")
    paths = _images(run, loaded, images)
    if int8 and not paths:
        raise UserError(
            "--int8 needs images, and those that the run was trained on do not exist here; give a "
            "folder of images with --images"
        )
    facts = {
        "format": FORMAT,
        "network": loaded.network,
        "model": loaded.facts["model"],
        "resolution": str(loaded.resolution),
        "training": without_folders(loaded.facts["training"]),
        # Without the features, which the file does not return.
        "domain": None
        if loaded.domain is None
        else replace(loaded.domain, features=None).to_dict(),
        "calibration": {
            name: without_folders(entry)
            for name, entry in (loaded.facts.get("calibration") or {}).items()
            if name == loaded.network
        },
        "input": "image: (N, H, W, 3) uint8 RGB at the resolution above, H and W at least 32",
        "class_biases": {
            loaded.network: recorded_class_biases(loaded.facts, loaded.network),
        },
        "output": "probabilities: (N, C, H, W) float32, with class biases and temperature",
        "precision": "int8" if int8 else "float32",
    }
    write = partial(
        write_onnx,
        model=loaded.model,
        taxonomy=loaded.taxonomy,
        temperature=loaded.temperature,
        class_biases=loaded.class_biases,
    )
    if int8:
        seen = _read(evenly_spaced(paths, CALIBRATION_IMAGES), loaded)
        if not seen:
            raise UserError(f"--int8 needs larger images: {_too_small(paths, loaded)}")
        with tempfile.TemporaryDirectory() as scratch:
            single = Path(scratch) / "float32.onnx"
            write(
                single,
                facts={**facts, "ranges_from": f"{len(seen)} images of {paths[0].parent.name}"},
            )
            quantise(single, target, [centre(image, CALIBRATION_SIDE) for image in seen])
    else:
        write(target, facts=facts)
    return _compared(loaded, target, paths, least_equal=LEAST_EQUAL[facts["precision"]])


def _exportable(loaded: LoadedModel[SegmentationNetwork]) -> LoadedModel[Segmenter]:
    """Raise an error for networks that are not over a timm encoder, whose export was not tested."""
    model = loaded.model
    if not isinstance(model, Segmenter):
        kind = loaded.facts["model"]["network"]
        raise UserError(f"{kind} cannot be exported; only networks over timm encoders can")
    return replace(cast("LoadedModel[Segmenter]", loaded), model=model)


def _compared(
    loaded: LoadedModel[Segmenter], target: Path, paths: Sequence[Path], *, least_equal: float
) -> dict[str, Any]:
    shown = [centre(i, COMPARED_SIDE) for i in _read(evenly_spaced(paths, COMPARED_IMAGES), loaded)]
    if shown:
        on = f"images of {paths[0].parent}"
    elif paths:
        on = f"noise, because {_too_small(paths, loaded)}"
    else:
        on = "noise, because no image of the run exists here"
    shown = shown or _noise()
    ours = torch_probabilities(
        loaded.model, temperature=loaded.temperature, class_biases=loaded.class_biases
    )
    theirs = onnx_probabilities(target)
    found = parity(ours, theirs, shown)
    times = seconds_per_megapixel([ours, theirs], shown[0], rounds=3)
    result = {
        "file": str(target),
        "bytes": target.stat().st_size,
        "temperature": loaded.temperature,
        "class_biases": loaded.class_biases,
        "parity": asdict(found),
        "on": on,
        "threads": torch.get_num_threads(),
        "seconds_per_megapixel": dict(zip(("torch", "onnx"), times, strict=True)),
    }
    print(_words(result, found))
    if found.equal < least_equal:
        logger.warning(
            "%.0f %% of the pixels have another class than with torch; compare the scores with "
            "`s5mars evaluate` before you use the file",
            100 * (1 - found.equal),
        )
    if loaded.resolution != FULL:
        print(
            f"The file expects images at resolution {loaded.resolution}. s5mars resizes them; "
            "other programs must do so themselves (docs/deploy.md)."
        )
    return result


def _words(result: dict[str, Any], found: Parity) -> str:
    times = result["seconds_per_megapixel"]
    return (
        f"{result['file']}: {result['bytes'] / 1e6:.1f} MB, temperature "
        f"{result['temperature']:.3f}\n{found} ({result['on']})\n"
        f"{times['onnx']:.3f} s per megapixel, {times['torch']:.3f} s with torch in float32 "
        f"({times['torch'] / times['onnx']:.2f} times as fast, "
        f"{plural(result['threads'], 'thread')})"
    )


def _images(
    run: str | Path, loaded: LoadedModel[Segmenter], folder: str | Path | None
) -> list[Path]:
    """Image files of a folder, or of the run's train split; empty if that does not exist."""
    if folder is None:
        try:
            dataset = dataset_of(run, loaded.facts["training"])
        except MissingFileError:
            return []
        return [sample.image for sample in dataset.split("train")]
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is not a folder of images")
    found = files_below(folder, IMAGE_ENDINGS)
    if not found:
        endings = " ".join(sorted(IMAGE_ENDINGS))
        raise UserError(f"{folder} contains no image (searched for {endings})")
    return found


def _read(paths: Sequence[Path], loaded: LoadedModel[Segmenter]) -> list[NDArray[np.uint8]]:
    """The images at the resolution of the model, without those that are too small there.

    Damaged ones are left out with a warning, because training may have skipped them, too.
    """
    images, damaged = [], []
    for path in paths:
        try:
            images.append(np.array(loaded.resolution.resized(read_image(path))))
        except DamagedFileError as error:
            damaged.append(error)
    if damaged and not images:
        raise damaged[0]
    report_skipped([str(error) for error in damaged])
    return [image for image in images if min(image.shape[:2]) >= SMALLEST_SIDE]


def _too_small(paths: Sequence[Path], loaded: LoadedModel[Segmenter]) -> str:
    return (
        f"the images of {paths[0].parent} have less than {SMALLEST_SIDE} pixels in height or width "
        f"at the resolution of the model ({loaded.resolution})"
    )


def _noise() -> list[NDArray[np.uint8]]:
    draw = generator(0, "export")
    return [draw.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((256, 256), (250, 333))]
