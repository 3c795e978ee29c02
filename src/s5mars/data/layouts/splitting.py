"""Splits for a labelled folder that has none: stratified, the same each time, written down."""

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

    Reads every mask once; damaged ones are listed too. The lists do not depend on the machine or
    the time. Neighbouring frames of one place may come apart into two splits: only somebody who
    knows the file names can prevent that, so the message says how to.

    Raises:
        UserError: if fewer than three images have masks, a mask is bad though not damaged, or the
            lists cannot be written.
    """
    labelled = [sample for sample in samples.values() if sample.mask is not None]
    if len(labelled) < 3:
        raise UserError(
            f"{root}: no split lists, and {len(labelled)} image(s) with a mask are too few to "
            "make them from: write splits/train.txt, splits/val.txt and splits/test.txt yourself"
        )
    # A damaged mask counts as one without labels: who opens it decides whether it stops the work.
    areas, _ = label_areas(labelled, coding, len(taxonomy), skip_bad=True)
    order = stratified_order(areas, seed=0)
    trained = min(beginning(len(labelled), SHARES["train"]), len(labelled) - 2)
    train, rest = order[:trained], order[trained:]
    # Again, so that what is left comes apart evenly too.
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
            # Another process of the same run has written the same lists in the meantime.
            if not all((folder / f"{split}.txt").is_file() for split in names):
                raise
    except OSError as error:
        raise UserError(
            f"{root}: has no split lists and they cannot be written to {folder} "
            f"({error.strerror}): make the folder writable, or put links to its images/, masks/ "
            "and dataset.yaml into a new folder and give that one"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    sizes = ", ".join(f"{split} {len(listed)}" for split, listed in names.items())
    logger.warning(
        "%s: no split lists, so stratified ones were made and written there (%s). Where frames "
        "of one place must not come apart, edit them before training.",
        folder,
        sizes,
    )
