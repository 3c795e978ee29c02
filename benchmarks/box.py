"""Package a run as an installed model: half precision, with checks, scores and a card.

    python benchmarks/box.py RUN --name navcam --data DATA --gold GOLD --resolution 256 \\
        --unlike test=LIST mastcam=FOLDER

Writes ``src/s5mars/models/box/NAME``: ``best.safetensors``, ``best.json`` and ``card.md``. DATA is
the data set of the run (the temperature is fitted on its ``val``, the score is measured on its
``test``), and GOLD contains the 322 AI4Mars images with labels of experts.
``--resolution`` is the longer side to which the model resizes images: the training images of
AI4Mars have 256 pixels, but Navcam frames have 1024. The script requires ``pip install
's5mars[export]'`` and takes about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from scipy import ndimage

import domain as domain_shares
from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_image, read_label
from s5mars.data.resolution import Resolution
from s5mars.evaluation.calibrate import calibrate
from s5mars.evaluation.command import evaluate
from s5mars.export.card import model_card
from s5mars.export.command import export
from s5mars.export.parity import onnx_probabilities, seconds_per_megapixel, torch_probabilities
from s5mars.files import replacing, write_json, write_text
from s5mars.files.reading import read_object
from s5mars.files.run_folder import FACTS, TENSORS
from s5mars.models.box import BOX, CARD, DEFAULT
from s5mars.models.checkpoint import load_model, save_model, write_domain
from s5mars.models.facts import (
    read_facts,
    recorded_class_biases,
    without_folders,
    write_class_biases,
)
from s5mars.predict.describe import describe_images
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor, load

LARGEST = 12_000_000
"""Largest size of an installed model, in bytes."""

LICENCE = "apache-2.0"
ABOUT_DATA = (
    "AI4Mars (Curiosity Navcam, crowd labels, 256 pixels), CC0 1.0 in its public copy on the hub"
)
CITATION = (
    "Training images and labels are [AI4Mars](https://hf.co/datasets/hassanjbara/AI4MARS), "
    "Curiosity Navcam, dedicated to the public domain (CC0 1.0) in that copy; images courtesy "
    "NASA/JPL-Caltech. Please cite: R. M. Swan, D. Atha, H. A. Leopold, M. Gildner, S. Oij, C. "
    "Chiu and M. Ono, *AI4MARS: A Dataset for Terrain-Aware Autonomous Driving on Mars*, CVPR "
    "Workshops 2021."
)

# mIoU, pixel accuracy, IoU of soil, bedrock, sand, big rock (all in %), parameters in millions.
PUBLISHED = {
    "TerSeg": (83.8, 97.8, 98.1, 91.9, 94.3, 51.0, 49.2),
    "MarsSeg": (83.4, 97.1, 96.4, 92.0, 93.0, 52.2, 34.9),
    "SegFormer-B2": (83.4, 98.1, 97.8, 94.0, 95.8, 45.9, 27.4),
    "DeepLabV3+ R50": (81.8, 97.9, 97.5, 93.9, 95.2, 40.8, 42.0),
    "DepthFormer-RGB": (81.7, 97.8, 97.8, 92.0, 95.1, 42.0, 42.0),
    "IC-TransUNet": (69.9, 94.4, 92.8, 87.0, 86.2, 13.4, 10.8),
}
SOURCE = (
    "The published figures are means of three seeds on the same 322 images at 256 × 256, after "
    "training on 4 200 crowd-labelled images (a random split of the same set): repository "
    "UnDauphin/ai4mars_DL-v3, `results/benchmark_results.csv`."
)


def pack(run: Path, folder: Path, *, resolution: str | None, data: Path) -> None:
    """Write the scored network of a run in half precision, with its class biases and its domain.

    Tensors with one axis (biases and batch statistics) stay in float32: they take no space, and
    small variances have few digits in half precision.
    """
    loaded = load_model(run)
    save_model(
        folder / TENSORS,
        {loaded.network: loaded.model},
        taxonomy=loaded.taxonomy,
        training=loaded.facts["training"],
        resolution=Resolution.parse(resolution) if resolution else loaded.resolution,
    )
    tensors = {
        key: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for key, value in load_file(folder / TENSORS).items()
    }
    with replacing(folder / TENSORS) as temporary:
        temporary.write_bytes(save(tensors))
    if entry := recorded_class_biases(loaded.facts, loaded.network):
        write_class_biases(folder, loaded.network, entry)
    images = [sample.image for sample in open_dataset(data).split("train")]
    write_domain(folder, describe_images(load(folder), images, network=loaded.network))


def agreement(run: Path, folder: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Share of pixels that have the same class in float32 and in half precision."""
    full, half = load_model(run), load_model(folder)
    one, other = (
        Predictor(each.model, each.taxonomy, resolution=half.resolution) for each in (full, half)
    )
    equal = pixels = 0
    worst = 0.0
    for path in paths:
        image = read_image(path)
        (a, p), (b, q) = (each.predict(image, probabilities=True) for each in (one, other))
        equal += int((a == b).sum())
        pixels += a.size
        worst = max(worst, float(np.abs(p - q).max()))
    return {"equal": equal / pixels, "pixels": pixels, "images": len(paths), "worst": worst}


SIZES = (16, 64, 256)
"""Boundaries between size classes of regions, in pixels of the labelled images."""


def found_by_size(folder: Path, gold: Path, name: str) -> list[tuple[str, int, int]]:
    """Number of connected regions of a class, and of those that are found, by size.

    A region is found if at least half of its pixels are predicted as the class.
    """
    predictor, dataset = load(folder), open_dataset(gold)
    index = predictor.taxonomy.names.index(name)
    counts = np.zeros((len(SIZES) + 1, 2), np.int64)
    for sample in dataset.split("test"):
        regions, number = ndimage.label(read_label(sample, dataset.coding) == index)
        if not number:
            continue
        right = predictor.predict(read_image(sample.image)) == index
        every = np.arange(1, number + 1)
        sizes = ndimage.sum_labels(np.ones_like(regions), regions, every)
        found = ndimage.mean(right, regions, every) >= 0.5
        np.add.at(counts[:, 0], np.searchsorted(SIZES, sizes, "right"), 1)
        np.add.at(counts[:, 1], np.searchsorted(SIZES, sizes, "right"), found)
    ends = [f"below {SIZES[0]}", *(f"{a} to {b - 1}" for a, b in pairwise(SIZES))]
    ends.append(f"{SIZES[-1]} and more")
    return [(end, *map(int, row)) for end, row in zip(ends, counts, strict=True)]


def frame_seconds(folder: Path, *, side: int = 1024, rounds: int = 5) -> float:
    """Median processor time for the map of a square frame on one core, in seconds."""
    predictor = load(folder)
    frame = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        predictor.segment(frame)
        times.append(time.process_time() - start)
    return float(np.median(times[1:]))


def command_of(run: Path, data: Path) -> str:
    """The command that trained a run, with DATA and RUN in place of its folders."""
    words = [str(word) for word in read_object(run / "versions.json")["command"]]
    recorded = read_facts(run / TENSORS)["training"]["data"]
    names = {str(data): "DATA", str(recorded): "DATA", str(run): "RUN"}
    out = words[words.index("--out") + 1] if "--out" in words else ""
    names |= {out: "RUN"} if out else {}
    parts = (word.rpartition("=") for word in words)
    return shlex.join(f"{option}{sign}{names.get(value, value)}" for option, sign, value in parts)


def sections(
    found: Mapping[str, Any], *, command: str, packing: str, gold: Mapping[str, Any]
) -> list[str]:
    """Sections of the card that only installed models have."""
    classes = list(gold["classes"])
    own = [gold["mIoU"], gold["pixel_accuracy"], *(gold["classes"][c]["iou"] for c in classes)]
    rows = [
        f"| network | mIoU | pixel accuracy | {' | '.join(classes)} | M parameters |",
        "|---" * (len(classes) + 4) + "|",
        f"| **{found['name']}** | {' | '.join(map(_figure, own))} | {found['parameters']:.1f} |",
        *(
            f"| {n} | {' | '.join(f'{value:.1f}' for value in row)} |"
            for n, row in PUBLISHED.items()
        ),
    ]
    test = found["test"]
    cost = [
        "| form | file, MB | mIoU on gold, % | same class as torch, % | s per megapixel |",
        "|---|---|---|---|---|",
        *(
            f"| {form} | {row['bytes'] / 1e6:.1f} | {row['mIoU']:.2f} | {100 * row['equal']:.2f} | "
            f"{row['seconds']:.2f} |"
            for form, row in found["forms"].items()
        ),
    ]
    half, weakest = found["half"], found["weakest"]
    sizes = [
        "| pixels | regions | found |",
        "|---|---|---|",
        *(f"| {size} | {number} | {hits} |" for size, number, hits in found["sizes"]),
    ]
    return [
        f"## Comparison with published networks\n\nIoU in % on {gold['protocol']['images']} images "
        f"with labels of experts.\n\n{chr(10).join(rows)}\n\n{SOURCE}\n\nOn the test split of the "
        f"training data ({test['protocol']['images']} images of other sites, crowd labels) mIoU is "
        f"{_figure(test['mIoU'])} %, pixel accuracy {_figure(test['pixel_accuracy'])} %.",
        f"## Missed regions\n\nRegions of {weakest} in the same images by their size. A region is "
        f"found if half of its pixels are predicted as the class.\n\n{chr(10).join(sizes)}",
        f"## Cost\n\n{chr(10).join(cost)}\n\nTimes are for one core and one megapixel of the "
        f"resized image. A frame of 1024 × 1024 pixels takes {found['frame']:.2f} s in torch. "
        f"Weights are stored in half precision: {100 * half['equal']:.3f} % of "
        f"{half['pixels']:,} pixels have the same class as in float32; probabilities differ by "
        f"at most {half['worst']:.2g}.",
        "## Marked images\n\nShares of images that this model marks as out of domain. *In grey*: "
        f"the same images without colour and camera.\n\n{domain_shares.table(found['unlike'])}",
        f"## How to reproduce it\n\n```\n{command}\n{packing}\n```\n\nThe same commands on the "
        "same machine give the same weights.",
        f"## Data and citation\n\n{CITATION}",
    ]


def measure(options: argparse.Namespace, folder: Path, scratch: Path) -> None:
    """Pack, measure and write everything into ``folder``."""
    run, data, gold = options.run, options.data, options.gold
    pack(run, folder, resolution=options.resolution, data=data)
    calibration = calibrate(folder, data=data)
    scores = {
        place: evaluate(folder, data=root, split="test", out=scratch / place)
        for place, root in (("gold", gold), ("test", data))
    }
    loaded = load_model(folder)
    gold_images = [sample.image for sample in open_dataset(gold).split("test")]
    forms: dict[str, Any] = {}
    forms["torch"] = {
        "bytes": (folder / TENSORS).stat().st_size,
        "mIoU": scores["gold"]["mIoU"],
        "equal": 1.0,
    }
    answers = [torch_probabilities(loaded.model)]
    for form, int8 in (("ONNX float32", False), ("ONNX int8", True)):
        file = scratch / f"{int8}.onnx"
        written = export(folder, out=file, int8=int8)
        forms[form] = {
            "bytes": written["bytes"],
            "mIoU": evaluate(file, data=gold, out=scratch / form)["mIoU"],
            "equal": written["parity"]["equal"],
        }
        answers.append(onnx_probabilities(file))
    shown = np.array(loaded.resolution.resized(read_image(gold_images[0])))
    times = seconds_per_megapixel(answers, shown, clock=time.process_time)
    for form, seconds in zip(forms.values(), times, strict=True):
        form["seconds"] = seconds
    unlike = [(n, domain_shares.listed(Path(p), most=200)) for n, p in options.unlike]
    ious = {name: row["iou"] for name, row in scores["gold"]["classes"].items()}
    weakest = min(ious, key=lambda name: 101 if ious[name] is None else ious[name])
    found = {
        "name": options.name,
        "weakest": weakest,
        "sizes": found_by_size(folder, gold, weakest),
        "parameters": sum(p.numel() for p in loaded.model.parameters()) / 1e6,
        "forms": forms,
        "half": agreement(run, folder, gold_images),
        "frame": frame_seconds(folder),
        "test": scores["test"],
        "unlike": domain_shares.shares(
            Predictor.of(loaded, Inference()),
            [*unlike, ("photographs of scikit-image", domain_shares.photographs())],
        ),
    }
    command = command_of(run, data)
    packing = f"python benchmarks/box.py RUN --name {options.name} --data DATA --gold GOLD" + (
        f" --resolution {options.resolution}" if options.resolution else ""
    )
    facts = dict(read_facts(folder / TENSORS))
    facts["training"] = without_folders(facts["training"])
    facts["calibration"] = {k: without_folders(v) for k, v in facts["calibration"].items()}
    facts["about"] = {
        "data": ABOUT_DATA,
        "licence": f"{LICENCE}; training images CC0 1.0",
        "command": command,
        "scores": [
            {"on": on, **{key: scores[place][key] for key in ("mIoU", "mAcc", "pixel_accuracy")}}
            for place, on in (
                ("gold", f"the {len(gold_images)} expert-labelled AI4Mars images"),
                ("test", f"{scores['test']['protocol']['images']} images of other sites"),
            )
        ],
    }
    write_json(folder / FACTS, facts)
    card = model_card(
        options.name,
        facts,
        loaded.taxonomy,
        evaluation=_shared(scores["gold"]),
        calibration=calibration,
        licence=LICENCE,
        terms="Training images and labels: CC0 1.0.",
        domain=loaded.domain,
        further=sections(found, command=command, packing=packing, gold=scores["gold"]),
    )
    write_text(folder / CARD, card)
    (folder / "calibration.json").unlink()


def _shared(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {**without_folders(scores), "protocol": without_folders(scores["protocol"])}


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default=DEFAULT)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--resolution", help="Resolution of the model (default: that of the run)")
    parser.add_argument("--unlike", nargs="*", default=[], metavar="NAME=FOLDER",
                        type=lambda text: tuple(text.split("=", 1)))  # fmt: skip
    parser.add_argument("--out", type=Path, help="Folder of the model (default: in the package)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    out = options.out or BOX / options.name
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        measure(options, folder, Path(temporary))
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > LARGEST:
            raise SystemExit(f"{size / 1e6:.1f} MB is more than {LARGEST / 1e6:.0f} MB")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder, out)
    print(json.dumps(read_facts(out / TENSORS)["about"], indent=1))
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
