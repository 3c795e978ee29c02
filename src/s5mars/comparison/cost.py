"""Measure the training cost of each method: parameters, operations, time, memory (table XIII).

The networks are real, the inputs are random tensors. Loading and augmentation on the CPU are not
included, and work that depends on predictions may be less than in training.
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

from s5mars.comparison.blocks import Block
from s5mars.comparison.grid import BASELINE, method_rows
from s5mars.comparison.paper import TABLE_XIII
from s5mars.comparison.peak import peak_in_fresh_process
from s5mars.comparison.step import CostSettings, Step
from s5mars.comparison.table import markdown_of
from s5mars.devices import find_device
from s5mars.errors import UserError
from s5mars.files import write_json
from s5mars.methods import method_title
from s5mars.text.numbers import plural

_STEPS_A_TURN = 2


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a training step of one method."""

    method: str
    trained: int  # parameters that the optimiser updates
    held: int  # parameters of student and teacher
    flops: int  # forward and backward; a multiplication and an addition count as two
    peak: int | None  # bytes; None if the device does not report it
    seconds: float  # median time of a step
    ratio: float  # of that time to the baseline's


def cost(
    methods: Sequence[str], settings: CostSettings | None = None, *, out: Path | None = None
) -> list[Cost]:
    """Measure a step of each method, and print a table and, separately, the paper's numbers.

    Memory and operations are measured for each method alone. Time is the median over rounds in
    which the methods take turns, so that a slower machine affects all of them alike.

    Args:
        methods: names, or ``["all"]``; the baseline is always included, for the ratio.

    Raises:
        UserError: if a method, the encoder or the device is unknown, or memory does not suffice.
    """
    settings = settings or CostSettings()
    names = list(dict.fromkeys([BASELINE, *(row.name for row in method_rows(methods))]))
    device = find_device(settings.device)
    facts = {
        name: _sizes_and_memory(name, settings, device)
        for name in tqdm(names, "memory", disable=None)
    }
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in tqdm(range(settings.rounds), "time", disable=None):
        for name in names:
            times[name] += _time_steps(name, settings, device)
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
        write_json(out, {**content, "costs": [asdict(found) for found in costs]})
    print(markdown_of([_measured_block(costs, lines), _paper_block()]), end="")
    return costs


def _sizes_and_memory(
    name: str, settings: CostSettings, device: torch.device
) -> tuple[int, int, int, int | None]:
    """Return the parameters trained and held, operations, and peak memory of a step."""
    peak = peak_in_fresh_process(name, settings) if device.type == "cpu" else None
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        step = Step(name, settings, device)
        step()  # creates the state of the optimiser
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            step()
            peak = torch.cuda.max_memory_allocated(device)
        counter = FlopCounterMode(display=False)
        with counter:
            step()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory in a step of {name} on {device}; use a smaller --batch or --crop"
        ) from error
    return step.trained, step.held, counter.get_total_flops(), peak


def _time_steps(name: str, settings: CostSettings, device: torch.device) -> list[float]:
    """Return the seconds of some steps, after one that is not counted."""
    step = Step(name, settings, device)
    step()
    times = []
    for _ in range(_STEPS_A_TURN):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return times


def _measured_block(costs: Sequence[Cost], lines: Sequence[str]) -> Block:
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
        "cpu": "the peak resident memory of a fresh process minus that before the networks are "
        "created",
    }.get(device.type, "not measured on this device")
    head = "" if settings.head == "auto" else f" with head {settings.head}"
    return [
        f"{settings.model}{head}, crop {settings.crop}, batch {settings.batch} of each stream, "
        f"{settings.classes} classes, fp32, on {_device_name(device)}.",
        "Trained: parameters that the optimiser updates. Held: parameters of student and teacher.",
        "Operations: convolutions and matrix products of the forward and backward pass; a "
        "multiplication and an addition count as two.",
        f"Time: median of {settings.rounds * _STEPS_A_TURN} steps, the methods in turn, on random "
        "tensors. Loading is not included, and work that depends on predictions may differ.",
        f"Peak memory: {how}. What a method collects during training, such as a memory bank, is "
        "not included.",
    ]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "cpu":
        return f"the CPU with {plural(torch.get_num_threads(), 'thread')}"
    return str(device)


def _paper_block() -> Block:
    return Block(
        "The paper's numbers, not measured here: table XIII",
        ("row", "training time", "parameters"),
        tuple((row, f"{hours:.1f} h", f"{m:.2f} M") for row, (hours, m) in TABLE_XIII.items()),
        (
            "As published: full training of 240 epochs with batch 8, crop 512 and ResNet-50 on one "
            "NVIDIA RTX 3090, including the teacher.",
        ),
    )
