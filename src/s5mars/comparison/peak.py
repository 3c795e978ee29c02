"""Measure the peak memory of a step on a CPU, in its own process (``-m s5mars.comparison.peak``).

Allocators return little memory, so a second measurement in one process would be meaningless. The
result is the peak resident memory of the process minus that before the networks were created, that
is, without Python and the libraries.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from s5mars.comparison.step import CostSettings, Step
from s5mars.errors import UserError

_STATUS = Path("/proc/self/status")


def peak_in_fresh_process(name: str, settings: CostSettings) -> int:
    """Return the peak memory of two steps of a method, in bytes.

    Raises:
        UserError: if the process fails, e.g. because memory runs out.
    """
    command = [sys.executable, "-m", "s5mars.comparison.peak", name, json.dumps(asdict(settings))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"measuring the memory of {name} failed ({said[-1] if said else done.returncode}): "
            "use a smaller --batch or --crop"
        )
    return int(done.stdout.split()[-1])


def _bytes() -> tuple[int, int]:
    """Return the resident memory of this process in bytes: current and peak."""
    if _STATUS.is_file():
        # ru_maxrss would start at the peak of the parent process.
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE))
        return 1024 * int(found["VmRSS"]), 1024 * int(found["VmHWM"])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most *= 1 if sys.platform == "darwin" else 1024
    return most, most


def peak_of(make: Callable[[], Callable[[], object]]) -> int:
    """Return the peak growth of this process in bytes while a step is built and run twice.

    The first run creates the state of the optimiser. The process must have done nothing else.
    """
    before, _ = _bytes()
    step = make()
    step()
    step()
    return _bytes()[1] - before


if __name__ == "__main__":
    _name, _settings = sys.argv[1], CostSettings(**json.loads(sys.argv[2]))
    print(peak_of(lambda: Step(_name, _settings, torch.device("cpu"))))
