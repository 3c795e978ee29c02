"""Peak memory of a step on a CPU, in a process of its own: ``python -m s5mars.compare.peak``.

An allocator gives little back, so that a second measurement in one process says nothing. What is
counted is the highest resident memory of the process less what it was before the networks were
made, that is without Python and the libraries.
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

from s5mars.compare.step import CostSettings, Step
from s5mars.errors import UserError

_STATUS = Path("/proc/self/status")


def peak_in_fresh_process(name: str, settings: CostSettings) -> int:
    """Bytes that two steps of a method need at most.

    Raises:
        UserError: if the process fails, as for want of memory.
    """
    command = [sys.executable, "-m", "s5mars.compare.peak", name, json.dumps(asdict(settings))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"measuring the memory of {name} failed ({said[-1] if said else done.returncode}): "
            "take a smaller --batch or --crop"
        )
    return int(done.stdout.split()[-1])


def _bytes() -> tuple[int, int]:
    """Resident memory of this process: now, and at most so far."""
    if _STATUS.is_file():
        # Not ru_maxrss, which begins with the peak of the process that started this one.
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE))
        return 1024 * int(found["VmRSS"]), 1024 * int(found["VmHWM"])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most *= 1 if sys.platform == "darwin" else 1024
    return most, most


def peak_of(make: Callable[[], Callable[[], object]]) -> int:
    """Bytes that this process grows by at most, for a step to be made and taken twice.

    The first step makes the optimiser's state. Only a process that did nothing else tells.
    """
    before, _ = _bytes()
    step = make()
    step()
    step()
    return _bytes()[1] - before


def main(name: str, settings: CostSettings) -> int:
    """The peak of a method's step."""
    return peak_of(lambda: Step(name, settings, torch.device("cpu")))


if __name__ == "__main__":
    print(main(sys.argv[1], CostSettings(**json.loads(sys.argv[2]))))
