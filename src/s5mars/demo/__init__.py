"""The data of the demo; ``demo.run`` runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from s5mars.errors import UserError

DATA = Path(__file__).with_name("navcam")
"""60 Navcam images at 256×256 with crowd labels: 12 labelled for training, 20 without labels, 8 for
validation and 20 for the test. No site and drive is in two of these groups, and the installed model
was trained on none of them."""


def demo_data(out: str | Path) -> Path:
    """Copy the 60 Navcam images of the package, their masks and their split lists to a new folder.

    Raises:
        UserError: if ``out`` contains files.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another folder")
    shutil.copytree(DATA, out, dirs_exist_ok=True)
    return out
