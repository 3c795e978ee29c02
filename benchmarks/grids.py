"""Run the grids of ``grids.yaml`` in turn; the same command continues after an interruption.

    python benchmarks/grids.py --data FOLDER --out FOLDER --results docs/results --jobs 2 [NAME ...]

Each grid is an ``s5mars compare`` in a separate folder below ``--out``. After every finished cell,
``comparison.json`` is copied to ``--results`` together with the commit of the code. The cells that
it contains also count as finished on another machine. ``take`` in the list of grids names a row
whose scores are taken from another grid.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
LOOK_SECONDS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="Grids to run (default: all, in the order of the file)"
    )
    parser.add_argument(
        "--grids", type=Path, default=HERE / "grids.yaml", help="Path to the list of grids"
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the runs")
    parser.add_argument("--results", type=Path, required=True, help="Folder of the JSON files")
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        help="Number of cells that run at once, with one thread each (default: 2)",
    )
    options = parser.parse_args()
    listed = yaml.safe_load(options.grids.read_text(encoding="utf-8"))
    known = [grid["name"] for grid in listed["grids"]]
    if unknown := set(options.names) - set(known):
        parser.error(f"no grid {', '.join(sorted(unknown))}; grids: {', '.join(known)}")
    failed = 0
    for grid in listed["grids"]:
        if not options.names or grid["name"] in options.names:
            failed += run(grid, listed["common"], options) != 0
    return int(failed > 0)


def run(grid: dict[str, Any], common: str, options: argparse.Namespace) -> int:
    """Run one grid and return its exit code."""
    out, kept = options.out / grid["name"], options.results / f"{grid['name']}.json"
    if kept.is_file() and not out.exists():
        out.mkdir(parents=True)
        shutil.copy(kept, out / "comparison.json")  # measured on another machine
    elif "take" in grid and not out.exists():
        out.mkdir(parents=True)
        take(out / "comparison.json", options.results, **grid["take"])
    command = [
        sys.executable, "-m", "s5mars", "compare", "--data", str(options.data / grid["data"]),
        "--out", str(out), "--jobs", str(options.jobs), "--note", f"commit {commit()}",
        *shlex.split(f"{common} {grid['options']} {grid.get('more', '')}"),
    ]  # fmt: skip
    print(shlex.join(command), flush=True)
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        keep(out / "comparison.json", kept)
    keep(out / "comparison.json", kept)
    return process.returncode


def take(comparison: Path, results: Path, *, row: str, of: str) -> None:
    """Begin a comparison with the scores of a row of another grid, which is not trained again.

    ``s5mars compare`` refuses to continue it if settings, labels or images are not the same.
    """
    content = json.loads((results / f"{of}.json").read_text(encoding="utf-8"))
    content["rows"] = {row: content["rows"][row]}
    content["cells"] = [cell for cell in content["cells"] if cell["row"] == row]
    comparison.write_text(json.dumps(content), encoding="utf-8")


def keep(comparison: Path, kept: Path) -> None:
    """Copy the file if a cell has finished since the last copy."""
    if comparison.is_file() and ended(comparison) != (ended(kept) if kept.is_file() else {}):
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(".tmp")
        shutil.copy(comparison, temporary)
        temporary.replace(kept)


def ended(comparison: Path) -> dict[tuple[str, str, int], str]:
    """How each finished cell has ended: one that had failed may be done the next time."""
    cells = json.loads(comparison.read_text(encoding="utf-8"))["cells"]
    return {
        (cell["row"], cell["share"], cell["seed"]): cell["status"]
        for cell in cells
        if cell["status"] in ("done", "failed")
    }


def commit() -> str:
    """Commit of the code."""
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
