"""Tables of an evaluation, with counts that are easily checked."""

from __future__ import annotations

from s5mars.classes import S5MARS
from s5mars.report.tables import confusion_table


def test_a_share_that_is_not_0_is_not_shown_as_0() -> None:
    classes = {"sky": {"support": 200}, "ridge": {"support": 400}, "soil": {"support": 0}}
    counts = [[199, 1, 0], [1, 399, 0], [0, 0, 0]]
    table = confusion_table({"classes": classes, "confusion": counts}, S5MARS)
    assert table is not None
    texts = [[cell["text"] for cell in row["cells"]] for row in table["rows"]]
    assert texts == [["100", "<1", "0"], ["<1", "100", "0"], ["–", "–", "–"]]
