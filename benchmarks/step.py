"""Measure time and memory of an S5Mars training step, as ratios to other steps.

    python benchmarks/step.py [--model tf_efficientnet_lite0] [--crop 256] [--batch 4] [--rounds 5]

The networks compute random tensors on one thread of the CPU. In every round each of the following
takes one step, so that other work on the machine affects all of them. The ratios are medians over
rounds, and times are processor time, because machines are shared:

- supervised: the same network on as many images as the student batch of S5Mars (labelled + pool);
- fixmatch: FixMatch with an EMA teacher, with colour augmentation and, which is stricter, without;
- naive: a plain implementation of S5Mars, see ``naive.py``;
- bf16: S5Mars under autocast.

The last part measures the parts of an S5Mars step. The overhead of the loop is measured on a tiny
network and added to the part outside the networks. Peak memory is that of a fresh process for each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from loop import times_of_steps
from machine import machine
from naive import NaiveStep
from s5mars.comparison.peak import peak_of
from s5mars.comparison.step import CostSettings, Step
from s5mars.training.environment import choose_precision
from shares import NETWORK, PARTS, timed_parts
from variants import fixmatch_step, supervised_step

AIMS = {
    "s5mars / supervised": "<= 1.40",
    "s5mars / fixmatch": "<= 1.18",
    "s5mars / fixmatch without colours": "<= 1.18",
    "fp32 / bf16": ">= 1.8 where the CPU has AMX",
    "share outside the networks": "<= 0.08",
}
CPU = torch.device("cpu")
TINY = CostSettings(model="test_resnet", crop=32, batch=2, classes=9)


CANDIDATES: dict[str, Callable[[CostSettings], Callable[[], None]]] = {
    "supervised": lambda s: supervised_step(s, CPU),
    "fixmatch": lambda s: fixmatch_step(s, CPU),
    "fixmatch without colours": lambda s: fixmatch_step(s, CPU, photometric="none"),
    "s5mars": lambda s: Step("s5mars", s, CPU),
    "naive": lambda s: NaiveStep(Step("s5mars", s, CPU)),
}


def timed_rounds(settings: CostSettings) -> dict[str, list[float]]:
    """Processor time of one step of every candidate in each round, in seconds."""
    steps = {name: make(settings) for name, make in CANDIDATES.items()}

    def half() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            steps["s5mars"]()

    steps["bf16"] = half
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(settings.rounds + 1):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            if number:  # the first warms up
                seconds[name].append(time.process_time() - begin)
    return seconds


def parts(settings: CostSettings) -> dict[str, float]:
    """Median processor seconds of the parts of an S5Mars step."""
    step = Step("s5mars", settings, CPU)
    timed_parts(step, time.process_time)
    rounds = [timed_parts(step, time.process_time) for _ in range(settings.rounds)]
    return {name: statistics.median(each[name] for each in rounds) for name in PARTS}


def loop_seconds(length: int = 60) -> float:
    """What the loop, its checks and the progress bar add to the bare parts of a step."""
    step = Step("s5mars", TINY, CPU)
    settings = {"accelerator": "cpu", "precision": "fp32"}
    times = times_of_steps(
        step, itertools.repeat(step.batch), length, time.process_time, **settings
    )
    whole = [b - a for a, b in itertools.pairwise(times)]
    bare = [sum(timed_parts(step, time.process_time).values()) for _ in range(length)]
    return max(0.0, statistics.median(whole) - statistics.median(bare))


def peaks(settings: CostSettings) -> dict[str, int]:
    """Peak memory of a step in bytes, each in a separate process."""
    found = {}
    for name in CANDIDATES:
        command = [sys.executable, __file__, "--peak", name, json.dumps(asdict(settings))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = int(done.stdout.split()[-1])
    return found


def measure(settings: CostSettings) -> dict[str, object]:
    """Measure all entries of the table."""
    seconds = timed_rounds(settings)

    def ratio(a: str, b: str) -> float:
        pairs = zip(seconds[a], seconds[b], strict=True)
        return round(statistics.median(x / y for x, y in pairs), 3)

    of_parts = parts(settings)
    of_loop = loop_seconds()
    outside = sum(s for name, s in of_parts.items() if name not in NETWORK) + of_loop
    optimising = of_parts["clipping"] + of_parts["optimiser"]
    whole = sum(of_parts.values()) + of_loop
    return {
        "s5mars / supervised": ratio("s5mars", "supervised"),
        "s5mars / fixmatch": ratio("s5mars", "fixmatch"),
        "s5mars / fixmatch without colours": ratio("s5mars", "fixmatch without colours"),
        "naive / s5mars": ratio("naive", "s5mars"),
        "fp32 / bf16": ratio("s5mars", "bf16"),
        "precision auto": choose_precision("auto", "cpu"),
        "share outside the networks": round((outside - optimising) / whole, 3),
        "and with clipping and SGD": round(outside / whole, 3),
        "milliseconds of a step": {
            name: round(1e3 * statistics.median(values)) for name, values in seconds.items()
        },
        "milliseconds of its parts": {
            **{name: round(1e3 * value, 1) for name, value in of_parts.items()},
            "loop, checks and bar": round(1e3 * of_loop, 1),
        },
        "peak MiB": {name: round(b / 2**20) for name, b in peaks(settings).items()},
        "sizes": asdict(settings),
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/step.json"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.peak:
        name, sizes = options.peak
        print(peak_of(lambda: CANDIDATES[name](CostSettings(**json.loads(sizes)))))
        return
    settings = CostSettings(
        model=options.model, crop=options.crop, batch=options.batch, rounds=options.rounds,
        device="cpu",
    )  # fmt: skip
    result = measure(settings)
    for key, value in result.items():
        if isinstance(value, dict):
            print(key)
            for name, entry in value.items():
                print(f"  {name:<34} {entry}")
        else:
            print(f"{key:<36} {value!s:<8} {f'aim {AIMS[key]}' if key in AIMS else ''}".rstrip())
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
