from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crashing import start_fragile_proposer
from s5mars.errors import DamagedFileError, UserError
from s5mars.proposals import build as build_module
from s5mars.proposals.build import build_store
from s5mars.proposals.graph import GraphSettings
from s5mars.proposals.prepare import object_store
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.types import Sample

from .masks import proposal, rectangle

SETTINGS = GraphSettings(scales=(50.0, 200.0), working_side=48, minimum_area=0.01)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return [
        (
            f"sol/{k}",
            [
                proposal(rng.random((20, 30)) < 0.5, confidence=float(rng.random()))
                for _ in range(k)
            ],
        )
        for k in range(6)
    ]


@pytest.fixture
def samples(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    found = []
    for k in range(5):
        image = np.full((48, 64, 3), 90, np.uint8)
        image[10:30, 5 + 5 * k : 25 + 5 * k] = (200, 150, 100)
        Image.fromarray(image).save(folder / f"{k}.png")
        found.append(Sample(name=f"{k}", image=folder / f"{k}.png"))
    return found


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def content(store):
    return {name: list(store.proposals(name)) for name in sorted(store.names)}


def test_one_file_and_a_folder_of_shards_read_alike(tmp_path, rows):
    write_store(tmp_path / "one.parquet", rows, proposer="sam", settings={"a": 1})
    for k in range(0, 6, 2):
        shard = tmp_path / "many" / f"{k}.parquet"
        write_store(shard, rows[k : k + 2], proposer="sam", settings={"a": 1})

    one, many = ObjectStore(tmp_path / "one.parquet"), ObjectStore(tmp_path / "many")

    assert content(one) == content(many) == dict(rows)
    assert set(one.names) == set(many.names)
    assert (one.proposer, one.settings, one.masks) == (many.proposer, many.settings, many.masks)
    assert one.masks == 15
    assert one.settings == {"a": 1}
    assert "15 masks of 6 images by sam" in one.description
    one.masks = 1118
    assert "1,118 masks of 6 images by sam" in one.description


def test_the_columns_can_be_read_by_anybody(tmp_path, rows):
    write_store(tmp_path / "a.parquet", rows, proposer="sam", settings={"a": 1})

    table = pq.read_table(tmp_path / "a.parquet").to_pylist()

    assert [row["rank"] for row in table if row["image"] == "sol/3"] == [0, 1, 2]
    assert table[0]["proposer"] == "sam"
    assert table[0]["settings"] == '{"a": 1}'
    assert (table[0]["height"], table[0]["width"]) == (20, 30)


def test_one_row_group_is_read_for_one_image(tmp_path, rows, monkeypatch):
    write_store(tmp_path / "a.parquet", rows, proposer="sam")
    read = []
    original = pq.ParquetFile.read_row_group

    def spy(self, group, **options):
        read.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    store = ObjectStore(tmp_path / "a.parquet")
    assert read == []
    store.proposals("sol/4")
    store.proposals("sol/0")  # no masks: nothing to read
    assert read == [3]


def test_a_failed_write_leaves_nothing(tmp_path, rows):
    path = tmp_path / "a.parquet"
    with pytest.raises(UserError, match="twice"):
        write_store(path, [*rows, rows[0]], proposer="sam")
    assert list(tmp_path.iterdir()) == []

    write_store(path, rows, proposer="sam")
    mixed = [proposal(rectangle(0, 0, 3, 3)), proposal(rectangle(0, 0, 3, 3, size=(61, 80)))]
    with pytest.raises(UserError, match="must have the same size"):
        write_store(path, [("x", mixed)], proposer="sam")
    assert len(ObjectStore(path)) == 6  # the old one is untouched


def test_the_store_travels_to_other_processes(tmp_path, rows):
    write_store(tmp_path / "a.parquet", rows, proposer="sam")
    store = ObjectStore(tmp_path / "a.parquet")
    expected = list(store.proposals("sol/5"))  # opens the file in this process

    assert list(pickle.loads(pickle.dumps(store)).proposals("sol/5")) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert list(pool.apply(_read, (store,))) == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert list(pool.apply(_read, (store,))) == expected


def _read(store):
    return list(store.proposals("sol/5"))


def test_a_forked_process_opens_its_own_file(tmp_path, rows, monkeypatch):
    write_store(tmp_path / "a.parquet", rows, proposer="sam")
    store = ObjectStore(tmp_path / "a.parquet")
    store.proposals("sol/5")
    before = store._files[0]

    monkeypatch.setattr(os, "getpid", lambda: -5)
    store.proposals("sol/5")

    assert store._files[0] is not before


@pytest.mark.parametrize("harm", ["truncate", "text", "empty"])
def test_a_damaged_file_is_named(tmp_path, rows, harm):
    path = tmp_path / "a.parquet"
    write_store(path, rows, proposer="sam")
    whole = path.read_bytes()
    path.write_bytes({"truncate": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[harm])

    with pytest.raises(ValueError, match=r"a\.parquet: damaged"):
        ObjectStore(path)


def test_damage_inside_a_row_group_is_named(tmp_path, rows):
    path = tmp_path / "a.parquet"
    write_store(path, rows, proposer="sam")
    broken = bytearray(path.read_bytes())
    footer = int.from_bytes(broken[-8:-4], "little")
    for position in range(40, len(broken) - footer - 8, 7):
        broken[position] ^= 0xFF
    path.write_bytes(broken)

    store = ObjectStore(path)
    with pytest.raises(ValueError, match=r"a\.parquet: damaged"):
        store.proposals("sol/5")


def test_rows_of_another_kind_are_damage(tmp_path, rows):
    path = tmp_path / "a.parquet"
    write_store(path, rows, proposer="sam")
    metadata = pq.read_metadata(path).metadata
    whole = pq.ParquetFile(path)

    def rewrite(change):
        groups = [change(whole.read_row_group(k)) for k in range(whole.num_row_groups)]
        with pq.ParquetWriter(tmp_path / "b.parquet", groups[0].schema) as writer:
            for group in groups:
                writer.write_table(group)
            writer.add_key_value_metadata(metadata)
        return ObjectStore(tmp_path / "b.parquet")

    for change in (
        lambda t: t.drop_columns(["counts"]),
        lambda t: t.set_column(1, "height", t["image"]),
        lambda t: t.set_column(1, "height", pa.nulls(len(t), pa.int32())),
    ):
        with pytest.raises(DamagedFileError, match=r"b\.parquet: damaged object store"):
            rewrite(change).proposals("sol/5")
    for counts in (b"\x7f~~", b"", b"9"):
        store = rewrite(lambda t, c=counts: t.set_column(4, "counts", pa.array([c] * len(t))))
        with pytest.raises(DamagedFileError, match=r"object mask .* damaged .*: make the object"):
            _ = store.proposals("sol/5")[0].mask


def test_other_files_and_folders_are_refused(tmp_path, rows):
    with pytest.raises(FileNotFoundError, match="no such"):
        ObjectStore(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"\*\.parquet"):
        ObjectStore(tmp_path / "folder")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="not an object store"):
        ObjectStore(tmp_path / "b.parquet")


def test_shards_must_agree(tmp_path, rows):
    write_store(tmp_path / "a.parquet", rows[:3], proposer="sam")
    write_store(tmp_path / "b.parquet", rows[2:], proposer="sam")
    with pytest.raises(ValueError, match=r"'sol/2' is also in a\.parquet"):
        ObjectStore(tmp_path)
    write_store(tmp_path / "b.parquet", rows[3:], proposer="graph")
    with pytest.raises(ValueError, match="different folders"):
        ObjectStore(tmp_path)


def test_a_store_of_other_images_is_named_and_counted(tmp_path, rows):
    write_store(tmp_path / "a.parquet", rows, proposer="sam")
    store = ObjectStore(tmp_path / "a.parquet")

    store.check(["sol/0", "sol/1"])
    assert store.missing(["x", "sol/1", "y"]) == ["x", "y"]
    with pytest.raises(ValueError, match=r"2 of 3 images \(x, y\)"):
        store.check(["x", "sol/1", "y"])


def test_build_finds_the_objects(tmp_path, samples):
    store = build_store(samples, tmp_path / "s.parquet", settings=SETTINGS)

    assert set(store.names) == {sample.name for sample in samples}
    best = store.proposals("2")[0]
    truth = np.zeros((48, 64), bool)
    truth[10:30, 15:35] = True
    assert (best.mask & truth).sum() / (best.mask | truth).sum() > 0.85


def test_any_number_of_workers_gives_the_same(tmp_path, samples):
    for workers in (1, 2):
        build_store(
            samples,
            tmp_path / f"{workers}",
            settings=SETTINGS,
            workers=workers,
            shard_images=2,
        )

    assert content(ObjectStore(tmp_path / "1")) == content(ObjectStore(tmp_path / "2"))
    assert files(tmp_path / "1") == files(tmp_path / "2")  # byte for byte
    assert len(files(tmp_path / "1")) == 3


def test_a_killed_build_goes_on_where_it_stopped(tmp_path, samples, monkeypatch):
    unbroken = build_store(samples, tmp_path / "unbroken", settings=SETTINGS)
    path, done, patience = tmp_path / "killed", [], 3
    original = build_module._start

    def start(*arguments):
        propose = original(*arguments)

        def recording(image):
            if len(done) == patience:
                raise KeyboardInterrupt
            done.append(image.stem)
            return propose(image)

        return recording

    monkeypatch.setattr(build_module, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        build_store(samples, path, settings=SETTINGS, shard_images=2)
    assert set(ObjectStore(path).names) == {"0", "1"}  # "2" was in the unfinished shard

    done.clear()
    patience = 100
    store = build_store(samples, path, settings=SETTINGS, shard_images=2)
    assert done == ["2", "3", "4"]
    assert content(store) == content(unbroken)

    build_store(samples, path, settings=SETTINGS, shard_images=2)
    assert done == ["2", "3", "4"]  # complete: nothing is computed


def test_two_runs_on_the_same_images_make_each_mask_once(tmp_path, samples, monkeypatch):
    """The second begins while the first builds, and waits for it."""
    done, begun, original = [], threading.Event(), build_module._start

    def start(*arguments):
        propose = original(*arguments)

        def slow(image):
            begun.set()
            time.sleep(0.1)
            done.append(image.stem)
            return propose(image)

        return slow

    monkeypatch.setattr(build_module, "_start", start)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(object_store, None, samples[:3], cache=tmp_path / "s")
        assert begun.wait(10)
        store, found = object_store(None, samples[1:], cache=tmp_path / "s")
        first.result()
    assert sorted(done) == ["0", "1", "2", "3", "4"]
    assert store.missing(sample.name for sample in samples) == []
    assert found.images == 4


def test_another_image_of_the_same_name_does_not_get_the_masks(tmp_path, samples):
    path = tmp_path / "s"
    build_store(samples[:2], path, settings=SETTINGS)
    other = tmp_path / "other" / samples[1].image.name
    other.parent.mkdir()
    other.write_bytes(samples[2].image.read_bytes())  # of the same size

    with pytest.raises(UserError, match=r"another image with the name '1' than .*other.1\.png"):
        build_store([replace(samples[1], image=other)], path, settings=SETTINGS)
    copy = shutil.copy(samples[1].image, tmp_path / "other" / "copy.png")
    build_store([replace(samples[1], image=Path(copy))], path, settings=SETTINGS)


def test_a_killed_worker_costs_its_image_only(tmp_path, samples, monkeypatch):
    settings = {"settings": SETTINGS, "shard_images": 2}
    build_store(samples, tmp_path / "unbroken", **settings)
    monkeypatch.setattr(build_module, "_start", start_fragile_proposer)
    kills = [sample.image.with_suffix(".kills") for sample in samples]
    kills[1].write_bytes(b"x")
    kills[3].write_bytes(b"xx")

    with pytest.raises(ValueError, match=r"3\.png: 2 workers died on this image \(.*SIGKILL"):
        build_store(samples, tmp_path / "s", workers=2, **settings)
    assert set(ObjectStore(tmp_path / "s").names) == {"0", "1"}
    build_store(samples, tmp_path / "s", workers=2, **settings)
    assert files(tmp_path / "s") == files(tmp_path / "unbroken")


def test_a_store_made_with_other_settings_is_not_continued(tmp_path, samples):
    path = tmp_path / "s"
    build_store(samples[:1], path, settings=SETTINGS)
    other = replace(SETTINGS, fill=0.5)

    with pytest.raises(ValueError, match="choose another --out"):
        build_store(samples, path, settings=other)
    assert len(build_store(samples, path, settings=SETTINGS)) == 5


def test_a_single_file_that_is_complete_will_do(tmp_path, samples):
    folder = build_store(samples, tmp_path / "s", settings=SETTINGS)
    file = tmp_path / "one.parquet"
    rows = [(name, list(folder.proposals(name))) for name in folder.names]
    write_store(file, rows[:4], proposer="graph", settings=folder.settings)

    with pytest.raises(ValueError, match="lacks 1 images"):
        build_store(samples, file, settings=SETTINGS)
    assert len(build_store(samples[:4], file, settings=SETTINGS)) == 4


def test_an_unreadable_image_is_named_and_finished_shards_stay(tmp_path, samples):
    samples[3].image.write_bytes(b"no image")
    path = tmp_path / "s"

    with pytest.raises(ValueError, match=r"3\.png"):
        build_store(samples, path, settings=SETTINGS, shard_images=2)
    assert set(ObjectStore(path).names) == {"0", "1"}
    assert not [p for p in path.iterdir() if p.suffix != ".parquet"]


def test_an_unknown_proposer_lists_the_choices(tmp_path, samples):
    with pytest.raises(ValueError, match="graph"):
        build_store(samples, tmp_path / "s", proposer="grahp")
