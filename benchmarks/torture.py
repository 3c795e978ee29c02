"""Test s5mars with damaged inputs, kills at random moments, concurrent runs and full disks.

    python benchmarks/torture.py [--inputs 1000] [--kills 50] [--seed 0]

Every damaged input is passed to the command line. A command may succeed, or exit with code 2 and
one line on standard error, after warnings if there are any; anything else (an exception, a crash,
half a minute without a result) is a failure, which the output calls bad. A run that was killed has
to resume and end like an uninterrupted one. The last line has the numbers of trials and failures;
the exit code is 1 if there is a failure.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # time limit of one command on tiny files, in seconds
BAR = re.compile(
    r"it/s|\?it|image/s|%\||^Training: |^encoder weights: |^pool: |^warning: |^reading "
)
TRAIN = [
    "--method=s5mars", "--labelled=0.5", "--steps=8", "--batch=2", "--crop=48",
    "--model=test_resnet", "--weights=none", "--workers=0", "--validate-every=4", "--save-every=1",
    "--warm-up=0.25",
]  # fmt: skip
"""Options of a run of a few seconds."""


@dataclass
class Tally:
    """Number of trials, and the failures."""

    tried: int = 0
    bad: list[str] = field(default_factory=list)

    def note(self, what: str, wrong: str) -> None:
        """Count one trial; ``wrong`` describes the failure, or is empty."""
        self.tried += 1
        if wrong:
            self.bad.append(f"{what}: {wrong}")
            print(f"BAD {what}: {wrong}", flush=True)


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--inputs", type=int, default=1000, help="Number of damaged inputs (default: 1000)"
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=50,
        help="Number of kills of train, predict and masks (default: 50)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="Seed of all random choices (default: 0)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in the runs that are killed, which have to give the same
    rng = random.Random(options.seed)
    parts: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        make_good(good)
        parts["inputs"] = damaged_inputs(good, Path(folder), options.inputs, rng)
        parts["kills"] = kills(good, Path(folder), options.kills, rng)
        parts["pairs"] = pairs(good, Path(folder))
        parts["disks"] = disks(good, Path(folder))
    for name, tally in parts.items():
        print(f"{name}: tried {tally.tried}, bad {len(tally.bad)}")
    tried = sum(tally.tried for tally in parts.values())
    bad = sum(len(tally.bad) for tally in parts.values())
    print(f"tried {tried} / bad {bad}")
    return int(bad > 0)


def make_good(good: Path) -> None:
    """Create scenes, a run, maps, objects and an ONNX file with the commands."""
    scenes, run = good / "scenes", good / "run"
    for words in (
        ["synth", scenes, "--images", 10, "--size", 64, "--unlabelled", 2],
        ["masks", scenes, "--proposer", "graph", "--out", good / "objects"],
        ["masks", good / "objects", "--export-json", good / "json"],
        ["train", f"--data={scenes}", f"--out={run}", f"--objects={good / 'objects'}", *TRAIN],
        ["predict", run, scenes / "images", "--out", good / "maps"],
        ["evaluate", run, "--data", scenes],
        ["export", run, "--out", good / "model.onnx"],
    ):
        code, said = call([str(word) for word in words])
        if code:
            raise SystemExit(f"{words}: {said}")


def call(words: list[str]) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its standard error without bars."""
    from s5mars.cli import main as s5mars

    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err):
        code = s5mars(words)
    lines = [line for line in re.split(r"[\r\n]", err.getvalue()) if line.strip()]
    return code, "\n".join(line for line in lines if not BAR.search(line))


# damaged inputs --------------------------------------------------------------------------------


def targets(at: Path) -> list[tuple[Path, list[str]]]:
    """Choose a file of the good folder, and a command that reads it."""
    scenes, run, maps = at / "scenes", at / "run", at / "maps"
    image = next((scenes / "images").iterdir())
    stats = ["stats", str(scenes), "--out", str(at / "stats")]
    evaluate = ["evaluate", str(run), "--data", str(scenes)]
    resume = ["train", "--resume", str(run)]
    found = [
        (image, stats),
        (image, ["predict", str(run), str(image), "--out", str(at / "one")]),
        (next((scenes / "masks").iterdir()), stats),
        (next((scenes / "masks").iterdir()), evaluate),
        (scenes / "dataset.yaml", stats),
        (scenes / "splits" / "train.txt", stats),
        (run / "config.yaml", resume),
        (run / "metrics.json", ["report", str(run)]),
        (run / "metrics.json", resume),
        (run / "best.json", evaluate),
        (run / "best.safetensors", evaluate),
        (run / "last.ckpt", resume),
        (maps / "index.parquet", ["find", str(maps), "soil > 0.1"]),
        (maps / "manifest.sqlite", ["predict", str(run), str(scenes / "images"), "--out", str(maps),
                                    "--resume"]),
        (at / "model.onnx", ["evaluate", str(at / "model.onnx"), "--data", str(scenes)]),
    ]  # fmt: skip
    jsons = sorted((at / "json").rglob("*.json")) if (at / "json").is_dir() else []
    if jsons:
        importing = ["masks", "--import-json", str(at / "json"), "--out", str(at / "imported")]
        found.append((jsons[0], importing))
    return [(path, words) for path, words in found if path.is_file()]


def damaged_inputs(good: Path, folder: Path, number: int, rng: random.Random) -> Tally:
    tally = Tally()
    with Worker() as worker:
        for case in range(number):
            at = folder / "case"
            shutil.rmtree(at, ignore_errors=True)
            shutil.copytree(good, at)
            path, words = rng.choice(targets(at))
            path, words = disguised(path, words, rng)
            how = rng.choice(DAMAGES)
            how(path, rng)
            if words[-1] == str(at / "run") and rng.random() < 0.5:
                unfinish(at / "run")
            what = f"input {case}, {how.__name__} of {path.relative_to(at)}, {words[0]}"
            tally.note(what, worker.wrong(words))
    return tally


def disguised(path: Path, words: list[str], rng: random.Random) -> tuple[Path, list[str]]:
    """Replace the image by one of another format in some of the cases."""
    import numpy as np
    from PIL import Image

    if path.parent.name != "images" or rng.random() < 0.4:
        return path, words
    values = np.random.default_rng(rng.randrange(2**32)).integers(0, 4096, (64, 64), np.uint16)
    new = path.with_suffix(rng.choice([".png", ".tif", ".IMG"]))
    path.unlink()
    if new.suffix == ".IMG":
        write_pds(new, values)
    else:
        Image.fromarray(values).save(new)
    return new, [str(new) if word == str(path) else word for word in words]


def write_pds(path: Path, values: Any) -> None:
    """A PDS3 product with an attached label."""
    label = "\r\n".join(
        ["PDS_VERSION_ID = PDS3", "RECORD_TYPE = FIXED_LENGTH", "RECORD_BYTES = 128", "^IMAGE = 9",
         "OBJECT = IMAGE", f"LINES = {len(values)}", f"LINE_SAMPLES = {values.shape[1]}",
         "SAMPLE_TYPE = MSB_UNSIGNED_INTEGER", "SAMPLE_BITS = 16", "BANDS = 1",
         "END_OBJECT = IMAGE", "END", ""]
    ).encode()  # fmt: skip
    path.write_bytes(label.ljust(8 * 128) + values.astype(">u2").tobytes())


def unfinish(run: Path) -> None:
    """Mark a finished run as unfinished, so that its state is read."""
    if not (run / "metrics.json").is_file():
        return  # it is a pipe, or a link to an endless device
    try:
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        metrics["steps"] = 4
        (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    except (OSError, ValueError, TypeError, RecursionError):
        pass  # the file is the damaged one


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 30])):
        if content:
            content[rng.randrange(min(len(content), rng.choice([64, 1024, 10**9])))] ^= (
                1 << rng.randrange(8)
            )
    path.write_bytes(content)


def overwrite(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content) + 1)
    content[start : start + rng.randrange(1, 512)] = rng.randbytes(rng.randrange(512))
    path.write_bytes(content)


EXTREMES = [
    b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"99999999999999999999", b"[1]", b"null", b'"x"',
    b"{}", b"../../x", b"/etc/passwd", b"[" * 5000, b"true", b"1048576", b"\xff\xfe", b"",
]  # fmt: skip


def extreme(path: Path, rng: random.Random) -> None:
    """Replace a number in a text, or some bytes of another file, by extreme values."""
    content = path.read_bytes()
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", content[:200_000]))
    start, end = rng.choice(numbers).span() if numbers else (0, min(4, len(content)))
    path.write_bytes(content[:start] + rng.choice(EXTREMES) + content[end:])


def shuffle_lines(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(rng.randrange(1, 4)):
        if lines:
            lines[rng.randrange(len(lines))] = rng.choice([b"", b"\n", rng.choice(lines)])
    path.write_bytes(b"".join(lines))


def replace_by_something_else(path: Path, rng: random.Random) -> None:
    kind = rng.choice(["empty", "folder", "pipe", "device", "loop", "gone", "random", "nested"])
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "random":
        path.write_bytes(rng.randbytes(5000))
    elif kind == "nested":
        path.write_bytes(
            rng.choice([b"[" * 100_000, b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"])
        )


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    cut, flip, overwrite, extreme, shuffle_lines, replace_by_something_else,
)  # fmt: skip


class Worker:
    """A process that runs commands and is restarted after a crash."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("fork")

    def __enter__(self) -> Worker:
        import s5mars.predict
        import s5mars.training.run  # noqa: F401  loaded once, here

        return self

    def __exit__(self, *error: object) -> None:
        pass

    def wrong(self, words: list[str]) -> str:
        """Run a command and describe its failure; an empty string means none."""
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_answer, args=(words, theirs))
        process.start()
        theirs.close()
        try:
            answer = ours.recv() if ours.poll(PATIENCE) else f"no result in {PATIENCE:.0f} s"
        except EOFError:
            process.join()
            answer = f"crashed, exit code {process.exitcode}"
        process.kill()
        process.join()
        return str(answer)


def _answer(words: list[str], pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        code, said = call(words)
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}"[:300])
        return
    if code == 0 or (code == 2 and said.count("\n") == 0 and said.startswith("s5mars: ")):
        pipe.send("")
    else:
        pipe.send(f"exit code {code}: {said[:300]!r}")


# kills -----------------------------------------------------------------------------------------


def kills(good: Path, folder: Path, number: int, rng: random.Random) -> Tally:
    """Kill train, predict and masks at random moments; the resumed commands have to succeed."""
    tally = Tally()
    scenes, run = good / "scenes", good / "run"
    expected = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["history"]
    for case in range(number):
        out = folder / f"killed-{case}"
        kind = ("train", "predict", "masks")[case % 3]
        if kind == "train":
            first = ["train", f"--data={scenes}", f"--out={out}",
                     f"--objects={good / 'objects'}", *TRAIN]  # fmt: skip
        elif kind == "predict":
            first = ["predict", str(run), str(scenes / "images"), "--out", str(out)]
        else:
            first = [
                "masks",
                str(scenes),
                "--proposer",
                "graph",
                "--out",
                str(out),
                "--workers",
                "1",
            ]
        killed = started(first)
        time.sleep(rng.uniform(0, 12 if kind == "train" else 9))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        again = first
        if kind == "train" and (out / "config.yaml").is_file():
            again = ["train", "--resume", str(out)]
        elif kind == "predict" and (out / "manifest.sqlite").is_file():
            again = [*first, "--resume"]
        ended = started(again)
        _, said = ended.communicate(timeout=10 * PATIENCE)
        wrong = "" if ended.returncode == 0 else f"exit code {ended.returncode}: {said[-300:]!r}"
        if kind == "train" and not wrong:
            history = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["history"]
            wrong = "" if history == expected else "the history differs from an uninterrupted run"
        tally.note(f"kill {case} of {kind}", wrong)
        shutil.rmtree(out, ignore_errors=True)
    return tally


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "s5mars", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


# pairs and disks -------------------------------------------------------------------------------


def pairs(good: Path, folder: Path) -> Tally:
    """Run the same command twice at once; one has to succeed, the other to name the owner."""
    tally = Tally()
    scenes, out = good / "scenes", folder / "pair"
    words = ["train", f"--data={scenes}", f"--out={out}", *TRAIN, "--steps=40"]
    masks = ["masks", str(scenes), "--proposer", "graph", "--out", str(folder / "pair-objects")]
    predict = [
        "predict",
        str(good / "run"),
        str(scenes / "images"),
        "--out",
        str(folder / "pair-m"),
    ]
    for command in (words, masks, predict):
        both = [started(command), started(command)]
        said = [process.communicate(timeout=20 * PATIENCE)[1] for process in both]
        codes = sorted(process.returncode for process in both)
        last = [text.strip().splitlines()[-1] if text.strip() else "" for text in said]
        well = codes in ([0, 0], [0, 2]) and not any("Traceback" in text for text in said)
        tally.note(f"pair of {command[0]}", "" if well else f"exit codes {codes}: {last}")
    return tally


def disks(good: Path, folder: Path) -> Tally:
    """Test full and read-only disks; one line is printed, and no file is truncated."""
    tally = Tally()
    scenes, run = good / "scenes", good / "run"
    for options, name in (("size=200k", "full"), ("ro", "read-only")):
        with mounted(folder / name, options) as disk:
            if disk is None:
                print(f"{name} disk: skipped, because mounting is not permitted")
                continue
            for words in (
                ["train", f"--data={scenes}", f"--out={disk / 'run'}", *TRAIN],
                ["predict", str(run), str(scenes / "images"), "--out", str(disk / "maps"),
                 "--write", "labels,overlay,confidence"],
                ["masks", str(scenes), "--proposer", "graph", "--out", str(disk / "objects")],
                ["export", str(run), "--out", str(disk / "model.onnx")],
                ["push", str(run), "a/b", "--dry-run", str(disk / "upload")],
            ):  # fmt: skip
                process = started(words)
                _, said = process.communicate(timeout=10 * PATIENCE)
                well = process.returncode in (0, 2) and "Traceback" not in said
                what = f"{words[0]} on a {name} disk"
                tally.note(what, "" if well else f"exit code {process.returncode}: {said[-300:]!r}")
    return tally


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path | None]:
    """Mount a small file system in memory; None if this is not permitted."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True
    )
    if done.returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


if __name__ == "__main__":
    raise SystemExit(main())
