"""Measure exported models: accuracy and speed of int8, and the cost of several encoders.

    python benchmarks/export.py --run runs/a --data DATA        # score and time of one run
    python benchmarks/export.py                                 # the cost of three encoders
    python benchmarks/export.py --encoders mobilenetv2_100 --size 1024

With a run, the script measures the mIoU on a split and the seconds per megapixel of the network in
torch float32, of its ONNX file, and of the int8 ONNX file, whose ranges are measured on the run's
train images. Without a run, it measures parameters, operations, size, memory and time of encoders
with random weights, on which none of these depend. The forms take turns, and the median is
reported. With one thread (the default) it is processor time, which depends little on other work of
the machine. Memory is the peak of a separate process that predicts one image, minus its memory
after loading the libraries.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

AIM_GAIN = 2.5
AIM_LOSS = 1.0  # points of mIoU
ENCODERS = ("resnet50", "tf_efficientnet_lite0", "mobilenetv2_100")
FORMS = ("torch float32", "ONNX float32", "ONNX int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--run", type=Path, help="Path to a run folder; if omitted, encoders are measured"
    )
    parser.add_argument("--data", type=Path, help="Path to its data set, for the score")
    parser.add_argument("--split", default="val")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument(
        "--size", type=int, default=512, help="Side of the image for the measurement of time"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/export.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        print(json.dumps(peak(*settings.child, settings)))
        return
    import torch

    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = score(settings, Path(folder)) if settings.run else card(settings, Path(folder))
    result = {"machine": facts(settings), "size": settings.size, **result}
    settings.out.write_text(json.dumps(result, indent=1) + "\n")
    print(score_table(result) if settings.run else card_table(result))


def score(settings: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure mIoU and time of the three forms of a run."""
    import s5mars
    from s5mars.data.read import read_image
    from s5mars.evaluation.protocols import centre, evaluate_samples
    from s5mars.export.command import export
    from s5mars.export.parity import (
        onnx_probabilities,
        parity,
        seconds_per_megapixel,
        torch_probabilities,
    )
    from s5mars.models.checkpoint import load_model

    dataset = s5mars.open_dataset(settings.data)
    samples = dataset.split(settings.split)
    files = [folder / "model.onnx", folder / "model.int8.onnx"]
    for file in files:
        export(settings.run, out=file, int8="int8" in file.name)
    loaded = load_model(settings.run)
    answers = [torch_probabilities(loaded.model, temperature=loaded.temperature)]
    answers += [onnx_probabilities(file) for file in files]
    images = [centre(read_image(s.image), settings.size) for s in samples]
    times = seconds_per_megapixel(answers, images[0], rounds=settings.rounds, clock=clock(settings))
    sizes = [(settings.run / "best.safetensors").stat().st_size, *(f.stat().st_size for f in files)]
    rows = []
    for form, model, answer, seconds, size in zip(
        FORMS, [settings.run, *files], answers, times, sizes, strict=True
    ):
        confusion = evaluate_samples(s5mars.load(model), samples, dataset.coding).confusion
        rows.append(
            {
                "form": form,
                "mIoU": 100 * confusion.mIoU,
                "seconds_per_megapixel": seconds,
                "gain": times[0] / seconds,
                "bytes": size,
                "equal": parity(answers[0], answer, images).equal,
            }
        )
    return {
        "run": str(settings.run), "encoder": loaded.facts["model"]["encoder"], "rows": rows,
        "split": settings.split, "images": len(samples), "data": dataset.taxonomy.name,
        "training": loaded.facts["training"], "aim": {"gain": AIM_GAIN, "loss": AIM_LOSS},
    }  # fmt: skip


def card(settings: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure parameters, operations, memory and time of encoders."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from s5mars.classes import Class, Taxonomy
    from s5mars.export.graph import write_onnx
    from s5mars.export.parity import onnx_probabilities, seconds_per_megapixel, torch_probabilities
    from s5mars.export.quantise import quantise

    names = [Class(f"class {i}", (0, 0, 0)) for i in range(settings.classes)]
    taxonomy = Taxonomy("card", tuple(names))
    image = picture(settings.size)
    rows = []
    for encoder in settings.encoders:
        model = untrained(encoder, settings.classes)
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            model(torch.from_numpy(image[None]).permute(0, 3, 1, 2))
        single, eight = folder / f"{encoder}.onnx", folder / f"{encoder}.int8.onnx"
        write_onnx(single, model, taxonomy, facts={"format": 1})
        quantise(single, eight, [image])
        answers = [torch_probabilities(model), *map(onnx_probabilities, (single, eight))]
        times = seconds_per_megapixel(answers, image, rounds=settings.rounds, clock=clock(settings))
        parameters = sum(p.numel() for p in model.parameters())
        sizes = [4 * parameters, single.stat().st_size, eight.stat().st_size]
        for form, seconds, size, what in zip(
            FORMS, times, sizes, (encoder, str(single), str(eight)), strict=True
        ):
            rows.append(
                {
                    "encoder": encoder,
                    "form": form,
                    "parameters": parameters,
                    "macs_per_megapixel": counter.get_total_flops() / 2 / image[..., 0].size * 1e6,
                    "bytes": size,
                    "peak_bytes": in_fresh_process(form, what, settings),
                    "seconds_per_megapixel": seconds,
                    "gain": times[0] / seconds,
                }
            )
            print(rows[-1], file=sys.stderr)
    return {"rows": rows}


def clock(settings: argparse.Namespace) -> Callable[[], float]:
    """Processor time with one thread, otherwise wall time."""
    return time.process_time if settings.threads == 1 else time.perf_counter


def untrained(encoder: str, classes: int):
    import torch

    from s5mars.models.deeplab import DeepLabV3Plus

    torch.manual_seed(0)
    return DeepLabV3Plus(encoder, classes, weights="none").eval()


def in_fresh_process(form: str, what: str, settings: argparse.Namespace) -> int:
    command = [
        sys.executable, __file__, "--child", form, what, "--size", str(settings.size),
        "--classes", str(settings.classes), "--threads", str(settings.threads),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def peak(form: str, what: str, settings: argparse.Namespace) -> int:
    """Predict once, in a separate process. The ONNX forms do not import torch."""
    image = picture(settings.size)
    if form == FORMS[0]:
        import torch

        from s5mars.export.parity import torch_probabilities

        untrained("mobilenetv3_small_050", settings.classes)  # loads the libraries
        torch.set_num_threads(settings.threads)
        before = held("VmRSS")
        torch_probabilities(untrained(what, settings.classes))(image)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.log_severity_level = 3
        before = held("VmRSS")
        session = onnxruntime.InferenceSession(what, options, providers=["CPUExecutionProvider"])
        session.run(None, {"image": image[None]})
    return held("VmHWM") - before


def held(key: str) -> int:
    """Memory of this process in bytes: current (VmRSS) or peak (VmHWM)."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


def picture(side: int) -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.integers(60, 180, (side // 16 + 1, side // 16 + 1, 3))
    patches = np.repeat(np.repeat(coarse, 16, 0), 16, 1)[:side, :side]
    return (patches + random.integers(-40, 40, patches.shape)).astype(np.uint8)


def facts(settings: argparse.Namespace) -> dict[str, object]:
    import onnxruntime

    from machine import machine

    return machine() | {"threads": settings.threads, "onnxruntime": onnxruntime.__version__}


def words(result: dict) -> str:
    m = result["machine"]
    return (
        f"{m['processor']} ({'with' if m['vnni'] else 'without'} VNNI), threads: {m['threads']}, "
        f"load {m['load']:.1f}; image {result['size']} × {result['size']}; torch {m['torch']}, "
        f"onnxruntime {m['onnxruntime']}"
    )


def score_table(result: dict) -> str:
    lines = ["| form | mIoU, % | same class as torch, % | s a megapixel | gain | file, MB |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {r['form']} | {r['mIoU']:.2f} | {100 * r['equal']:.2f} | "
        f"{r['seconds_per_megapixel']:.3f} | {r['gain']:.2f} × | {r['bytes'] / 1e6:.1f} |"
        for r in result["rows"]
    ]
    single, eight = result["rows"][0], result["rows"][-1]
    loss = single["mIoU"] - eight["mIoU"]
    met = eight["gain"] >= AIM_GAIN and loss <= AIM_LOSS
    lines += [
        "",
        f"{result['encoder']} on {result['images']} images of the {result['split']} split of "
        f"{result['data']}. {words(result)}.",
        f"int8: {eight['gain']:.2f} times as fast at {loss:.2f} points of mIoU less; aim "
        f"{AIM_GAIN} times at {AIM_LOSS} point: {'met' if met else 'not met'}.",
    ]
    return "\n".join(lines)


def card_table(result: dict) -> str:
    lines = ["| encoder | form | parameters, M | GMAC a megapixel | file, MB | memory, MB | "
             "s a megapixel | gain |"]  # fmt: skip
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['encoder']} | {r['form']} | {r['parameters'] / 1e6:.2f} | "
        f"{r['macs_per_megapixel'] / 1e9:.1f} | {r['bytes'] / 1e6:.1f} | "
        f"{r['peak_bytes'] / 1e6:.0f} | {r['seconds_per_megapixel']:.2f} | {r['gain']:.2f} × |"
        for r in result["rows"]
    ]
    return "\n".join([*lines, "", f"{words(result)}."])


if __name__ == "__main__":
    main()
