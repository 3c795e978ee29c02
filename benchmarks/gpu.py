"""Measure a training step on a GPU, its parts, and the expected duration of the paper's run.

    python benchmarks/gpu.py [--model resnet50] [--size 512] [--batch 8] [--device cuda]

The script requires torch, torchvision, timm and lightning-fabric, but no network and no data, and
ends in less than eight minutes. Parts that need other packages (the loader reads object masks with
pyarrow and pycocotools), and parts for which no time is left, are skipped with a line that states
the reason. The inputs are random tensors and generated scenes. The parts are:

1. images per second, milliseconds and memory of variants of an S5Mars step: precision, layout of
   the weights, cuDNN's search, compiled networks, compiled networks in CUDA graphs;
2. ratios of the step to the supervised step on the same student batch and to FixMatch with an EMA
   teacher, in bf16; the steps take turns, and the median of the ratios is reported;
3. shares of the step by its parts (synchronised with the device between them) and by kind of kernel
   (from a profile without synchronisation), and the utilisation of the device;
4. speed of the loader alone, and of training from it as in ``s5mars train``;
5. the hours of the paper's 150 000 steps, calculated from the step and from the loader.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from machine import machine
from s5mars.comparison.step import CostSettings, Step
from s5mars.devices import find_device
from s5mars.parallel.cores import usable_cores
from shares import NETWORK, timed_parts
from variants import fixmatch_step, supervised_step

PAPER_STEPS, PAPER_HOURS, AIM_HOURS = 150_000, 42.8, 4.0

KINDS = {
    "convolutions and products": r"conv|gemm|cutlass|xmma|nvjet|wgrad|dgrad|fprop|mm\b",
    "normalisation": r"batch_?norm|bn_|norm_(fw|bw)",
    "softmax and losses": r"softmax|nll",
    "resampling": r"upsample|grid_sampl|pool",
    "optimiser and averages": r"multi_tensor|foreach|sgd|lerp",
    "copies and layouts": r"copy|cat|memcpy|memset|fill|nchw|nhwc|transpose",
}
"""Kinds of kernels by parts of their names; the first match counts, all others are elementwise."""


class Run:
    """Options, start time and results of one call."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = find_device(options.device)
        self.settings = CostSettings(
            model=options.model, crop=options.size, batch=options.batch, device=options.device
        )
        self.end = time.monotonic() + 60 * options.minutes
        self.result: dict[str, Any] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether kernels run asynchronously."""
        return self.device.type == "cuda"

    def clock(self) -> float:
        """Synchronise with the device and return the time in seconds."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def half(self) -> contextlib.AbstractContextManager[Any]:
        """Context manager for autocast to bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def part(self, name: str, measure: Callable[[], Any], *, seconds: float = 5.0) -> None:
        """Measure, print and store one part; a failure does not affect the other parts."""
        left = self.end - time.monotonic()
        if left < seconds:
            found: Any = f"left out: {max(0.0, left):.0f} s left"
        else:
            try:
                found = measure()
            except Exception as error:  # a compiler or a driver may raise any exception
                said = str(error).strip().splitlines() or [""]
                found = f"failed: {type(error).__name__}: {said[0][:150]}"
            if self.on_gpu:
                torch.cuda.empty_cache()
        self.result[name] = found
        if isinstance(found, dict):
            print(name)
            for key, value in found.items():
                print(f"  {key:<32} {value}")
        else:
            print(f"{name:<34} {found}")
        sys.stdout.flush()

    def steps_of(self, step: Callable[[], None], *, warm: int) -> list[float]:
        """Seconds of each counted step."""
        for _ in range(warm):
            step()
        times = []
        for _ in range(self.options.steps):
            begin = self.clock()
            step()
            times.append(self.clock() - begin)
        return times


@contextlib.contextmanager
def backends(*, tf32: bool = True, search: bool = False) -> Iterator[None]:
    """Set switches of the CUDA libraries for one variant."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, search
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = convolutions, before[1]


def variant(
    run: Run,
    *,
    half: bool = True,
    tf32: bool = True,
    search: bool = False,
    channels_last: bool = True,
    compiled: str | None = None,
) -> dict[str, Any]:
    """Speed and memory of S5Mars steps; ``compiled`` is a mode of ``torch.compile``."""
    step = Step("s5mars", run.settings, run.device)
    module = step.module
    if not channels_last:
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    begin = run.clock()
    if compiled is not None:
        for network in (module.student, module.scored):
            network.compile(mode=compiled)

    def once() -> None:
        if compiled is not None:
            torch.compiler.cudagraph_mark_step_begin()
        with run.half() if half else contextlib.nullcontext():
            loss = step.loss()
        step.learn(loss)

    if run.on_gpu:
        torch.cuda.reset_peak_memory_stats(run.device)
    with backends(tf32=tf32, search=search):
        first = -begin
        once()
        first += run.clock()
        seconds = statistics.median(run.steps_of(once, warm=3))
    images = 2 * run.settings.batch
    found: dict[str, Any] = {
        "ms": round(1e3 * seconds, 2),
        "images/s": round(images / seconds, 1),
        "s before the 2nd step": round(first, 1),
    }
    if run.on_gpu:
        found["peak GiB"] = round(torch.cuda.max_memory_allocated(run.device) / 2**30, 2)
    return found


def ratios(run: Run) -> dict[str, float]:
    """Ratios of S5Mars to the supervised step and FixMatch, in bf16 (on a CPU in fp32)."""
    steps = {
        "supervised": supervised_step(run.settings, run.device),
        "fixmatch": fixmatch_step(run.settings, run.device),
        "fixmatch without colours": fixmatch_step(run.settings, run.device, photometric="none"),
        "s5mars": Step("s5mars", run.settings, run.device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(run.options.steps + 2):
        for name, step in steps.items():
            begin = run.clock()
            with run.half() if run.on_gpu else contextlib.nullcontext():
                step()
            if number >= 2:
                seconds[name].append(run.clock() - begin)
    ours = seconds.pop("s5mars")
    return {
        f"s5mars / {name}": round(
            statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3
        )
        for name, theirs in seconds.items()
    }


def shares(run: Run) -> dict[str, Any]:
    """Shares of the parts of a step, synchronised with the device between them."""
    step = Step("s5mars", run.settings, run.device)
    rounds = []
    for number in range(run.options.steps + 2):
        with run.half() if run.on_gpu else contextlib.nullcontext():
            parts = timed_parts(step, run.clock)
        if number >= 2:
            rounds.append(parts)
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    whole = sum(medians.values())
    outside = 1 - sum(medians[name] for name in NETWORK) / whole
    of_parts = {name: f"{100 * value / whole:.1f} %" for name, value in medians.items()}
    return {**of_parts, "outside the networks": f"{100 * outside:.1f} % (aim <= 10 %)"}


def kernels(run: Run) -> dict[str, Any]:
    """Share of each kind of kernel in the device's time, and utilisation of the device."""
    step = Step("s5mars", run.settings, run.device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * run.on_gpu
    precision = run.half() if run.on_gpu else contextlib.nullcontext()
    with precision:
        run.steps_of(step, warm=0)
        plain = run.clock()
        for _ in range(3):
            step()
        plain = run.clock() - plain
        with profile(activities=activities) as profiled:
            for _ in range(3):
                step()
            run.clock()
    spent: dict[str, float] = {}
    for event in profiled.key_averages():
        if run.on_gpu and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        time_of = event.self_device_time_total if run.on_gpu else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((k for k, pattern in KINDS.items() if re.search(pattern, name)), "elementwise")
        spent[kind] = spent.get(kind, 0.0) + time_of / 1e6
    busy = sum(spent.values())
    found = {
        kind: f"{100 * value / busy:.1f} %"
        for kind, value in sorted(spent.items(), key=lambda item: -item[1])
    }
    if run.on_gpu:
        # The profiler slows down Python but not the device: divide by the time without it.
        found["device busy"] = f"{100 * min(1.0, busy / plain):.0f} % of the step"
    return found


def training_batches(run: Run, folder: Path) -> Any:
    """Batches from generated scenes on disk."""
    from loader import CODING, batches_of, generated

    side = max(64, min(1200, 2 * run.settings.crop + 176))
    samples, objects = generated(folder, run.options.scenes, side)
    crop, batch = run.settings.crop, run.settings.batch
    return batches_of(samples, objects, CODING, crop=crop, batch=batch)


def loader_speed(run: Run, batches: Any) -> dict[str, Any]:
    """Images per second for a consumer that never waits."""
    from s5mars.training.loader_processes import training_loader

    workers = run.options.workers
    loader = iter(training_loader(batches, start=0, workers=workers))
    for _ in range(2 + 4 * workers):  # the start of the processes is not measured
        next(loader)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < run.options.seconds:
        next(loader)
        count += 1
    rate = count * 2 * run.settings.batch / (time.perf_counter() - begin)
    return {"workers": workers, "images/s": round(rate, 1)}


def through_loop(run: Run, batches: Any) -> dict[str, Any]:
    """Training from the loader, as ``s5mars train`` does it, without validation."""
    from loop import times_of_steps
    from s5mars.training.loader_processes import training_loader

    count = 3 * run.options.steps
    times = times_of_steps(
        Step("s5mars", run.settings, run.device),
        training_loader(batches, start=0, workers=run.options.workers),
        count,
        time.perf_counter,
        accelerator="gpu" if run.on_gpu else "cpu",
        precision="bf16" if run.on_gpu else "fp32",
    )
    skipped = count // 3
    seconds = (times[-1] - times[skipped]) / (count - 1 - skipped)
    return {"ms": round(1e3 * seconds, 2), "images/s": round(2 * run.settings.batch / seconds, 1)}


def projection(run: Run) -> dict[str, str]:
    """Hours of the paper's steps, from the step alone, the loader alone, and both together."""
    images = 2 * run.settings.batch
    rates = {
        name: found["images/s"]
        for name, found in run.result.items()
        if isinstance(found, dict) and "images/s" in found
    }
    hours = {name: PAPER_STEPS * images / rate / 3600 for name, rate in rates.items()}
    found = {
        name: f"{value:.2f} h, {PAPER_HOURS / value:.1f} x the paper's RTX 3090"
        for name, value in hours.items()
    }
    return {**found, "aim": f"under {AIM_HOURS:.0f} h at batch 8 + 8, 512, resnet50"}


VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"half": False, "tf32": False},
    "tf32": {"half": False},
    "bf16": {},
    "bf16, contiguous weights": {"channels_last": False},
    "bf16, cuDNN searches": {"search": True},
    "bf16, compiled": {"compiled": "default"},
    "bf16, compiled, CUDA graphs": {"compiled": "reduce-overhead"},
}
ON_CPU = ("fp32", "bf16", "bf16, contiguous weights")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="Number of steps of each measurement")
    parser.add_argument(
        "--scenes", type=int, default=12, help="Number of scenes generated for the loader"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="Duration of the loader part")
    parser.add_argument("--workers", type=int, default=max(0, min(12, usable_cores() - 1)))
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="Time after which no further part starts"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu.json"))
    options = parser.parse_args(arguments)
    run = Run(options)
    run.result["sizes"] = {**asdict(run.settings), "steps": options.steps}
    run.result["machine"] = machine()
    for key in ("sizes", "machine"):
        print(f"{key:<34} {run.result[key]}")
    eager = [name for name, how in VARIANTS.items() if "compiled" not in how]
    for name in eager if run.on_gpu else ON_CPU:
        run.part(name, lambda how=VARIANTS[name]: variant(run, **how))  # type: ignore[misc]
    run.part("ratios", lambda: ratios(run))
    run.part("shares", lambda: shares(run))
    run.part("kernels", lambda: kernels(run))
    with tempfile.TemporaryDirectory() as folder:
        try:
            batches = training_batches(run, Path(folder))
        except ImportError as error:
            run.part("loader", lambda why=f"left out: needs {error.name}": why)  # type: ignore[misc]
        else:
            run.part("loader", lambda: loader_speed(run, batches), seconds=options.seconds + 5)
            run.part("training from the loader", lambda: through_loop(run, batches))
    if run.on_gpu:  # last, because a compiler may take minutes
        for name in (n for n in VARIANTS if n not in eager):
            run.part(name, lambda how=VARIANTS[name]: variant(run, **how), seconds=90)  # type: ignore[misc]
    run.part("projection", lambda: projection(run), seconds=-1e9)
    options.out.write_text(json.dumps(run.result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
