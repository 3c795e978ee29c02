"""Whatever ends a run, at any moment: going on ends with the same files as an unbroken run."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from apart import start_command
from s5mars.cli import main
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict.archive import predict_images
from s5mars.predict.manifest import Counts, Manifest
from s5mars.predict.predictor import Predictor, load
from s5mars.products.files import state_of

from .folders import archive, contents, save
from .standin import THREE, Brightness, Convolutions

pytestmark = pytest.mark.usefixtures("readers_here")

KINDS = ["labels", "confidence", "overlay", "rle"]


def predict(archive_folder: Path, out: Path, **settings: Any) -> Counts:
    predictor = Predictor(Brightness(), THREE)
    settings = {"write": KINDS, "skip_bad": True, **settings}
    return predict_images(predictor, [archive_folder], out=out, **settings).counts


def in_a_child(work: Callable[[], object]) -> int:
    """How a forked process ended that did some work: 0, or minus its signal."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(moment: int, work: Callable[[], object]) -> int:
    """Do some work that is killed before, inside or after its writes, counted together."""
    left = [moment]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def patched() -> None:
        write, replace, record = Path.write_bytes, Path.replace, Manifest._record

        def slow_write(path: Path, content: bytes) -> int:
            write(path, bytes(content)[:5])
            tick()
            return write(path, content)

        def slow_replace(path: Path, target: Path) -> Path:
            tick()
            return replace(path, target)

        def slow_record(manifest: Manifest, *arguments: Any) -> None:
            tick()
            record(manifest, *arguments)
            tick()

        Path.write_bytes, Path.replace = slow_write, slow_replace  # type: ignore[assignment]
        Manifest._record = slow_record  # type: ignore[method-assign]
        work()

    return in_a_child(patched)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("unbroken")
    products = archive(folder / "in", products=3)
    assert predict(products, folder / "maps") == Counts(done=3, failed=1, to_do=0)
    return products, contents(folder / "maps")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_moment(unbroken: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    products, expected = unbroken
    ends = []
    for moment in range(0, 40, 3):
        out = tmp_path / str(moment)
        ends.append(killed_at(moment, lambda out=out: predict(products, out)))
        predict(products, out, resume=True)
        assert contents(out) == expected, f"killed at moment {moment}"
    assert ends[0] == -signal.SIGKILL and ends[-1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again(unbroken: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    products, expected = unbroken
    ended, kills = 1, 0
    while ended:
        ended = killed_at(
            7 + kills, lambda: predict(products, tmp_path / "maps", resume=True, workers=3)
        )
        kills += 1
        assert kills < 30
    assert kills > 2 and contents(tmp_path / "maps") == expected


def test_killed_from_outside_and_resumed_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real command, a real network, a real kill -9."""
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv3_small_050", 3, weights="none").eval()
    run = tmp_path / "run"
    save_model(run / "best.safetensors", {"student": network}, taxonomy=THREE, training={})
    products = archive(tmp_path / "in", products=40)
    words = ["predict", str(run), str(products), "--skip-bad", "--write", "labels,rle"]
    words += ["--device", "cpu", "--window", "64"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    child = start_command([*words, "--out", str(broken)])
    while len(list(broken.rglob("*.json"))) < 5:
        assert child.is_alive()
        time.sleep(0.01)
    child.kill()
    child.join()
    assert not (broken / "index.parquet").exists()
    assert main([*words, "--out", str(broken), "--resume"]) == 0
    assert "40 done, 1 failed, 0 to do; first failure: " in capsys.readouterr().out
    predictor = load(run, window=64)
    predict_images(predictor, [products], out=whole, write=["labels", "rle"], skip_bad=True)
    assert contents(broken) == contents(whole)


def test_an_interrupt_leaves_an_index_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = archive(tmp_path / "in")
    record = Manifest.record_done

    def interrupt(manifest: Manifest, *arguments: Any) -> None:
        record(manifest, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "record_done", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"1 done, 0 failed, 6 to do.*--resume"):
            predict(products, tmp_path / "maps")
    assert (tmp_path / "maps/index.parquet").is_file()
    with pytest.raises(ValueError, match=r"unfinished run \(1 done.*--resume"):
        predict(products, tmp_path / "maps")
    assert predict(products, tmp_path / "maps", resume=True) == Counts(6, 1, 0)


def test_failed_and_new_products_and_lost_files_are_made_when_going_on(tmp_path: Path) -> None:
    products = archive(tmp_path / "in")
    predict(products, tmp_path / "maps")
    save(products / "sol2/bad.jpg")
    save(products / "sol0/b.png")
    (tmp_path / "maps/sol1/a_rle.json").unlink()
    stamp = (tmp_path / "maps/sol3/a.png").stat().st_mtime_ns
    assert predict(products, tmp_path / "maps", resume=True) == Counts(8, 0, 0)
    assert (tmp_path / "maps/sol1/a_rle.json").is_file()
    assert (tmp_path / "maps/sol3/a.png").stat().st_mtime_ns == stamp
    predict(products, tmp_path / "anew")
    assert contents(tmp_path / "maps") == contents(tmp_path / "anew")


def test_images_that_changed_are_predicted_again_and_lost_ones_are_counted(
    tmp_path: Path,
) -> None:
    products, out = archive(tmp_path / "in", products=4), tmp_path / "maps"
    before = predict(products, out, write=["labels"])
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    changed = save(products / "sol0/a.png", size=(40, 36), grey=200)
    (products / "sol3/a.png").unlink()
    predictor = Predictor(Brightness(), THREE)
    settings: dict[str, Any] = {"write": ["labels"], "skip_bad": True, "resume": True}
    summary = predict_images(predictor, [products], out=out, **settings)
    assert summary.counts == before
    gone = f"1 product of the index is no longer among the images; the first: {products}/sol3/a.png"
    assert str(summary).endswith(f"\n{gone}")
    again = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert again == [out / "sol0/a.png"]
    # The time alone, and a manifest that knows no times.
    os.utime(changed, ns=(0, 0))
    with closing(sqlite3.connect(out / "manifest.sqlite")) as database:
        database.execute("UPDATE products SET input = NULL WHERE name = 'sol1/a'")
        database.commit()
    os.utime(products / "sol1/a.png", ns=(0, 0))
    with Manifest(out) as manifest:
        assert manifest._changed() == ["sol0/a"]


@pytest.mark.parametrize("resume", [True, False])
def test_a_changed_image_that_cannot_be_read_loses_its_maps(tmp_path: Path, resume: bool) -> None:
    products, out = archive(tmp_path / "in", products=3), tmp_path / "maps"
    before = predict(products, out)
    names = set(contents(out))
    (products / "sol0/a.png").write_bytes(b"damaged since")
    after = predict(products, out, resume=resume)
    assert (after.done, after.failed) == (before.done - 1, before.failed + 1)
    files = {"sol0/a.png", "sol0/a_confidence.png", "sol0/a_overlay.jpg", "sol0/a_rle.json"}
    assert names - set(contents(out)) == files


@pytest.mark.parametrize("resume", [True, False])
def test_a_map_painted_for_a_product_that_failed_stays(tmp_path: Path, resume: bool) -> None:
    products, out = archive(tmp_path / "in", products=3), tmp_path / "maps"
    predict(products, out)
    painted = out / "sol2/bad.png"
    painted.parent.mkdir(exist_ok=True)
    painted.write_bytes(b"by hand")
    predict(products, out, resume=resume)
    assert painted.read_bytes() == b"by hand"


def test_a_label_beside_its_product_is_a_part_of_the_image(tmp_path: Path) -> None:
    image = tmp_path / "a.IMG"
    image.touch()
    state = state_of(image)
    (tmp_path / "a.LBL").touch()
    assert state_of(image) != state
    assert state_of(tmp_path / "b.IMG") is None


def test_a_finished_folder_takes_more_images_of_the_same_model(tmp_path: Path) -> None:
    images = [save(tmp_path / f"{name}.png") for name in "ab"]
    assert predict(images[0], tmp_path / "maps").done == 1
    assert predict(images[1], tmp_path / "maps").done == 2


def test_another_model_or_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    predict(image, tmp_path / "maps")
    before = contents(tmp_path / "maps")
    with pytest.raises(ValueError, match=r"other settings \(model: \w{16} there, \w{16} now"):
        predict_images(
            Predictor(Convolutions(), THREE), [image], out=tmp_path / "maps", write=KINDS
        )
    for resume in (True, False):
        said = r"; write: confidence,labels,overlay,rle there, labels now\); use the same"
        with pytest.raises(ValueError, match=said):
            predict(image, tmp_path / "maps", write=["labels"], resume=resume)
    with pytest.raises(ValueError, match=r"\(window: 1024 there, 64 now\)"):
        predictor = Predictor(Brightness(), THREE, window=64)
        predict_images(predictor, [image], out=tmp_path / "maps", write=KINDS)
    assert contents(tmp_path / "maps") == before


def test_a_folder_without_any_map_takes_new_settings(tmp_path: Path) -> None:
    bad = tmp_path / "a.png"
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match="no product could be predicted"):
        predict(bad, tmp_path / "maps")
    save(bad)
    assert predict(bad, tmp_path / "maps", write=["labels"]) == Counts(1, 0, 0)


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    with (
        Manifest(tmp_path / "maps"),
        pytest.raises(ValueError, match=r"another run is writing to .*maps"),
    ):
        predict(image, tmp_path / "maps")
    assert predict(image, tmp_path / "maps").done == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    with Manifest(tmp_path / "maps"):
        assert in_a_child(lambda: predict(image, tmp_path / "maps")) == 1
    assert in_a_child(lambda: predict(image, tmp_path / "maps")) == 0


def test_a_name_too_long_fails_alone(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    save(tmp_path / f"in/{'b' * 250}.png")
    predictor = Predictor(Brightness(), THREE)
    summary = predict_images(
        predictor, [tmp_path / "in"], out=tmp_path / "maps", write=["labels"], skip_bad=True
    )
    assert summary.counts == Counts(1, 1, 0)
    assert str(summary.failure) == (
        f"{tmp_path}/in/{'b' * 250}.png: the name of its maps is too long for the file system: "
        "give the image a shorter name"
    )
