"""What kills its reader costs one product; what kills the run twice is left out at last."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from crashing import start_fragile_reader
from s5mars.cli import main
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict import archive as archive_module
from s5mars.predict.archive import predict_images
from s5mars.predict.manifest import DEATHS, Counts, Manifest
from s5mars.predict.predictor import Predictor
from s5mars.predict.reading import Readers
from s5mars.predict.sources import Source

from .folders import archive, contents, save
from .standin import THREE, Brightness
from .test_resume import in_a_child


def states(out: Path) -> dict[str, tuple[str, str | None]]:
    with Manifest(out) as manifest:
        return {e.source.name: (e.state, e.reason) for e in manifest.entries()}


def test_a_product_that_crashes_its_reader_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = DeepLabV3Plus("mobilenetv3_small_050", 3, weights="none").eval()
    run, out = tmp_path / "run", tmp_path / "maps"
    save_model(run / "best.safetensors", {"student": network}, taxonomy=THREE, training={})
    words = ["predict", str(run), "--out", str(out), "--write", "labels", "--device", "cpu"]
    good = archive(tmp_path / "good", products=4)
    bad = [save(tmp_path / "bad" / name) for name in ("abort.png", "memory.png")]
    fragile = partial(Readers, start=start_fragile_reader)
    monkeypatch.setattr(archive_module, "Readers", fragile)

    assert main([*words, str(good), str(tmp_path / "bad")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "4 done, 3 failed, 0 to do" in said and str(bad[0]) in said

    found = states(out)
    reasons = {name: reason for name, (state, reason) in found.items() if state == "failed"}
    assert set(reasons) == {"abort", "memory", "sol2/bad"}
    assert f"{bad[0]}: the reader crashed (its process was ended by SIGABRT): replace it" in str(
        reasons["abort"]
    )
    assert "SIGKILL, perhaps out of memory" in str(reasons["memory"])

    # Read by a better decoder, they are products like all others.
    monkeypatch.undo()
    assert main([*words, str(good), str(tmp_path / "bad"), "--resume", "--skip-bad"]) == 0
    again = tmp_path / "again"
    words[3] = str(again)
    assert main([*words, str(good), str(tmp_path / "bad"), "--skip-bad"]) == 0
    assert contents(out) == contents(again)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_product_over_which_the_run_dies_twice_is_left_out(tmp_path: Path) -> None:
    products = archive(tmp_path / "in", products=5)
    out = tmp_path / "maps"

    def predict(**settings: bool) -> Counts:
        return predict_images(
            Predictor(Brightness(), THREE), [products], out=out, write=["labels"], skip_bad=True,
            **settings,
        ).counts  # fmt: skip

    def deadly() -> None:
        begin = Manifest.begin_reading

        def begin_reading(manifest: Manifest, name: str) -> None:
            begin(manifest, name)
            if name == "sol0/a":  # the first one: nothing is done yet
                os.kill(os.getpid(), signal.SIGKILL)

        Manifest.begin_reading = begin_reading  # type: ignore[method-assign]
        predict(resume=True)

    assert in_a_child(deadly) == -signal.SIGKILL
    assert not list(out.rglob("*.png"))
    assert in_a_child(deadly) == -signal.SIGKILL
    assert len(list(out.rglob("*.png"))) == 4  # all others came first
    assert in_a_child(deadly) == 0
    state, reason = states(out)["sol0/a"]
    assert state == "failed" and "sol0/a.png: the run died 2 times while reading this file" in str(
        reason
    )
    assert in_a_child(deadly) == 0  # and it stays so
    assert predict() == Counts(done=5, failed=1, to_do=0)


def test_a_deadly_product_may_have_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    source = Source(Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")), "caf%E9")
    for _ in range(DEATHS):
        with Manifest(tmp_path) as manifest:
            manifest.start([source], {}, resume=True)
            manifest.begin_reading(source.name)
    with Manifest(tmp_path) as manifest:
        manifest.start([source], {}, resume=True)
        (entry,) = manifest.entries("failed")
    assert entry.reason is not None and "/caf%E9.png: the run died 2 times" in entry.reason


def test_what_was_in_hand_when_a_run_died_comes_last(tmp_path: Path) -> None:
    products = archive(tmp_path / "in", products=3)
    out = tmp_path / "maps"
    predictor = Predictor(Brightness(), THREE)

    def predict() -> Counts:
        return predict_images(
            predictor, [products], out=out, write=["labels"], skip_bad=True, resume=True
        ).counts

    predict()
    (out / "sol0/a.png").unlink()
    (out / "sol2/a.png").unlink()
    with Manifest(out) as manifest:
        manifest._reset(["sol0/a", "sol2/a"])
        manifest.begin_reading("sol0/a")
        manifest.end_reading("sol0/a")
    assert predict() == Counts(done=3, failed=1, to_do=0)
    assert (out / "sol0/a.png").stat().st_mtime_ns > (out / "sol2/a.png").stat().st_mtime_ns
    with Manifest(out) as manifest:
        assert manifest.suspects() == []
