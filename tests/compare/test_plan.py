"""A comparison that was begun by an earlier version goes on."""

from __future__ import annotations

from s5mars.compare.plan import with_later_options

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
