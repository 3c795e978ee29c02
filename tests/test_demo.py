"""The demo, made tiny: it renders, trains two methods, scores both, and leaves a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from s5mars.data.synthetic import write_synthetic
from s5mars.demo import DemoSettings, demo

TINY = DemoSettings(labelled=0.5, steps=2, batch=2, crop=48, images=14, size=64)


def test_on_synthetic_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo" / "maps-s5mars").mkdir(parents=True)
    (tmp_path / "demo" / "maps-s5mars" / "old.png").touch()
    (tmp_path / "demo" / ".demo").touch()
    page = demo(tmp_path / "demo", settings=TINY)
    said = capsys.readouterr().out
    assert page.is_file()
    assert "240 of 240 tensors matched" in (tmp_path / "demo/s5mars/best.json").read_text()
    last = said.strip().splitlines()[-5:]
    assert [line.split()[0] for line in last[:2]] == ["supervised", "s5mars"]
    assert "say nothing about Mars" in said
    assert str(page) in said
    assert list((tmp_path / "demo" / "maps-s5mars").rglob("*_overlay.jpg"))
    # It has replaced an earlier one, and another may replace it.
    assert not list(tmp_path.rglob("old.png"))
    assert (tmp_path / "demo" / ".demo").is_file()


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    data = write_synthetic(tmp_path / "scenes", images=14, size=64)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear to me")
    with pytest.raises(ValueError, match="not a demo"):
        demo(tmp_path / "mine", data=data, settings=TINY)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear to me"
