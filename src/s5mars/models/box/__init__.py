"""Models that are installed with the package and opened by name, such as ``navcam``.

Each folder here is one: ``best.safetensors`` and ``best.json``, as training writes them but in half
precision, and ``card.md``. Only ``benchmarks/box.py`` writes here.
"""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from s5mars.files.run_folder import TENSORS

BOX = Path(__file__).parent
DEFAULT = "navcam"
"""The model that ``s5mars predict`` uses if none is given."""

CARD = "card.md"


def installed() -> list[str]:
    """Names of the installed models."""
    return sorted(path.parent.name for path in BOX.glob(f"*/{TENSORS}"))


def contains(path: Path) -> bool:
    """Whether a file or folder lies among the installed models, where nothing may be written."""
    return path.resolve().is_relative_to(BOX.resolve())


def installed_folder(name: str | PathLike[str]) -> Path | None:
    """Folder of an installed model, or None if no model has this name."""
    text = fspath(name)
    return BOX / text if text in installed() else None
