"""The ``train`` command: from its arguments to a run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from s5mars.errors import UserError
from s5mars.settings.parsing import given, parse_training, training_from_yaml
from s5mars.training import run
from s5mars.training.automatic import complete
from s5mars.training.environment import processes
from s5mars.types import Method


def train(
    arguments: Sequence[str], *, own: Method | None = None, one_process: bool = False
) -> Path:
    """Train a run, with the choices that are not given.

    Args:
        arguments: arguments of ``s5mars train``.
        own: method object that ``--method`` names (see ``settings.parsing.parse_training``).
        one_process: whether no further processes can be started, which have to repeat the command.

    Returns:
        The run folder.

    Raises:
        UserError, MissingFileError: if settings or data are wrong.
    """
    completed, chosen = complete(arguments, own=own)
    settings = parse_training(completed, own=own)
    run.quieten_lightning()
    if one_process and processes(settings.config) > 1:
        if given(arguments, ["devices", "num-nodes"]):
            raise UserError(
                "training from Python takes one process: leave out devices and num_nodes, or use "
                "the command s5mars train"
            )
        completed.append("--devices=1")
        chosen += "\n  --devices=1                     training from Python takes one process"
        settings = parse_training(completed, own=own)
    if sys.argv[1:2] == ["train"]:
        # Further processes of a distributed run are started with the same choices.
        sys.argv[1:] = ["train", *completed]
    return run.train(settings.config, settings.method, config_text=settings.text, chosen=chosen)


def resume(folder: Path, *, data: Path | None = None, own: Method | None = None) -> Path:
    """Resume a run.

    Args:
        folder: the run folder.
        data: where its data is now, if it was moved.
        own: object of its method, if the class is not registered.

    Raises:
        UserError, MissingFileError: if the run cannot be resumed.
    """
    settings = training_from_yaml(folder / "config.yaml", own=own)
    return run.resume(folder, settings.config, settings.method, data=data)
