"""A comparison that was begun by an earlier version goes on."""

from __future__ import annotations

from pathlib import Path

from s5mars.compare.plan import with_later_options
from s5mars.compare.settings import same_run
from s5mars.settings.config import TrainConfig

from .handmade import SETTINGS, comparison


def test_options_that_came_later_have_their_default() -> None:
    old = comparison()
    assert "keep" not in old.settings["training"]
    common = {**SETTINGS, "training": {**SETTINGS["training"], "keep": "last"}}
    found = with_later_options(old, common)
    assert found.settings["training"] == {**SETTINGS["training"], "keep": "best"}
    for cell in found.cells:
        assert cell.fingerprint == found.fingerprint(cell.row, cell.share)
        assert cell.fingerprint != old.cells[0].fingerprint
    assert with_later_options(found, found.settings) == found


def test_what_changes_no_result_makes_no_other_run() -> None:
    one = TrainConfig(data=Path("d"), out=Path("o"), steps=3)
    assert not same_run(one, TrainConfig(data=Path("e"), out=Path("p"), steps=3, snapshots=3))
    assert same_run(one, TrainConfig(data=Path("d"), out=Path("o"), steps=4)) == [
        "steps: 4 there, 3 now"
    ]
