"""Strokes on disk: versions, undo, kills, other programs, and the folder that results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labels.loop_folder import BY, CLASSES, open_store, paint, rectangle, write_images
from s5mars.classes import IGNORE
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_label
from s5mars.errors import DamagedFileError, MissingFileError, UserError
from s5mars.files.locking import locked
from s5mars.labels.loop.folder import STATE, named_classes, open_folder
from s5mars.labels.loop.history import History
from s5mars.labels.loop.patch import KEEP, Patch, read_patch
from s5mars.labels.loop.store import ConflictError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(tmp_path / "folder")


def on_disk(root: Path, name: str) -> np.ndarray:
    with Image.open(root / "masks" / f"{name}.png") as mask:
        return np.array(mask)


# Patches


@given(st.lists(st.sampled_from([KEEP, 0, 1, 255]), min_size=12, max_size=12))
def test_runs_are_read_back(values: list[int]) -> None:
    patch = Patch(2, 1, np.array(values, np.int16).reshape(3, 4))
    again = read_patch(patch.box, patch.runs(), size=(10, 10), allowed=(0, 1, 255))
    assert (again.values == patch.values).all()
    assert again.box == [2, 1, 4, 3]


@pytest.mark.parametrize(
    ("box", "runs"),
    [
        ([0, 0, 5, 4], [20, 0]),  # wider than the image
        ([-1, 0, 2, 2], [4, 0]),
        ([0, 0, 0, 2], [1, 0]),
        ([0, 0, 2, 2], [3, 0]),
        ([0, 0, 2, 2], [5, 0]),
        ([0, 0, 2, 2], [4, 0, 0, 1]),
        ([0, 0, 2, 2], [6, 0, -2, 1]),
        ([0, 0, 2, 2], [4]),
        ([0, 0, 2, 2], []),
        ([0, 0, 2, 2], [4, 7]),
        ([0, 0, 2, 2], [4, True]),
        ([0, 0, 2, 2], [4.0, 0]),
        ([0, 0, 2, 2], [10**30, 0]),
        ([0, 0, 2], [4, 0]),
        ("0022", [4, 0]),
        (None, None),
        ([0, 0, 2, 2], {"0": 1}),
    ],
)
def test_a_wrong_patch_is_refused(box: object, runs: object) -> None:
    with pytest.raises(UserError):
        read_patch(box, runs, size=(4, 4), allowed=(0, 1, 255))


# Strokes


def test_a_stroke_is_in_the_mask_and_in_the_history(root: Path) -> None:
    store = open_store(root)
    assert paint(store, "sol0", 3, 2, 4, 5, 1) == 1
    expected = np.full((48, 64), IGNORE, np.uint8)
    expected[2:7, 3:7] = 1
    assert (on_disk(root, "sol0") == expected).all()
    line = json.loads((root / "labelling/history.jsonl").read_text())
    assert (line["do"], line["image"], line["version"], line["tool"]) == (
        "paint",
        "sol0",
        1,
        "brush",
    )
    assert store.counts["sol0"].tolist() == [0, 20, 0]


def test_undo_and_redo_without_end_and_over_a_restart(root: Path) -> None:
    store = open_store(root)
    masks = [np.full((48, 64), IGNORE, np.uint8)]
    for k in range(30):
        paint(store, "sol0", k, k, 6 + k % 2, 6, k % 3)
        masks.append(on_disk(root, "sol0"))
    store = open_store(root)
    version = store.open("sol0", (48, 64)).version
    assert version == 30
    for k in reversed(range(30)):
        version, patch = store.undo("sol0", version, by=BY)
        assert patch is not None
        assert set(np.unique(patch.values)) <= {KEEP, 0, 1, 2, 255}
        if k:
            assert (on_disk(root, "sol0") == masks[k]).all()
    assert not (root / "masks/sol0.png").exists()
    assert store.undo("sol0", version, by=BY) == (version, None)
    store = open_store(root)  # what was taken back can be repeated after a restart
    version = store.open("sol0", (48, 64)).version
    for k in range(30):
        version, _ = store.redo("sol0", version, by=BY)
        assert (on_disk(root, "sol0") == masks[k + 1]).all()
    assert store.redo("sol0", version, by=BY) == (version, None)
    version, _ = store.undo("sol0", version, by=BY)
    paint(store, "sol0", 0, 40, 2, 2, 0)
    assert store.undoable("sol0") == (30, 0)  # a new stroke ends what could be repeated


def test_undo_changes_nothing_but_the_stroke(root: Path) -> None:
    store = open_store(root)
    paint(store, "sol0", 0, 0, 10, 10, 1)
    version = paint(store, "sol0", 0, 0, 20, 10, 1)  # half of it is painted already
    _, patch = store.undo("sol0", version, by=BY)
    assert patch is not None
    assert (patch.values[:, :10] == KEEP).all() and (patch.values[:, 10:] == IGNORE).all()
    assert (on_disk(root, "sol0")[:10, :10] == 1).all()


def test_another_version_is_a_conflict_and_writes_nothing(root: Path) -> None:
    store = open_store(root)
    paint(store, "sol0", 0, 0, 4, 4, 1)
    before = (root / "masks/sol0.png").read_bytes(), (root / "labelling/history.jsonl").read_bytes()
    with pytest.raises(ConflictError, match="another tab"):
        store.paint("sol0", 0, **rectangle(0, 0, 9, 9, 2), tool="brush", by="you")
    with pytest.raises(ConflictError):
        store.undo("sol0", 0, by="you")
    after = (root / "masks/sol0.png").read_bytes(), (root / "labelling/history.jsonl").read_bytes()
    assert after == before


def test_a_mask_that_another_program_wrote_is_not_overwritten(root: Path) -> None:
    store = open_store(root)
    version = paint(store, "sol0", 0, 0, 4, 4, 1)
    other = np.full((48, 64), 2, np.uint8)
    Image.fromarray(other).save(root / "masks/sol0.png")
    with pytest.raises(ConflictError, match="another program"):
        store.paint("sol0", version, **rectangle(0, 0, 9, 9, 0), tool="brush", by=BY)
    mask = store.open("sol0", (48, 64))
    assert (mask.ids == 2).all() and mask.version == version + 1
    with pytest.raises(ConflictError, match="since that stroke"):
        store.undo("sol0", mask.version, by=BY)
    assert (on_disk(root, "sol0") == 2).all()


def test_a_mask_of_another_format_that_another_program_wrote_is_not_overwritten(
    root: Path,
) -> None:
    (root / "masks").mkdir()
    mask = root / "masks/sol0.tif"
    Image.new("L", (64, 48), 1).save(mask)
    store = open_store(root)
    version = store.open("sol0", (48, 64)).version
    Image.new("L", (64, 48), 2).save(mask)
    with pytest.raises(ConflictError, match="another program"):
        store.paint("sol0", version, **rectangle(0, 0, 9, 9, 0), tool="brush", by=BY)
    assert (store.open("sol0", (48, 64)).ids == 2).all() and mask.is_file()


def test_a_mask_that_another_program_painted_is_not_removed(root: Path) -> None:
    store = open_store(root)
    store.may_remove = lambda: False  # a training keeps the masks
    for name in ("sol0", "sol1"):
        paint(store, name, 0, 0, 4, 4, 1)
        paint(store, name, 0, 0, 4, 4, 255)
    Image.new("L", (64, 48), 2).save(root / "masks/sol0.png")
    store.may_remove = lambda: True
    store.remove_empty()
    assert (on_disk(root, "sol0") == 2).all()
    assert not (root / "masks/sol1.png").exists()


def _unknown_id(path: Path) -> None:
    Image.new("L", (64, 48), 77).save(path)


def _damaged(path: Path) -> None:
    path.write_bytes(b"junk")


def _smaller(path: Path) -> None:
    Image.new("L", (10, 10), 1).save(path)


@pytest.mark.parametrize("write", [_unknown_id, _damaged, _smaller])
def test_a_mask_that_cannot_be_read_is_never_overwritten(
    root: Path, write: Callable[[Path], None]
) -> None:
    store = open_store(root)
    version = paint(store, "sol0", 0, 0, 4, 4, 1)
    path = root / "masks/sol0.png"
    write(path)
    other = path.read_bytes()
    for _ in range(2):
        with pytest.raises(UserError):
            store.open("sol0", (48, 64))
        with pytest.raises(UserError):
            store.paint(
                "sol0", store.version("sol0"), **rectangle(0, 0, 9, 9, 0), tool="brush", by=BY
            )
        with pytest.raises(UserError):
            store.undo("sol0", store.version("sol0"), by=BY)
    assert path.read_bytes() == other
    assert len((root / "labelling/history.jsonl").read_text().splitlines()) == 1
    Image.new("L", (64, 48), 2).save(path)  # repaired
    with pytest.raises(ConflictError, match="another program"):
        store.paint("sol0", version, **rectangle(0, 0, 9, 9, 0), tool="brush", by=BY)
    assert (store.open("sol0", (48, 64)).ids == 2).all()
    paint(store, "sol0", 0, 0, 9, 9, 0)


def test_nothing_is_painted_on_an_image_that_is_gone(root: Path) -> None:
    store = open_store(root)
    version = paint(store, "sol1", 0, 0, 4, 4, 1)
    store.open("sol0", (48, 64))
    for name in ("sol0", "sol1"):
        (root / f"images/{name}.png").rename(root / f"{name}.gone")
    before = on_disk(root, "sol1")
    with pytest.raises(MissingFileError, match=r"sol0\.png does not exist any more"):
        store.paint("sol0", 0, **rectangle(0, 0, 9, 9, 0), tool="brush", by=BY)
    with pytest.raises(MissingFileError, match=r"sol1\.png does not exist any more"):
        store.undo("sol1", version, by=BY)
    assert not (root / "masks/sol0.png").exists() and (on_disk(root, "sol1") == before).all()
    (root / "sol1.gone").rename(root / "images/sol1.png")
    assert store.undo("sol1", version, by=BY)[0] == version + 1


def test_a_stroke_beyond_a_smaller_image_cannot_be_undone(root: Path) -> None:
    store = open_store(root)
    paint(store, "sol0", 50, 40, 10, 5, 1)
    (root / "masks/sol0.png").unlink()
    Image.new("RGB", (32, 24)).save(root / "images/sol0.png")
    store = open_store(root)
    version = store.open("sol0", (24, 32)).version
    version = store.paint("sol0", version, **rectangle(0, 0, 9, 9, 2), tool="brush", by=BY)
    version, patch = store.undo("sol0", version, by=BY)
    assert patch is not None
    with pytest.raises(ConflictError, match="replaced by a smaller one"):
        store.undo("sol0", version, by=BY)
    store.paint("sol0", version, **rectangle(0, 0, 9, 9, 2), tool="brush", by=BY)


def test_several_ids_of_a_class_stay_as_they_are(root: Path) -> None:
    (root / "dataset.yaml").write_text(
        "ignore: [0, 255]\nclasses: [{name: soil, ids: [3, 4]}, {name: sky, ids: [7]}]\n"
    )
    (root / "masks").mkdir()
    old = np.zeros((48, 64), np.uint8)
    old[:10], old[10:20], old[20:30] = 4, 3, 7
    Image.fromarray(old).save(root / "masks/sol0.png")
    store = open_store(root, None)
    mask = store.open("sol0", (48, 64))
    assert np.unique(store.indices(mask)).tolist() == [0, 1, 255]
    version = store.paint("sol0", 0, **rectangle(0, 0, 64, 30, 0), tool="brush", by=BY)
    now = on_disk(root, "sol0")
    assert (now[:10] == 4).all() and (now[10:30] == 3).all() and (now[30:] == 0).all()
    store.undo("sol0", version, by=BY)
    assert (on_disk(root, "sol0") == old).all()


def test_a_mask_of_another_format_is_kept_aside(root: Path) -> None:
    (root / "masks").mkdir()
    old = np.full((48, 64), 255, np.uint8)
    old[:4] = 1
    Image.fromarray(old).save(root / "masks/sol1.tif")
    store = open_store(root)
    paint(store, "sol1", 0, 10, 64, 2, 2)
    assert sorted(p.name for p in (root / "masks").iterdir()) == ["sol1.png"]
    assert (root / "labelling/replaced/sol1.tif").is_file()
    assert (on_disk(root, "sol1")[:4] == 1).all()


@pytest.mark.parametrize("ending", [".TIF", ".TIFF", ".PNG", ".bmp", ".jpg", ".jpeg"])
def test_masks_of_all_endings_of_the_layout_are_continued(root: Path, ending: str) -> None:
    (root / "masks").mkdir()
    mask = root / "masks" / f"sol1{ending}"
    Image.new("L", (64, 48), 1).save(mask, quality=100)
    store = open_store(root)
    assert store.counts["sol1"].tolist() == [0, 48 * 64, 0]
    paint(store, "sol1", 0, 0, 64, 2, 2)
    assert sorted(path.name for path in (root / "masks").iterdir()) == ["sol1.png"]
    assert (on_disk(root, "sol1")[2:] == 1).all()
    # Another program may write one while the page is open.
    Image.new("L", (64, 48), 2).save(root / "masks" / f"sol2{ending}", quality=100)
    paint(store, "sol2", 0, 0, 64, 2, 1)
    assert (on_disk(root, "sol2")[2:] == 2).all()
    assert sorted(sample.name for sample in open_dataset(root).split("train")) == ["sol1", "sol2"]


def test_two_masks_of_one_name_are_refused(root: Path) -> None:
    (root / "masks").mkdir()
    for ending in (".TIF", ".png"):
        Image.new("L", (64, 48), 1).save(root / "masks" / f"sol1{ending}")
    with pytest.raises(UserError, match=r"sol1\.png has the same name as sol1\.TIF"):
        open_store(root)


def test_masks_that_lead_out_of_the_folder_are_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "masks").symlink_to(outside)
    store = open_store(root)
    with pytest.raises(UserError, match="outside"):
        paint(store, "sol0", 0, 0, 4, 4, 1)
    assert list(outside.iterdir()) == []


# Kills


_PAINTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from labels.loop_folder import open_store, paint
store = open_store(Path(sys.argv[1]))
print("ready", flush=True)
for k in range(10**6):
    paint(store, "sol0", k % 60, (k // 60) % 44, 3, 3, k % 3)
    print(k, flush=True)
"""


def test_a_kill_loses_at_most_the_stroke_in_hand(root: Path) -> None:
    script = [sys.executable, "-c", _PAINTER, str(root), str(Path(__file__).parents[1])]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(4):
        process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    confirmed = 4 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    store = open_store(root)
    ids = store.open("sol0", (48, 64)).ids
    expected = np.full((48, 64), IGNORE, np.uint8)
    states = []
    for k in range(confirmed + 1):
        y, x = (k // 60) % 44, k % 60
        expected[y : y + 3, x : x + 3] = k % 3
        states.append(expected.copy())
    assert any((ids == state).all() for state in states[confirmed - 1 :])
    assert store.undoable("sol0")[0] >= confirmed - 1
    assert [p.name for p in (root / "masks").iterdir() if p.name[0] != "."] == ["sol0.png"]


def test_a_torn_line_is_cut_off(root: Path) -> None:
    store = open_store(root)
    paint(store, "sol0", 0, 0, 4, 4, 1)
    path = root / "labelling/history.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    store = open_store(root)
    assert path.read_bytes() == whole
    assert store.undoable("sol0") == (1, 0)
    path.write_bytes(b"not json\n" + whole)
    with pytest.raises(UserError, match=r"history\.jsonl: damaged history"):
        open_store(root)


@pytest.mark.parametrize(
    "line",
    [
        '{"do":"undo","image":"sol0"}',
        '{"do":"undo","image":"sol0","version":"x"}',
        '{"do":"redo","image":"sol0","version":null}',
        '{"do":"undo","version":2}',
        '{"do":"status","image":"sol0"}',
        '{"do":"status","image":"sol0","status":["done"]}',
        '{"do":"score"}',
        '{"do":"score","minutes":"1","miou":2}',
        '{"do":"paint","image":"sol0","version":2,"box":[0,0,1],"before":[1,1],"after":[1,1]}',
        '{"do":"paint","image":"sol0","version":2,"box":[0,0,1,1],"before":[1,1]}',
        '{"do":"paint","image":"sol0","version":2,"box":[0,0,1,1],"before":[1,1],"after":[2,1]}',
        '{"do":"paint","image":"sol0","version":2,"box":[0,0,2147483647,1],'
        '"before":[2147483647,1],"after":[2147483647,1]}',
        '{"do":["undo"]}',
        "{}",
    ],
)
def test_an_incomplete_record_is_a_damaged_history(root: Path, line: str) -> None:
    store = open_store(root)
    paint(store, "sol0", 0, 0, 4, 4, 1)
    path = root / "labelling/history.jsonl"
    whole = path.read_text()
    path.write_text(whole + line.replace("{", '{"time":1,', 1).replace(",}", "}") + "\n")
    with pytest.raises(
        DamagedFileError, match=r"history\.jsonl: damaged history \(.*\): repair or"
    ):
        open_store(root)
    for time_of in ("1e400", '"x"', "true"):
        path.write_text(whole + f'{{"time":{time_of},"do":"open","image":"sol0","by":"me"}}\n')
        with pytest.raises(DamagedFileError, match="damaged history"):
            open_store(root)


_FILLED_UP = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from labels.loop_folder import open_store, paint
store = open_store(Path(sys.argv[1]))
paint(store, "sol0", 0, 0, 4, 4, 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
full = store.history.path.stat().st_size + 20
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (full, limits[1]))
try:
    store.mark("sol0", "done", by="me")
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
store.mark("sol0", "skipped", by="me")
"""


def test_a_full_disk_leaves_no_torn_line(root: Path) -> None:
    script = [sys.executable, "-c", _FILLED_UP, str(root), str(Path(__file__).parents[1])]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    assert done.stdout == "refused\n"
    store = open_store(root)
    assert store.status["sol0"] == "skipped"
    assert store.undoable("sol0") == (1, 0)


def test_minutes_leave_pauses_out_and_keep_people_apart(tmp_path: Path) -> None:
    lines = [("a", 0), ("a", 30), ("a", 1000), ("b", 1000), ("b", 1010), (None, 5000)]
    records = [
        {"time": t, "do": "open", "image": "x", **({"by": by} if by else {})} for by, t in lines
    ]
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    history = History(path)
    history.read()
    assert history.seconds == 30 + 60 + 10


# The folder


def test_images_anywhere_become_a_plain_folder_that_train_reads(tmp_path: Path) -> None:
    write_images(tmp_path / "made", count=12)
    root = tmp_path / "archive"
    (root / "sol 7").mkdir(parents=True)
    for image in (tmp_path / "made/images").iterdir():
        image.rename(root / ("sol 7" if image.stem == "sol3" else ".") / image.name)
    store = open_store(root)
    assert len(store.folder.images) == 12
    for name in [n for n in store.folder.images if n != "sol11"]:
        paint(store, name, 0, 0, 20, 20, 1)
        paint(store, name, 0, 30, 20, 5, 2)
    data = open_dataset(root)
    assert data.layout == "plain"
    assert data.taxonomy.names == ("sky", "soil", "rock")
    assert (len(data.split("train")), len(data.split("val"))) == (10, 1)
    assert [sample.name for sample in data.unlabelled] == ["sol11"]
    labels = read_label(data.split("val")[0], data.coding)
    assert (labels[:20, :20] == 1).all() and np.unique(labels).tolist() == [1, 2, 255]


def test_a_mask_may_spell_an_accent_in_another_way(tmp_path: Path) -> None:
    """As a folder from macOS may do; ``train`` accepts it, too."""
    root = write_images(tmp_path / "folder", count=1)
    one, two = (unicodedata.normalize(form, "düne") for form in ("NFC", "NFD"))
    (root / "images/sol0.png").rename(root / f"images/{two}.png")
    (root / "masks").mkdir()
    Image.new("L", (64, 48), 2).save(root / f"masks/{one}.png")
    store = open_store(root)
    assert store.painted == [two] and (store.labels(two) == 2).all()
    paint(store, two, 0, 0, 9, 9, 1)
    (sample,) = open_dataset(root).split("train")
    assert sample.mask == root / f"masks/{two}.png"
    assert np.unique(on_disk(root, two)).tolist() == [1, 2]
    assert [path.name for path in (root / "masks").iterdir()] == [f"{two}.png"]


def test_maps_and_images_of_the_pool_are_not_painted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path / "folder", count=2)
    (root / "images").rename(root / "unlabelled")
    with pytest.raises(MissingFileError, match=r"no image to paint.*not into masks/ or unlabelled"):
        open_folder(root, CLASSES)
    (root / "maps").mkdir()
    (root / "maps/manifest.sqlite").touch()
    for place in ("a.png", "maps/a.png"):
        shutil.copy(root / "unlabelled/sol0.png", root / place)
    store = open_store(root)
    assert list(store.folder.images) == ["a"] and "earlier prediction" in caplog.text
    paint(store, "a", 0, 0, 9, 9, 1)
    assert [s.name for s in open_dataset(root).unlabelled] == ["unlabelled/sol0", "unlabelled/sol1"]


def test_images_that_are_added_later_are_linked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path / "folder", count=2)
    (root / "images").rename(root / "sol 7")
    shutil.copy(root / "sol 7/sol0.png", root / "a.png")
    open_folder(root, CLASSES)
    caplog.clear()
    assert list(open_folder(root, None).images) == ["a", "sol 7/sol0", "sol 7/sol1"]
    assert caplog.messages == []
    shutil.copy(root / "a.png", root / "b.png")
    shutil.copy(root / "a.png", root / "sol 7/sol2.png")
    (root / "maps").mkdir()
    shutil.copy(root / "a.png", root / "maps/a.png")  # perhaps of another command
    shutil.copy(root / "a.png", root / "a.tif")  # would be a second image of this name
    assert list(open_folder(root, None).images) == [
        "a", "b", "sol 7/sol0", "sol 7/sol1", "sol 7/sol2",
    ]  # fmt: skip
    added, left = caplog.messages
    assert "added links to 2 new files" in added and str(root / "b.png") in added
    assert "2 images outside images/ are not shown" in left and str(root / "a.tif") in left
    for ending in (".png", ".tif"):  # two new images of one name
        shutil.copy(root / "a.png", root / f"c{ending}")
    assert open_folder(root, None).images["c"] == root / "images/c.png"


def test_images_beside_a_folder_of_images_are_mentioned(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "images").rename(root / "photos")
    (root / "images").symlink_to("photos")  # of the user
    (root / "unlabelled").mkdir()
    for place in ("new.png", "unlabelled/pool.png"):
        shutil.copy(root / "photos/sol0.png", root / place)
    assert list(open_folder(root, CLASSES).images) == ["sol0", "sol1", "sol2", "sol3"]
    outside, pool = caplog.messages
    assert "1 image outside images/ is not shown" in outside
    assert str(root / "new.png") in outside and "only in the pool" in pool


def test_an_interrupted_linking_is_repeated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "images").rename(root / "photos")
    made: list[Path] = []
    symlink_to = Path.symlink_to

    def interrupted(link: Path, target: str) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(link)
        symlink_to(link, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "symlink_to", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_folder(root, CLASSES)
    assert len(made) == 2
    assert len(open_folder(root, CLASSES).images) == 4
    assert sorted(path.name for path in root.iterdir() if path.name[0] == ".") == []


def test_a_tenth_is_held_back_and_sols_stay_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for k in range(60):
        name = f"NLF_{k // 6:04d}_0726421{k:03d}_362ECM_N0320604NCAM08111_01_095J01"
        Image.new("L", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    store = open_store(tmp_path)
    assert set(store.sols.values()) == set(range(10))
    store.splits.add(store.folder.images)
    lists = store.splits.lists
    assert 4 <= len(lists["val"]) <= 10
    sols = [{store.sols[name] for name in lists[split]} for split in ("train", "val")]
    assert len(sols[0] & sols[1]) <= 2  # the first one, and one that had too many


def test_lists_that_are_there_are_respected(root: Path) -> None:
    (root / "splits").mkdir()
    (root / "splits/test.txt").write_text("sol3\n")
    store = open_store(root)
    paint(store, "sol3", 0, 0, 9, 9, 1)
    assert store.splits.of("sol3") == "test"
    (root / "splits/val.txt").write_text("nowhere\n")
    with pytest.raises(UserError, match="unknown file"):
        open_store(root)


def test_lists_keep_the_mark_that_says_who_wrote_them(tmp_path: Path) -> None:
    root = write_images(tmp_path / "folder", count=5)
    store = open_store(root)
    for name in ("sol0", "sol1", "sol2"):
        paint(store, name, 0, 0, 9, 9, 1)
    assert store.splits.of("sol2") == "val"
    # A mask of another program joins the lists that the page began, as in every other folder.
    shutil.copy(root / "masks/sol0.png", root / "masks/sol3.png")
    train = [sample.name for sample in open_dataset(root).split("train")]
    assert train == ["sol0", "sol1", "sol3"]
    # Those of the user do not grow; what she wrote above the names stays there.
    head = "# sites of my own\n# checked twice\n"
    (root / "splits/train.txt").write_text(f"{head}sol0\n")
    (root / "splits/val.txt").unlink()
    store = open_store(root)
    assert store.splits.of("sol3") == "train"
    paint(store, "sol1", 0, 0, 9, 9, 2)
    assert (root / "splits/train.txt").read_text().startswith(f"{head}sol0\n")
    (root / "masks/sol4.png").write_bytes((root / "masks/sol0.png").read_bytes())
    assert "sol4" not in [sample.name for sample in open_dataset(root).split("train")]


def test_images_that_are_gone_leave_the_lists_of_s5mars(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path / "folder", count=5)
    store = open_store(root)
    for name in ("sol0", "sol1", "sol2"):
        paint(store, name, 0, 0, 9, 9, 1)
    assert store.splits.of("sol2") == "val"
    for name in ("sol1", "sol2"):
        (root / f"images/{name}.png").unlink()
    store = open_store(root)
    assert {split: names for split, names in store.splits.lists.items() if names} == {
        "train": ["sol0"]
    }
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        f"removed 1 image without a file, the first: {name}" for name in ("sol1", "sol2")
    ]
    assert (root / "splits/train.txt").read_text().splitlines()[1:] == ["sol0"]
    assert not (root / "splits/val.txt").exists()
    # Lists of the user stay as they are.
    for own in ("sol0\nsol1\n", "# mine\nsol0\nsol1\n"):
        (root / "splits/train.txt").write_text(own)
        with pytest.raises(UserError, match=r"train\.txt lists 1 unknown file: sol1"):
            open_store(root)
        assert (root / "splits/train.txt").read_text() == own


def test_classes_may_be_added_and_nothing_else(root: Path) -> None:
    open_folder(root, CLASSES)
    longer = named_classes("sky,soil,rock,sand")
    assert open_folder(root, longer).taxonomy.names == longer.names
    assert open_folder(root, None).coding.index_of[3] == 3
    with pytest.raises(UserError, match="contradicts"):
        open_folder(root, named_classes("soil,sky"))
    with pytest.raises(UserError, match="--classes must be names"):
        named_classes("soil,,sky")
    with pytest.raises(UserError, match=r"control characters \(got 'so\\til'\)"):
        named_classes("so\til,sky")
    (root / "dataset.yaml").write_text('classes: [{name: "so\\u202eil"}]\n')
    with pytest.raises(UserError, match=r"dataset\.yaml: a class name must not contain control"):
        open_folder(root, None)
    with pytest.raises(UserError, match=r"has the class name .* twice: rename one"):
        named_classes("soil,soil")


def test_an_added_class_needs_an_id(root: Path) -> None:
    ids = list(range(254))
    (root / "dataset.yaml").write_text(f"classes: [{{name: soil, ids: {ids}}}]\n")
    with pytest.raises(UserError, match=r"leaves 1 id of 0\.\.254 for the classes .*\(rock, sky\)"):
        open_folder(root, named_classes("soil,rock,sky"))
    assert open_folder(root, named_classes("soil,rock")).coding.index_of[254] == 1


def test_an_added_class_has_a_colour_of_its_own(root: Path) -> None:
    (root / "dataset.yaml").write_text("classes: [{name: moss, color: '#dc3c3c'}]\n")
    first, second = open_folder(root, named_classes("moss,rock")).taxonomy.classes
    assert first.colour == (220, 60, 60) != second.colour


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        open_folder(tmp_path / "none", CLASSES)
    with pytest.raises(MissingFileError, match="no image"):
        open_folder(tmp_path, CLASSES)
    root = write_images(tmp_path / "x")
    with pytest.raises(MissingFileError, match="name the classes with --classes"):
        open_folder(root, None)
    (root / "images").rename(root / "photos")
    with pytest.raises(MissingFileError, match="--start-from navcam"):
        open_folder(root, None)
    assert [path.name for path in root.iterdir()] == ["photos"]  # nothing was made of it
    (root / "photos").rename(root / "images")
    (root / "dataset.yaml").write_text("ignore: []\nclasses: [{name: soil}]\n")
    with pytest.raises(UserError, match="no id to ignore"):
        open_folder(root, None)
    (root / "dataset.yaml").write_text("ignore: [255]\nclasses: [{name: soil, ids: [300]}]\n")
    with pytest.raises(UserError, match="the id 300"):
        open_folder(root, None)


def test_a_mask_of_another_size(root: Path) -> None:
    (root / "masks").mkdir()
    Image.new("L", (10, 10)).save(root / "masks/sol0.png")
    with pytest.raises(UserError, match="10×10 pixels, but the image has 64×48"):
        open_store(root).open("sol0", (48, 64))


def test_one_server_a_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(root / STATE):
        assert main(["label", str(root), "--classes", "a,b", "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert f"in use by process {os.getpid()}" in error
    assert error.count("\n") == 1
