"""The ``push`` command: upload a run to the hub with a model card."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from s5mars.errors import MissingFileError, UserError, first_line
from s5mars.evaluation.calibrate import calibration_file, read_calibration
from s5mars.evaluation.found import find_evaluation, is_outdated, read_evaluation
from s5mars.export.card import LICENCE_FILE, model_card
from s5mars.files import replacing, write_json, write_text
from s5mars.files.reading import read_text
from s5mars.files.run_folder import FACTS, TENSORS
from s5mars.models.checkpoint import load_model
from s5mars.models.facts import checkpoint_path, without_folders
from s5mars.models.hub import unreachable
from s5mars.models.licences import Licence, from_facts

CARD = "README.md"


def push(
    run: str | Path,
    name: str,
    *,
    licence: str | None = None,
    licence_file: str | Path | None = None,
    private: bool = False,
    dry_run: str | Path | None = None,
) -> Path | str:
    """Upload the weights of a run and a model card, so that ``s5mars.load("hf:NAME")`` works.

    This uploads ``best.safetensors``, its JSON file (local paths are reduced to their last
    component), ``README.md``, and ``calibration.json`` and the evaluation if they exist.

    Args:
        run: a run folder or a checkpoint.
        name: ``OWNER/NAME``; created on the hub if it does not exist.
        licence: licence of the weights for the card, such as ``apache-2.0``.
        licence_file: its text, which is uploaded as ``LICENSE.md``. Weights made from those of
            DINOv3 need it: its licence passes on to them.
        dry_run: folder to write the files to, without uploading them.

    Returns:
        The folder of a dry run, or the URL of the commit.

    Raises:
        MissingFileError: if the run is missing, there is no token, or the hub cannot be reached.
        UserError: if the name is invalid, the checkpoint is damaged or has another format, the hub
            refuses the upload, or the folder of a dry run is not empty.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"{name!r} is not a valid name; write OWNER/NAME") from error
    if "/" not in name:
        raise UserError(f"{name!r} has no owner; write OWNER/NAME")
    if dry_run is not None:
        folder = Path(dry_run)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not empty; choose another folder for --dry-run")
        write_folder(run, name, folder, licence=licence, licence_file=licence_file)
        print(f"{folder} contains the files that would be uploaded as {name}")
        return folder
    if not huggingface_hub.get_token():
        raise MissingFileError(
            "there is no hub token; run `hf auth login` or set HF_TOKEN (--dry-run DIR needs none)"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_folder(run, name, folder, licence=licence, licence_file=licence_file)
        address = _upload(folder, name, private=private)
    print(f'{address}\nload it with s5mars.load("hf:{name}")')
    return address


def write_folder(
    run: str | Path,
    name: str,
    folder: Path,
    *,
    licence: str | None = None,
    licence_file: str | Path | None = None,
) -> None:
    """Write the files that ``push`` uploads.

    Args:
        run: a run folder or a checkpoint.
        name: ``OWNER/NAME``, for the card.

    Raises:
        MissingFileError: if there is no checkpoint, or no such licence file.
        UserError: if it is damaged or has another format, or its encoder has a licence that does
            not allow this one.
    """
    tensors = checkpoint_path(Path(run))
    loaded = load_model(tensors)  # fails if `load` could not read it
    _check_licence(from_facts(loaded.facts["training"]), licence, licence_file)
    facts = {**loaded.facts, "training": without_folders(loaded.facts["training"])}
    if facts.get("calibration"):
        facts["calibration"] = {k: without_folders(v) for k, v in facts["calibration"].items()}
    evaluation_file = find_evaluation(tensors.parent)
    if evaluation_file is not None and is_outdated(evaluation_file, tensors):
        print(
            f"{evaluation_file} belongs to other weights or class biases and is left out; run "
            "`s5mars evaluate` again",
            file=sys.stderr,
        )
        evaluation_file = None
    evaluation = None if evaluation_file is None else read_evaluation(evaluation_file)
    calibration = read_calibration(tensors.parent, loaded.facts)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / TENSORS) as temporary:
        shutil.copyfile(tensors, temporary)
    write_json(folder / FACTS, facts)
    if evaluation is not None and evaluation_file is not None:
        protocol = without_folders(evaluation.get("protocol") or {})
        shared = {**without_folders(evaluation), "protocol": protocol}
        write_json(folder / evaluation_file.name, shared)
    if calibration is not None:
        fitted_on = without_folders(calibration["fitted_on"])
        write_json(folder / calibration_file("teacher"), {**calibration, "fitted_on": fitted_on})
    card = model_card(
        name,
        facts,
        loaded.taxonomy,
        evaluation=evaluation,
        calibration=calibration,
        licence=licence,
        domain=loaded.domain,
    )
    write_text(folder / CARD, card)
    if licence_file is not None:
        write_text(folder / LICENCE_FILE, read_text(Path(licence_file)))


def _check_licence(
    encoder: Licence | None, licence: str | None, licence_file: str | Path | None
) -> None:
    if licence_file is not None and not Path(licence_file).is_file():
        raise MissingFileError(f"{licence_file}: no such file; give --licence-file a text file")
    if encoder is None or not encoder.passes_on:
        return
    if licence not in (None, encoder.identifier):
        raise UserError(
            f"--licence is {licence}, but these weights were made from an encoder under "
            f"{encoder.identifier}, which allows no other licence; leave --licence out"
        )
    if licence_file is None:
        raise UserError(
            f"{encoder.identifier} must be shared with the weights; give --licence-file its text, "
            f"which comes with the encoder's weights ({encoder.link})"
        )


def _upload(folder: Path, name: str, *, private: bool) -> str:
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Weights and card of s5mars"
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = first_line(error)
        if status in (401, 403):
            raise UserError(
                f"this token may not write {name} on the hub ({reason}); log in with another "
                "token, or choose a name of your own"
            ) from error
        raise UserError(f"the hub refused the upload of {name} ({reason})") from error
    except Exception as error:
        # Connection errors come from several libraries and have no common class.
        if not any(word in type(error).__name__ for word in ("Connect", "Timeout")):
            raise
        raise MissingFileError(unreachable("so nothing was uploaded")) from error
    return str(commit.commit_url)
