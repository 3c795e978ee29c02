"""Fetch models from the hub: safetensors and JSON files, nothing that may contain code."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from s5mars.errors import MissingFileError, UserError, first_line
from s5mars.files.run_folder import FACTS, TENSORS
from s5mars.models.facts import read_facts

HUB_PREFIX = "hf-hub:"
"""What timm writes before the id of a repository."""

_HUB_ID = re.compile(rf"({HUB_PREFIX})?[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(weights: str) -> bool:
    """Whether ``weights`` may be ``OWNER/NAME`` on the hub, and is no path that exists."""
    return bool(_HUB_ID.fullmatch(weights)) and not Path(weights).exists()


def hub_folder(name: str, patterns: Collection[str], *, remedy: str) -> Path:
    """Download files of a repository, or find them in the local cache.

    Args:
        name: ``OWNER/NAME``, see ``is_hub_id``.
        patterns: files to download.
        remedy: what the user can do if this fails, for the error message.

    Raises:
        MissingFileError: if the name is invalid or unknown, or the hub cannot be reached.
    """
    repository = name.removeprefix(HUB_PREFIX)
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise MissingFileError(
            f"{repository}: no such file or folder, and it cannot be downloaded from the hub "
            f"({first_line(error)}); {remedy}"
        ) from error


def fetch_checkpoint(name: str) -> Path:
    """Download a checkpoint that ``s5mars push`` uploaded, or find it in the local cache.

    The JSON file comes first, to reject other repositories before their weights are fetched.

    Args:
        name: ``OWNER/NAME``, or ``OWNER/NAME@REVISION`` for a branch, tag or commit.

    Returns:
        The safetensors file in the cache, with its JSON file next to it.

    Raises:
        MissingFileError: if the model or revision does not exist or is not accessible, or the hub
            cannot be reached and the cache does not contain it.
        UserError: if the name is invalid, or the repository has no checkpoint of this format.
    """
    repository, _, revision = name.partition("@")
    try:
        facts = _download(repository, FACTS, revision or None)
        read_facts(facts.with_suffix(".safetensors"))
        return _download(repository, TENSORS, revision or None)
    except HFValidationError as error:
        raise UserError(f"hf:{name} is not a valid name; write hf:OWNER/NAME") from error
    except GatedRepoError as error:
        raise MissingFileError(f"hf:{name} is gated; request access on its page") from error
    except RepositoryNotFoundError as error:
        raise MissingFileError(
            f"{repository} does not exist on the hub, or it is private and you are not logged in "
            "(`hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise MissingFileError(f"{repository} has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise MissingFileError(
            unreachable(f"and {repository} is not in the local cache")
        ) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"hf:{name} has no {TENSORS} and {FACTS}; it was not uploaded by `s5mars push`"
        ) from error
    except (HfHubHTTPError, ConnectionError) as error:
        raise MissingFileError(unreachable(first_line(error))) from error


def unreachable(reason: str) -> str:
    """Error message for a hub that does not answer."""
    return f"the hub at {constants.ENDPOINT} cannot be reached, {reason}"


def _download(repository: str, file: str, revision: str | None) -> Path:
    return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
