"""The help of ``s5mars train``."""

from __future__ import annotations

import re
from argparse import SUPPRESS
from collections.abc import Sequence

from s5mars.settings.argument_parser import Parser
from s5mars.settings.parsing import chosen, training_parser

_AUTOMATIC = ("out", "model", "resolution", "crop", "steps")
"""Options that ``s5mars train`` chooses if they are not given (``training/automatic.py``)."""

_IN_SHORT_HELP = {
    "help", "config", "method", "recipe", "out", "seed", "folds", "splits", "labelled", "pool",
    "resolution", "crop", "model", "start_from", "steps", "batch", "keep",
}  # fmt: skip


def help_of_training(arguments: Sequence[str]) -> str:
    """The help of ``s5mars train``: what most users need, or everything with ``--help-all``.

    With ``--method``, the options of the method are there, too.
    """
    with_method = any(word.split("=")[0] == "--method" for word in arguments)
    parser = training_parser(
        [word for word in arguments if word != "--help-all"], with_method=with_method
    )
    parser.usage = "s5mars train FOLDER [options] | s5mars train --resume RUN"
    for action in parser._actions:
        if action.dest in _AUTOMATIC:
            action.default, action.required = SUPPRESS, False
            action.help = f"{action.help} Chosen from the machine and the data if not given."
    if "--help-all" in arguments:
        return _readable(parser)
    method = f"{chosen(arguments).method}."
    for action in parser._actions:
        if action.dest not in _IN_SHORT_HELP and not action.dest.startswith(method):
            action.help = SUPPRESS
    parser.epilog = f"--help-all shows all options.\n\n{parser.epilog}"
    return _readable(parser)


def _readable(parser: Parser) -> str:
    """The help without the markup of docstrings and the names of Python types."""
    for action in parser._actions:
        if action.help and action.help != SUPPRESS:
            action.help = action.help.replace("``", "")
    epilog, parser.epilog = parser.epilog, None
    text = str(parser.format_help())
    default = r"(?:,\s+default:\s+(?P<default>[^()]*|\([^()]*\)))?"
    text = re.sub(rf"\s*\(type:\s+[^()]*?{default}\)", _shown_default, text)
    text = re.sub(r"\s*\(required, type:[^()]*\)", " Required.", text)
    return f"{text.rstrip()}\n\n{epilog}"


def _shown_default(found: re.Match[str]) -> str:
    default = " ".join((found["default"] or "").split()).strip("()")
    # None and an empty text are explained by the help itself.
    return f" ({default})" if default not in {"", "null", "None"} else ""
