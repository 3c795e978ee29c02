"""Creates stratified, deterministic split lists for a labelled folder without them."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from s5mars.classes import MaskCoding, Taxonomy
from s5mars.data.layouts.files import read_names, select
from s5mars.data.names import as_lines
from s5mars.data.stratify import beginning, label_areas, stratified_order
from s5mars.errors import UserError
from s5mars.files import write_text
from s5mars.types import Sample

SHARES = {"train": 0.7, "test": 0.2}  # the rest is "val"

logger = logging.getLogger("s5mars")


def stratified_splits(
    root: Path, samples: Mapping[str, Sample], taxonomy: Taxonomy, coding: MaskCoding
) -> dict[str, tuple[Sample, ...]]:
    """Split the labelled images 70 / 10 / 20 by label distribution; write ``root/splits/*.txt``.

    Reads every mask once; images with damaged masks are listed too. The lists do not depend on the
    machine or the time. Neighbouring frames of one place may be in different splits, which only
    the user can prevent; the warning says how.

    Raises:
        UserError: If fewer than three images have masks, a mask is bad but not damaged, or the
            lists cannot be written.
    """
    labelled = [sample for sample in samples.values() if sample.mask is not None]
    if len(labelled) < 3:
        raise UserError(
            f"{root} has no split lists, and {len(labelled)} image(s) with a mask are too few to "
            "create them: write splits/train.txt, splits/val.txt and splits/test.txt yourself"
        )
    # A damaged mask counts as unlabelled; code that needs it later raises or skips.
    areas, _ = label_areas(labelled, coding, len(taxonomy), skip_bad=True)
    order = stratified_order(areas, seed=0)
    trained = min(beginning(len(labelled), SHARES["train"]), len(labelled) - 2)
    train, rest = order[:trained], order[trained:]
    # Again, so that val and test are stratified too.
    rest = rest[stratified_order(areas[rest], seed=0)]
    tested = min(beginning(len(labelled), SHARES["test"]), len(rest) - 1)
    positions = {"train": train, "val": rest[tested:], "test": rest[:tested]}
    names = {split: [labelled[i].name for i in sorted(at)] for split, at in positions.items()}
    _write(root, names)
    lists = {split: root / "splits" / f"{split}.txt" for split in names}
    return {split: select(read_names(path), samples, path) for split, path in lists.items()}


def _write(root: Path, names: Mapping[str, list[str]]) -> None:
    folder = root / "splits"
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".splits-", dir=root))
        temporary.chmod(0o755)
        for split, listed in names.items():
            write_text(temporary / f"{split}.txt", as_lines(listed))
        try:
            os.replace(temporary, folder)  # noqa: PTH105
        except OSError:
            # Another process of the same run may have written the same lists.
            if not all((folder / f"{split}.txt").is_file() for split in names):
                raise
    except OSError as error:
        raise UserError(
            f"{root} has no split lists, and they cannot be written to {folder} "
            f"({error.strerror}): make the folder writable, or use a new folder with links to its "
            "images/, masks/ and dataset.yaml"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    sizes = ", ".join(f"{split} {len(listed)}" for split, listed in names.items())
    logger.warning(
        "%s: stratified split lists were created (%s). If frames of one place must stay in one "
        "split, edit the lists before training.",
        folder,
        sizes,
    )
