"""The ``train`` command: from its arguments to a run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from s5mars.errors import UserError
from s5mars.files.run_folder import CONFIG
from s5mars.settings.parsing import given, parse_training, training_from_yaml
from s5mars.settings.used import require_used
from s5mars.training import run
from s5mars.training.automatic import complete, with_choice
from s5mars.training.environment import processes
from s5mars.training.folds import cross_validate, resume_folds
from s5mars.training.signals import Ended
from s5mars.types import Method


def train(
    arguments: Sequence[str], *, own: Method | None = None, one_process: bool = False
) -> Ended:
    """Train a run from the arguments of ``s5mars train``.

    What is not given is chosen. With ``one_process`` no further processes, which would have to
    repeat the command, are started; ``own`` is as for ``settings.parsing.parse_training``.

    Raises:
        UserError, MissingFileError: if settings or data are wrong.
    """
    completed, chosen = complete(arguments, own=own)
    settings = parse_training(completed, own=own)
    require_used(settings.config, {settings.config.method: settings.method.needs})
    run.quieten_lightning()
    if one_process and processes(settings.config) > 1:
        if given(arguments, ["devices", "num-nodes"]):
            raise UserError(
                "training from Python takes one process: leave out devices and num_nodes, or use "
                "the command s5mars train"
            )
        completed.append("--devices=1")
        chosen = with_choice(chosen, completed[-1], "training from Python takes one process")
        settings = parse_training(completed, own=own)
    if sys.argv[1:2] == ["train"]:
        # Further processes of a distributed run are started with the same choices.
        sys.argv[1:] = ["train", *completed]
    begin = cross_validate if settings.config.folds else run.train
    return begin(settings.config, settings.method, config_text=settings.text, chosen=chosen)


def resume(
    folder: Path,
    *,
    data: Path | None = None,
    skip_bad: bool = False,
    own: Method | None = None,
) -> Ended:
    """Resume a run, whose data may be at ``data`` now; arguments and errors as ``train``.

    With ``skip_bad``, damaged images of the pool are left out from now on.
    """
    settings = training_from_yaml(folder / CONFIG, own=own)
    go_on = resume_folds if settings.config.folds else run.resume
    return go_on(folder, settings.config, settings.method, data=data, skip_bad=skip_bad)
