"""List the installed models and read their cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.errors import UserError
from s5mars.files.reading import read_text, reading
from s5mars.files.run_folder import TENSORS
from s5mars.models.box import CARD, DEFAULT, installed, installed_folder
from s5mars.models.facts import read_domain, read_facts, read_taxonomy


def list_installed() -> str:
    """A paragraph per installed model: size, classes, data, scores and licence.

    Raises:
        UserError: if the files of a model are damaged.
    """
    names = installed()
    if not names:
        return "No model is installed with this copy of s5mars."
    used = f"\n\n`s5mars predict IMAGES --out maps` uses {DEFAULT}." if DEFAULT in names else ""
    return "\n\n".join(map(_paragraph, names)) + used


def card_of(name: str) -> str:
    """The model card of an installed model, Markdown.

    Raises:
        UserError: if there is no such model.
    """
    folder = installed_folder(name)
    if folder is None:
        raise UserError(
            f"no installed model has the name {name!r}; installed: {', '.join(installed()) or '–'}"
        )
    return read_text(folder / CARD, kind="card").rstrip()


def _paragraph(name: str) -> str:
    folder = installed_folder(name)
    assert folder is not None
    path = folder / TENSORS
    facts = read_facts(path)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    domain = read_domain(facts, path, network="student")
    with reading(path.with_suffix(".json"), kind="description of a model"):
        about: Mapping[str, Any] = facts["about"]
        lines = {
            "classes": ", ".join(read_taxonomy(facts, path).names),
            "network": f"{facts['model']['network']}, {facts['model']['encoder']}",
            "trained on": about["data"] + (f" ({domain.about})" if domain else ""),
            "scores": "; ".join(map(_score, about["scores"])),
            "licence": about["licence"],
        }
    wide = max(map(len, lines))
    rows = [f"  {key:<{wide}}  {value}" for key, value in lines.items()]
    return "\n".join([f"{name}  ({size / 1e6:.1f} MB)", *rows])


def _score(score: Mapping[str, Any]) -> str:
    return (
        f"mIoU {score['mIoU']:.1f} %, pixel accuracy {score['pixel_accuracy']:.1f} % on "
        f"{score['on']}"
    )
