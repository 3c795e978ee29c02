"""Measure the speed of prediction relative to the bare network, and its memory.

    python benchmarks/predict.py                  # ResNet-50, 1024 × 1024, and 6000 × 4000
    python benchmarks/predict.py --encoder tf_efficientnet_lite0 --images 16

The speed of `predict_images`, from JPEG files to class maps on the disk, is compared with that of
the bare network on the same images as tensors. Both take turns in one process, so that other work
on the machine affects both; the ratio is the median over rounds. Reading, the network and writing
overlap. The ratio of processor time is about that of a fully loaded machine; use it if other
programs run at the same time. Memory is the largest resident set of a separate process that
predicts one large image with all outputs. The weights are random, because neither result depends on
them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from machine import machine
from s5mars.classes import S5MARS
from s5mars.data.read import read_image
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict.archive import predict_images
from s5mars.predict.predictor import Predictor

AIM_RATIO = 0.90
AIM_BYTES = 2.5e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument(
        "--size", type=int, default=1024, help="Side of the images for the measurement of speed"
    )
    parser.add_argument("--images", type=int, default=4, help="Number of images per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--large", type=int, nargs=2, default=[6000, 4000], metavar=("W", "H"))
    parser.add_argument(
        "--data",
        type=Path,
        help="Folder of images (default: generated noise)",
    )
    parser.add_argument("--only", choices=["speed", "memory"], help="Measure only one of the two")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/predict.json"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        peak(settings)
        return
    result: dict[str, object] = {"machine": machine(), "settings": settings_of(settings)}
    with tempfile.TemporaryDirectory() as folder:
        if settings.only != "memory":
            result["speed"] = speed(settings, Path(folder))
        if settings.only != "speed":
            result["memory"] = memory(settings, Path(folder))
    print(table(result))
    settings.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {settings.out}")


def speed(settings: argparse.Namespace, folder: Path) -> dict[str, object]:
    files = sources(settings, folder / "in")
    predictor = predictor_of(settings)
    ready = [
        torch.from_numpy(read_image(path)[None]).permute(0, 3, 1, 2).to(predictor.device)
        for path in files
    ]

    def bare() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(
                predictor.device.type, torch.bfloat16, enabled=settings.precision == "bf16"
            ),
        ):
            for tensor in ready:
                predictor.model(tensor)
        if predictor.device.type != "cpu":
            torch.accelerator.synchronize()

    def predict() -> None:
        predict_images(predictor, files, out=folder / "out", write=["labels"])

    for warm in (bare, predict):
        warm()
    seconds: dict[str, list[float]] = {"bare": [], "predict": []}
    processor: dict[str, list[float]] = {"bare": [], "predict": []}
    for _ in range(settings.rounds):
        for name, work in (("bare", bare), ("predict", predict)):
            start, start_processor = time.perf_counter(), processor_seconds()
            work()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(processor_seconds() - start_processor)
    ratios, of_processor = (
        [b / p for b, p in zip(times["bare"], times["predict"], strict=True)]
        for times in (seconds, processor)
    )
    return {
        "images_per_second": {
            name: len(files) / statistics.median(values) for name, values in seconds.items()
        },
        "seconds": seconds,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "processor_seconds": processor,
        "ratio_of_processor_time": statistics.median(of_processor),
        "aim": AIM_RATIO,
    }


def processor_seconds() -> float:
    """Processor time of this process and of its finished children, such as its readers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def memory(settings: argparse.Namespace, folder: Path) -> dict[str, object]:
    path = folder / "large.jpg"
    width, height = settings.large
    picture(height, width, seed=0).save(path, quality=90)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--child", str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {
        "width": width,
        "height": height,
        **json.loads(done.stdout.splitlines()[-1]),
        "seconds": time.perf_counter() - start,
        "aim": AIM_BYTES,
    }


def peak(settings: argparse.Namespace) -> None:
    """Predict one image with all outputs, in a separate process."""
    unit = 1 if sys.platform == "darwin" else 1024
    predictor = predictor_of(settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    predict_images(predictor, [settings.child], out=settings.child.parent / "large")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    reader = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    found = {"peak_bytes": after, "peak_bytes_before_predicting": before}
    print(json.dumps({**found, "peak_bytes_of_the_reader": reader}))


def predictor_of(settings: argparse.Namespace) -> Predictor:
    torch.manual_seed(0)
    model = DeepLabV3Plus(settings.encoder, len(S5MARS), weights="none")
    return Predictor(
        model, S5MARS, window=settings.window, batch=settings.batch, device=settings.device,
        precision=settings.precision,
    )  # fmt: skip


def sources(settings: argparse.Namespace, folder: Path) -> list[Path]:
    """JPEG files of the requested size."""
    folder.mkdir()
    given = sorted(settings.data.rglob("*.[jJpP]*[gG]")) if settings.data else []
    files = []
    for index in range(settings.images):
        size = (settings.size, settings.size)
        if given:
            with Image.open(given[index % len(given)]) as image:
                made = image.convert("RGB").resize(size)
        else:
            made = picture(*size, seed=index)
        files.append(folder / f"{index:03}.jpg")
        made.save(files[-1], quality=90)
    return files


def picture(height: int, width: int, *, seed: int) -> Image.Image:
    """Noise at several scales in reddish colours; as a JPEG it is about as large as gravel."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for scale in (1, 4, 16, 64, 256):
        small = random.random((height // scale + 2, width // scale + 2), np.float32)
        total += np.asarray(
            Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
        )
    grey = Image.fromarray((total * 50).clip(0, 255).astype(np.uint8))
    return Image.merge("RGB", [grey.point(lambda v, k=k: v * k) for k in (1.0, 0.8, 0.6)])


def settings_of(settings: argparse.Namespace) -> dict[str, object]:
    return {
        k: str(v) if isinstance(v, Path) else v for k, v in vars(settings).items() if k != "child"
    }


def table(result: dict) -> str:
    settings = result["settings"]
    lines = [
        f"{settings['encoder']}, {settings['precision']}, {settings['device']}, window "
        f"{settings['window']}, batch {settings['batch']}; {result['machine']['processor']}, "
        f"{result['machine']['threads']} threads",
        f"{'what':<44} {'found':>10} {'aim':>10}",
    ]
    if found := result.get("speed"):
        size = settings["size"]
        rates = found["images_per_second"]
        lines += [
            f"{f'bare network, {size}×{size}, images/s':<44} {rates['bare']:>10.3f} {'':>10}",
            f"{'predict, files to labels, images/s':<44} {rates['predict']:>10.3f} {'':>10}",
            f"{'ratio, median of rounds':<44} {found['ratio']:>10.3f} {f'≥ {AIM_RATIO}':>10}",
            f"{'ratio of processor time, median of rounds':<44} "
            f"{found['ratio_of_processor_time']:>10.3f} {'':>10}",
        ]
    if found := result.get("memory"):
        what = f"peak memory of predict, {found['width']}×{found['height']}, GB"
        lines += [
            f"{what:<44} {found['peak_bytes'] / 1e9:>10.2f} {f'≤ {AIM_BYTES / 1e9}':>10}",
            f"{'  of that before predicting, GB':<44} "
            f"{found['peak_bytes_before_predicting'] / 1e9:>10.2f} {'':>10}",
            f"{'    additional memory of the reading process, GB':<44} "
            f"{found['peak_bytes_of_the_reader'] / 1e9:>10.2f} {'':>10}",
            f"{'  seconds':<44} {found['seconds']:>10.0f} {'':>10}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
