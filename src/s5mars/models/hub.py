"""Models of the hub: two files are asked for, safetensors and JSON; nothing else is fetched."""

from __future__ import annotations

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
from s5mars.models.checkpoint import read_facts

TENSORS, FACTS = "best.safetensors", "best.json"


def fetch_checkpoint(name: str) -> Path:
    """Download a checkpoint that ``s5mars push`` uploaded, or find it in the hub's cache.

    The JSON comes first: a repository of another kind is refused before its weights are fetched.

    Args:
        name: ``OWNER/NAME``, or ``OWNER/NAME@REVISION`` for a branch, tag or commit.

    Returns:
        The safetensors file in the cache, with its JSON beside it.

    Raises:
        MissingFileError: if there is no such model or revision, it may not be read, or neither
            the hub can be reached nor the cache holds it.
        UserError: if the name is none, or the repository holds no checkpoint of this format.
    """
    repository, _, revision = name.partition("@")
    try:
        facts = _download(repository, FACTS, revision or None)
        read_facts(facts.with_suffix(".safetensors"))
        return _download(repository, TENSORS, revision or None)
    except HFValidationError as error:
        raise UserError(f"hf:{name} is no name of a model: write hf:OWNER/NAME") from error
    except GatedRepoError as error:
        raise MissingFileError(
            f"hf:{name} may only be read by those its owner lets in: ask on its page"
        ) from error
    except RepositoryNotFoundError as error:
        raise MissingFileError(
            f"no model {repository} on the hub, or it is private and you are not logged in "
            "(`hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise MissingFileError(f"{repository} has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise MissingFileError(unreachable(f"and no copy of {repository} is here")) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"hf:{name} holds no {TENSORS} with its {FACTS}: not a model of `s5mars push`"
        ) from error
    except (HfHubHTTPError, ConnectionError) as error:
        raise MissingFileError(unreachable(first_line(error))) from error


def unreachable(reason: str) -> str:
    """What to say when the hub does not answer."""
    return f"the hub at {constants.ENDPOINT} cannot be reached, {reason}"


def _download(repository: str, file: str, revision: str | None) -> Path:
    return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
