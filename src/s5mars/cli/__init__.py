"""The command line: each command parses its options and calls one function.

Heavy modules are imported only when a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from s5mars.cli import archive, data, export, grids, labels, masks, models
from s5mars.cli.train import ABOUT, EXAMPLE, train
from s5mars.errors import UserError, raised_message
from s5mars.files import has_remedy

USER_ERROR = 2
INTERRUPTED = 130

COMMANDS = (
    data.COMMANDS
    | labels.COMMANDS
    | masks.COMMANDS
    | models.COMMANDS
    | archive.COMMANDS
    | export.COMMANDS
    | grids.COMMANDS
)

_ORDER = (
    "demo", "demo-data", "fetch", "synth", "import", "label", "stats", "split", "show", "masks",
    "train", "evaluate", "predict", "export-labels", "models", "find", "calibrate", "report",
    "export", "push", "compare", "table", "cost",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its errors are reported as ``exit_code`` does."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _dispatch(given))


def exit_code(work: Callable[[], int]) -> int:
    """Run a function; a UserError becomes one line on standard error and exit code 2.

    So does an OSError that the user can remedy, such as a full disk. Any other exception is a bug
    and shows its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for any locale and any file name
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if logging.lastResort is not None:  # it prints what is logged while nobody has set up logging
        logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))
    try:
        return work()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe: nothing may be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        remedy = isinstance(error, UserError) or has_remedy(error)
        if not remedy or os.environ.get("S5MARS_TRACEBACK"):
            raise
        print(f"s5mars: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as interrupted:
        details = f"; {interrupted}" if str(interrupted) else ""
        print(f"s5mars: interrupted{details}", file=sys.stderr)
        return INTERRUPTED
    except (ImportError, SystemError) as error:
        if not _is_interrupted(error):
            raise
        print("s5mars: interrupted", file=sys.stderr)
        return INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_overview())
        return 0
    if arguments[0] == "--version":
        from s5mars import __version__

        print(f"s5mars {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "train":
        return train(rest)
    if name not in COMMANDS:
        near = _nearest(name.lower())
        hint = f"; nearest: {near}" if near else ""
        raise UserError(f"unknown command {name!r}{hint}; all: {', '.join(_ORDER)}")
    COMMANDS[name].call(name, rest)
    return 0


def _nearest(name: str) -> str | None:
    """The command that a misspelt or shortened name means, if one is near."""
    begun = [other for other in _ORDER if other.startswith(name) or name.startswith(other)]
    swapped = [other for other in _ORDER if sorted(other) == sorted(name)]
    alike = difflib.get_close_matches(name, _ORDER, n=1, cutoff=0.7)
    return next(iter([*begun, *swapped, *alike]), None)


def _overview() -> str:
    width = max(len(name) for name in _ORDER)
    lines = ["s5mars: terrain maps from Mars rover images with few, sparse labels", ""]
    shown = {"train": (ABOUT, EXAMPLE)} | {
        name: (command.about, command.example) for name, command in COMMANDS.items()
    }
    for name in _ORDER:
        about, example = shown[name]
        lines += [f"  {name:<{width}}  {about}", f"  {'':<{width}}    {example}"]
    lines += ["", "Run s5mars COMMAND --help for the options of a command."]
    return "\n".join(lines)


def _is_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C has caused an error, as during the import of a module in C."""
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, KeyboardInterrupt):
        chain = chain.__cause__ or chain.__context__
    return chain is not None


def _one_line(error: BaseException) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        where = Path(str(error.filename))  # perhaps below the file
        in_the_way = next((p for p in (where, *where.parents) if p.is_file()), where)
        return f"{in_the_way} exists and is a file: remove it, or choose another name"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = (line.strip() for line in raised_message(str(error)).splitlines())
    return " ".join(filter(None, lines)) or type(error).__name__
