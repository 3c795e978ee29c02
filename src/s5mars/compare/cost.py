"""What a training step of each method costs: parameters, operations, time and memory (table XIII).

Real networks on random tensors. Loading and augmentation on the CPU side are not in it, and work
that depends on what a trained network predicts may be less than in training.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from s5mars.compare.blocks import Block
from s5mars.compare.grid import BASELINE
from s5mars.compare.paper import TABLE_XIII
from s5mars.compare.peak import peak_in_fresh_process
from s5mars.compare.step import CostSettings, Step, method_names
from s5mars.compare.table import markdown_of
from s5mars.devices import find_device
from s5mars.errors import UserError
from s5mars.files import write_json
from s5mars.methods import method_title

_STEPS_A_TURN = 2


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one method."""

    method: str
    trained: int  # parameters that the optimiser changes
    held: int  # and with the teacher's and the method's own state
    flops: int  # of a step forward and backward; a multiplication and an addition are two
    peak: int | None  # bytes; None where the device does not tell
    seconds: float  # of a step, the median
    ratio: float  # of that to the baseline's


def cost(
    methods: Sequence[str], settings: CostSettings | None = None, *, out: Path | None = None
) -> list[Cost]:
    """Measure a step of each method, print a table, and the paper's numbers apart from it.

    Every method is measured alone for memory and operations. Time is the median over rounds in
    which the methods take turns, so that a machine that slows down slows all of them.

    Args:
        methods: names, or ``["all"]``; the baseline is always measured, for the ratio.
        settings: sizes and device.
        out: file for the numbers as JSON.

    Raises:
        UserError: for an unknown method, encoder or device, or where memory does not suffice.
    """
    settings = settings or CostSettings()
    names = method_names(list(methods))
    device = find_device(settings.device)
    facts = {name: _alone(name, settings, device) for name in tqdm(names, "memory", disable=None)}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in tqdm(range(settings.rounds), "time", disable=None):
        for name in names:
            times[name] += _turn(name, settings, device)
    medians = {name: statistics.median(values) for name, values in times.items()}
    costs = [
        Cost(
            method=name,
            trained=trained,
            held=held,
            flops=flops,
            peak=peak,
            seconds=medians[name],
            ratio=medians[name] / medians[BASELINE],
        )
        for name, (trained, held, flops, peak) in facts.items()
    ]
    lines = _lines(settings, device)
    if out is not None:
        content = {"settings": asdict(settings), "device": _device_name(device), "notes": lines}
        write_json(out, {**content, "costs": [asdict(each) for each in costs]})
    print(markdown_of([_ours(costs, lines), _papers()]), end="")
    return costs


def _alone(
    name: str, settings: CostSettings, device: torch.device
) -> tuple[int, int, int, int | None]:
    """Parameters trained and held, operations, and peak memory of a step."""
    peak = peak_in_fresh_process(name, settings) if device.type == "cpu" else None
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        step = Step(name, settings, device)
        step()  # makes the optimiser's state
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            step()
            peak = torch.cuda.max_memory_allocated(device)
        counter = FlopCounterMode(display=False)
        with counter:
            step()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory in a step of {name} on {device}: take a smaller --batch or --crop"
        ) from error
    return step.trained, step.held, counter.get_total_flops(), peak


def _turn(name: str, settings: CostSettings, device: torch.device) -> list[float]:
    """Seconds of some steps, after one that is not counted."""
    step = Step(name, settings, device)
    step()
    times = []
    for _ in range(_STEPS_A_TURN):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return times


def _ours(costs: Sequence[Cost], lines: Sequence[str]) -> Block:
    rows = tuple(
        (
            method_title(each.method),
            f"{each.trained / 1e6:.2f} M",
            f"{each.held / 1e6:.2f} M",
            f"{each.flops / 1e12:.3f} T",
            f"{1000 * each.seconds:.0f} ms",
            f"{each.ratio:.2f}",
            "-" if each.peak is None else f"{each.peak / 2**20:.0f} MiB",
        )
        for each in costs
    )
    header = (
        "row", "trained", "held", "operations of a step", "time of a step",
        f"to {method_title(BASELINE)}", "peak memory",
    )  # fmt: skip
    return Block("Cost of a training step, measured here", header, rows, tuple(lines))


def _lines(settings: CostSettings, device: torch.device) -> list[str]:
    how = {
        "cuda": "the peak of PyTorch's allocator on the device, networks included",
        "cpu": "the highest resident memory of a fresh process less that before the networks are "
        "made",
    }.get(device.type, "not measured on this device")
    return [
        f"{settings.model}, crop {settings.crop}, batch {settings.batch} of each stream, "
        f"{settings.classes} classes, fp32, on {_device_name(device)}.",
        "Trained: parameters that the optimiser changes; held: those of student and teacher, and "
        "the method's own state.",
        "Operations: forward and backward of a step of PyTorch's counted operators (convolutions "
        "and matrix products), a multiplication and an addition counted as two.",
        f"Time: median of {settings.rounds * _STEPS_A_TURN} steps, the methods in turn; random "
        "tensors, so without loading, and work that depends on predictions may differ.",
        f"Peak memory: {how}.",
    ]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"the CPU with {threads} thread{'s' if threads > 1 else ''}"
    return str(device)


def _papers() -> Block:
    return Block(
        "The paper's numbers, not measured here: table XIII",
        ("row", "training time", "parameters"),
        tuple((row, f"{hours:.1f} h", f"{m:.2f} M") for row, (hours, m) in TABLE_XIII.items()),
        (
            "As published: whole trainings of 240 epochs with batch 8, crop 512, ResNet-50 on one "
            "NVIDIA RTX 3090; teacher included.",
        ),
    )
