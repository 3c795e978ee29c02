"""The manifest against a plain dict, whatever is done to it; names; settings; regions."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from s5mars.errors import DamagedFileError, UserError
from s5mars.predict.archive import predict_images
from s5mars.predict.find import find
from s5mars.predict.index import read_index, write_index
from s5mars.predict.manifest import Counts, Manifest
from s5mars.predict.predictor import Predictor
from s5mars.predict.regions import largest_regions
from s5mars.predict.settings import model_hash
from s5mars.predict.sources import ENDINGS, INDEX, OWN, TABLE, Names, Source
from s5mars.predict.sources import MANIFEST as FILE

from .folders import save
from .standin import THREE, Brightness, Convolutions

SETTINGS = {"model": "m", "write": ["labels"]}

NUMBER = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("done"), NUMBER),
        st.tuples(st.just("failed"), NUMBER),
        st.tuples(st.just("add"), NUMBER),
        st.tuples(st.just("reopen"), NUMBER),
    ),
    max_size=25,
)


@hypothesis_settings(max_examples=40)
@given(STEPS)
def test_a_manifest_remembers_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """The model: a dict of states; to reopen is what a new run with --resume does."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        states: dict[str, str] = {}
        manifest = Manifest(out)
        manifest.begin(SETTINGS, resume=True)
        for what, number in steps:
            name = f"p{number}"
            if what == "add":
                manifest.add([Source(Path("/in", f"{name}.png"), name)], again=False)
                states.setdefault(name, "to do")
            elif what == "reopen":
                manifest.__exit__(None, None, None)
                manifest = Manifest(out)
                manifest.begin(SETTINGS, resume=True)
                states = {n: s.replace("failed", "to do") for n, s in states.items()}
            elif name in states:
                if what == "done":
                    (out / f"{name}.png").touch()
                    manifest.record_done(name, {"share": 1 / 3})
                else:
                    manifest.record_failed(name, "why")
                states[name] = what
            found = {entry.source.name: entry.state for entry in manifest.entries()}
            assert found == states
            for entry in manifest.entries("done"):
                assert entry.facts == {"share": 1 / 3}
            counted = [list(states.values()).count(s) for s in ("done", "failed", "to do")]
            assert manifest.counts() == Counts(*counted)
        manifest.__exit__(None, None, None)


PART = st.sampled_from(["a", "b", "a.png", "a_confidence", "a_rle.json", "a.png~2"])
SOURCE = st.builds(
    lambda parts, ending: Source(
        Path("/in", *parts).with_name(parts[-1] + ending), "/".join(parts)
    ),
    st.lists(PART, min_size=1, max_size=3),
    st.sampled_from([".png", ".IMG"]),
)


@given(st.lists(SOURCE, max_size=12))
def test_names_never_share_a_file_nor_make_one_a_folder(sources: list[Source]) -> None:
    names = Names()
    given_names = [names.free(source).name for source in sources]
    files = [name + ending for name in given_names for ending in ENDINGS.values()]
    assert len(set(files)) == len(files)
    folders = {p.as_posix() for file in files for p in PurePosixPath(file).parents}
    assert not folders & set(files)
    assert not sources or given_names[0] == sources[0].name


def test_a_folder_with_the_name_of_a_map() -> None:
    names = Names()
    assert names.free(Source(Path("/in/a.jpg"), "a")).name == "a"
    assert names.free(Source(Path("/in/a.png/b.jpg"), "a.png/b")).name == "~2/a.png/b.jpg"
    assert names.free(Source(Path("/in/a.png/c.jpg"), "a.png/c")).name == "~2/a.png/c.jpg"


@pytest.mark.parametrize("own", OWN)
def test_a_folder_with_the_name_of_a_file_of_the_output_folder(own: str) -> None:
    name = f"{own}/a"
    assert Names().free(Source(Path(f"/in/{name}.png"), name)).name == f"~2/{name}.png"


def test_names_that_are_taken_stay_taken(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.begin(SETTINGS, resume=False)
        manifest.add([Source(Path("/in/a.png"), "a")], again=True)
    with Manifest(tmp_path) as manifest:
        newcomers = [Source(Path("/in/a.IMG"), "a"), Source(Path("/in/a.png"), "a")]
        manifest.add(newcomers, again=True)
        found = {entry.source.path.name: entry.source.name for entry in manifest.entries()}
    assert found == {"a.png": "a", "a.IMG": "a.IMG"}


def test_a_damaged_or_later_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not a database, and longer than a header of SQLite " * 40)
    with pytest.raises(ValueError, match=r"manifest\.sqlite: damaged"):
        Manifest(tmp_path)
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(DamagedFileError, match=r"manifest\.sqlite is a named pipe"):
        Manifest(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ValueError, match="manifest format 99"):
        Manifest(tmp_path)


def test_a_manifest_of_the_format_before(tmp_path: Path) -> None:
    """It has no record of the images, so that none of them has changed."""
    image = save(tmp_path / "a.png")
    out = tmp_path / "maps"
    with Manifest(out) as manifest:
        manifest.start([Source(image, "a")], SETTINGS, resume=False)
        manifest.record_done("a", {"width": 3})
    save(out / "a.png")
    with closing(sqlite3.connect(out / FILE)) as database:
        database.execute("ALTER TABLE products DROP COLUMN input")
        database.execute("PRAGMA user_version = 2")
        database.commit()
    os.utime(image, ns=(0, 0))
    for _ in range(2):
        with Manifest(out) as manifest:
            manifest.start([Source(image, "a")], SETTINGS, resume=True)
            assert manifest.counts() == Counts(done=1, failed=0, to_do=0)


@pytest.mark.parametrize(
    "hurt",
    [
        "UPDATE products SET facts = '[1]'",
        "UPDATE products SET facts = '{'",
        "UPDATE products SET facts = '{\"shares\": [1]}'",
        'UPDATE products SET facts = \'{"sol": "late"}\'',
        "UPDATE products SET facts = x'ff00'",
        "UPDATE products SET path = x'ff00'",
        "UPDATE products SET name = CAST(x'ff' AS TEXT)",
        "DROP TABLE products",
        "DROP TABLE settings",
        "ALTER TABLE products DROP COLUMN facts",
        "UPDATE settings SET value = '['",
    ],
)
def test_a_manifest_of_another_content_is_damaged_or_asked_to_agree(
    tmp_path: Path, hurt: str
) -> None:
    sources = [Source(Path("/in/a.png"), "a")]
    with Manifest(tmp_path) as manifest:
        manifest.begin(SETTINGS, resume=False)
        manifest.add(sources, again=True)
        manifest.record_done("a", {"width": 3})
    (tmp_path / "a.png").touch()
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute(hurt)
        database.commit()
    said = r"damaged manifest|other settings"
    with pytest.raises(UserError, match=said) as raised, Manifest(tmp_path) as manifest:
        manifest.begin(SETTINGS, resume=True)
        manifest.add(sources, again=False)
        manifest.counts()
        manifest.suspects()
        write_index(manifest, THREE)
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_the_remedy_for_a_damaged_manifest_names_all_files_that_would_be_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    said = rf"damaged manifest .*remove it, {INDEX}, {TABLE} and the maps to start over"
    with pytest.raises(DamagedFileError, match=said), Manifest(tmp_path):
        pass


def test_a_full_disk_under_the_manifest_is_said_in_words(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.begin(SETTINGS, resume=False)
        sources = [Source(Path(f"/in/{i}.png"), str(i)) for i in range(50)]
        manifest.add(sources, again=True)
        ((pages,),) = manifest._database.rows("PRAGMA page_count")
        manifest._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match=r"disk is full.*manifest\.sqlite"):
            for source in sources:
                manifest.record_done(source.name, {"text": "x" * 2000})


def test_a_hash_tells_numbers_and_kinds_apart() -> None:
    one, other = Convolutions(), Convolutions()
    assert model_hash(one) == model_hash(other) != model_hash(Brightness())
    with torch.no_grad():
        other.layers[0].weight[0, 0, 0, 0] += 1e-6
    assert model_hash(one) != model_hash(other)
    assert model_hash(one.bfloat16()) != model_hash(Convolutions())


def test_a_network_that_is_no_module_says_who_it_is() -> None:
    class Outside:
        fingerprint = "abc"

    assert model_hash(Outside()) == "abc"
    with pytest.raises(ValueError, match="needs an attribute `fingerprint`"):
        model_hash(lambda image: image)


@given(arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 255])))
def test_largest_regions_against_a_flood(labels: np.ndarray) -> None:
    largest = [0, 0, 0]
    left = {(r, c) for r in range(7) for c in range(9)}
    while left:
        start = left.pop()
        index, edge, size = labels[start], [start], 0
        while edge:
            row, column = edge.pop()
            size += 1
            for near in (
                (row + 1, column),
                (row - 1, column),
                (row, column + 1),
                (row, column - 1),
            ):
                if near in left and labels[near] == index:
                    left.remove(near)
                    edge.append(near)
        if index != 255:
            largest[index] = max(largest[index], size)
    assert largest_regions(labels, 3) == largest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE products SET name = '../x'", r"manifest\.sqlite: '\.\./x' is not a file name"),
        ("UPDATE products SET name = '/tmp/x'", r"manifest\.sqlite: '/tmp/x' is not a file name"),
        ("UPDATE products SET name = x'00'", r"manifest\.sqlite: b'\\x00' is not a file name"),
        ("UPDATE products SET facts = '[1]'", r"manifest\.sqlite.* damaged.*\("),
        ("UPDATE products SET facts = '{'", r"manifest\.sqlite.* damaged.*\("),
        ("DROP TABLE products", r"manifest\.sqlite.* damaged.*\(no such table: products\)"),
        ("DROP TABLE settings", r"manifest\.sqlite.* damaged.*\(no such table: settings\)"),
    ],
)
def test_a_manifest_of_a_stranger(damage: str, said: str, tmp_path: Path) -> None:
    """Nothing is written where its names lead, and what is wrong with it is one line."""
    image, out = save(tmp_path / "a.png"), tmp_path / "maps"
    predictor = Predictor(Brightness(), THREE)
    predict_images(predictor, [image], out=out, write=["labels"])
    with sqlite3.connect(out / FILE) as database:
        database.execute(damage)
    database.close()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said) as raised:
        predict_images(predictor, [image], out=out, write=["labels"], resume=True)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """They are predicted as all others, after a stop too, and can be told apart."""
    folder, out = tmp_path / "in", tmp_path / "maps"
    good, bad = (os.fsdecode(name) for name in (b"g\xe9.png", b"b\xe9.png"))
    save(folder / good)
    (folder / bad).touch()
    predictor = Predictor(Brightness(), THREE)
    for _ in range(2):
        summary = predict_images(
            predictor, [folder], out=out, write=list(ENDINGS), skip_bad=True, resume=True
        )
        assert summary.counts == Counts(1, 1, 0)
    assert (out / "g%E9.png").is_file()
    with Manifest(out) as manifest:
        assert {entry.source.path for entry in manifest.entries()} == {folder / good, folder / bad}
    rows = {row["name"]: row for row in read_index(out)[0].to_pylist()}
    assert rows["g%E9"]["path"] == f"{folder}/g%E9.png"
    assert rows["b%E9"]["reason"].startswith(f"{folder}/b%E9.png is empty")
    find(out, "height > 0", sheet=tmp_path / "sheet.png")


def test_counts_of_an_archive_have_commas() -> None:
    assert str(Counts(123456, 0, 7890)) == "123,456 done, 0 failed, 7,890 to do"
