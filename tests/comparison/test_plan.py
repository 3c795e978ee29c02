"""A comparison that was begun by an earlier version goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s5mars.classes import MaskCoding, Taxonomy
from s5mars.comparison.grid import Row, arguments_of, method_rows, with_files_read
from s5mars.comparison.job import Job
from s5mars.comparison.plan import Request, plan, with_choices
from s5mars.comparison.results import read_comparison, write_comparison
from s5mars.comparison.runner import _Work
from s5mars.comparison.settings import (
    describe_data,
    describe_row,
    differences,
    run_differences,
    with_new_options,
)
from s5mars.data.dataset import Dataset
from s5mars.errors import UserError
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import DeepLabOptions
from s5mars.settings.parsing import parse_training
from s5mars.training.automatic import LIGHT, Machine, complete

from .handmade import SETTINGS, comparison

BASE = {**SETTINGS["training"], "recipe": "paper", "model": "resnet18"}


def test_an_option_that_was_added_later_has_its_default(tmp_path: Path) -> None:
    old = comparison(settings={**SETTINGS, "training": {**BASE, "deeplab": {"decoder": "light"}}})
    assert "keep" not in old.settings["training"]
    write_comparison(tmp_path, old)
    found = read_comparison(tmp_path)
    training = found.settings["training"]
    assert training["keep"] == "best" and training["steps"] == 600
    assert training["deeplab"] == {**asdict(DeepLabOptions()), "decoder": "light"}
    for cell in found.cells:
        assert cell.fingerprint == found.fingerprint(cell.row, cell.share)
        assert cell.fingerprint != old.cells[0].fingerprint
    write_comparison(tmp_path, found)
    assert read_comparison(tmp_path) == found


@pytest.mark.parametrize(
    ("old", "arguments"),
    [
        ({}, []),
        (
            {"model": "san", "weights": "clip", "side_adapter": {"checkpoint": "a.pth"}},
            ["--model=san", "--weights=clip", "--side-adapter.checkpoint=a.pth"],
        ),
        (
            {"model": "sam-cls", "weights": "sam"},
            ["--model=sam-cls", "--weights=sam", "--sam.features=f"],
        ),
    ],
)
def test_a_row_has_the_options_of_its_network_that_were_added_later(
    old: dict[str, Any], arguments: list[str]
) -> None:
    common = ["--data=d", "--out=o", "--recipe=paper", "--steps=600", "--model=resnet18"]
    common += ["--deeplab.decoder=light"]
    base = parse_training([*common, "--method=supervised"])
    row = Row("r", "R", "g", "supervised", arguments=("--method=supervised", *arguments))
    there = parse_training(arguments_of(row, common))
    now = json.loads(json.dumps(describe_row(there, base)["training"]))
    assert differences(with_new_options(old, of_row=True), now) == []


def test_a_settings_file_gives_each_row_its_own_options(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"  # as the config.yaml of a run
    file.write_text(
        "method: s5mars\nseed: 3\nlabelled: 0.5\nout: o\nsteps: 7\nscale:\n- 0.5\n- 1.5\n"
        "ablation: ''\nobjects: null\ns5mars: {soft_weight: 0.25}\ndeeplab: {decoder: light}\n"
    )
    given = ["--data=d", "--config", str(file), f"--config={file}", "--batch=2"]
    words = with_files_read(given, ["s5mars", "supervised"])
    once = ["--steps=7", "--scale=[0.5, 1.5]", "--objects=null"]
    once += ["--s5mars.soft-weight=0.25", "--deeplab.decoder=light"]
    assert words == [*once, *once, "--data=d", "--batch=2"]
    (of_train, *_) = method_rows(["supervised"])
    for order in (["--steps=5", *given], [*given, "--steps=5"]):
        options = arguments_of(of_train, with_files_read(order, ["supervised"]))
        assert parse_training([*options, "--out=o"]).config.steps == 5
    ours, other = method_rows(["s5mars", "supervised"])
    assert parse_training([*arguments_of(ours, words), "--out=o"]).method.soft_weight == 0.25
    assert not [word for word in arguments_of(other, words) if "s5mars" in word]
    alone = with_files_read(given, ["supervised"])
    assert [word for word in words if word not in alone] == [once[3]] * 2
    for text, said in [
        ("- 1\n", r"--config .*a\.yaml must contain options"),
        ("", r"--config .*a\.yaml must contain options"),
        ("1: 2\n", r"--config .*a\.yaml must contain options"),
        ("s5mars: 3\n", r"a\.yaml: s5mars is 3: expected a group of options"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            with_files_read([f"--config={file}"], ["s5mars"])
    for words in (["--config"], ["--config", "x.yaml", "y.yaml"]):
        with pytest.raises(UserError, match=r"--config must be given one file \(got "):
            with_files_read(words, ["s5mars"])


def test_what_changes_no_result_makes_no_other_run() -> None:
    one = TrainConfig(data=Path("d"), out=Path("o"), steps=3)
    assert not run_differences(
        one, TrainConfig(data=Path("e"), out=Path("p"), steps=3, snapshots=3)
    )
    assert run_differences(one, TrainConfig(data=Path("d"), out=Path("o"), steps=4)) == [
        "steps: 4 there, 3 now"
    ]


def test_a_comparison_chooses_as_train_does_and_keeps_its_choice(
    tmp_path: Path, fake_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fake_data.plain(tmp_path / "data", images=6, size=(90, 400))
    on_cpu, on_gpu = Machine(gpu=False, cores=2), Machine(gpu=True, cores=8)
    monkeypatch.setattr(Machine, "here", lambda accelerator: on_cpu)
    words = [f"--data={data}", "--steps=20", "--s5mars.hard-threshold=0.8"]
    asked = Request(out=tmp_path / "x", arguments=words, methods=["supervised", "s5mars"])
    request, said = with_choices(asked)
    alone, _ = complete([*words[:2], "--method=supervised", "--out=run"])
    assert request.arguments == [*words, *alone[4:]]
    assert request.arguments[3:] == [f"--model={LIGHT}", "--resolution=384", "--crop=64"]
    assert "as there is no GPU" in said

    # What is given stays, and a comparison goes on as it is, also on another machine.
    given = replace(asked, arguments=[*words, "--model=resnet18", "--crop=64", "--resolution=full"])
    assert with_choices(given) == (given, "")
    write_comparison(asked.out, plan(request).comparison)
    monkeypatch.setattr(Machine, "here", lambda accelerator: on_gpu)
    assert with_choices(asked) == (request, "")


def test_a_comparison_is_extended_with_its_options(tmp_path: Path, fake_data: ModuleType) -> None:
    data = fake_data.plain(tmp_path / "data", images=6)
    words = [f"--data={data}", "--steps=20", "--model=resnet18", "--weights=none"]
    words += ["--pool=train", "--s5mars.soft-weight=0.5"]
    asked = Request(out=tmp_path / "x", arguments=words, methods=["supervised"])
    with pytest.raises(UserError, match="no row uses s5mars"):
        plan(asked)
    with pytest.raises(UserError, match="--pool is for methods that use a pool"):
        plan(replace(asked, arguments=words[:-1]))
    write_comparison(asked.out, plan(replace(asked, methods=["supervised", "s5mars"])).comparison)
    assert [cell.seed for cell in plan(replace(asked, seeds=[0, 1])).cells] == [0, 1]


def test_a_comparison_keeps_its_references_when_rows_are_added(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    data = fake_data.plain(tmp_path / "data", images=6)
    words = [f"--data={data}", "--steps=20", "--model=resnet18", "--weights=none"]
    asked = Request(out=tmp_path / "x", arguments=words, methods=["fixmatch"])
    write_comparison(asked.out, plan(asked).comparison)
    added = plan(replace(asked, methods=["ranpaste"])).comparison
    assert added.references == {"methods": "fixmatch"}
    # Supervised is the reference of all methods, whenever it joins them.
    joined = plan(replace(asked, methods=["supervised"])).comparison
    assert joined.references == {"methods": "supervised"}


def test_data_with_other_ignored_ids_are_others(tmp_path: Path) -> None:
    taxonomy = Taxonomy.of_names("site", ("soil", "rock"))
    one, other = (
        Dataset(tmp_path, "plain", taxonomy, MaskCoding({0: 0, 1: 1}, frozenset(ignored)), {})
        for ignored in ((), (7,))
    )
    found = differences(describe_data(one), describe_data(other))
    assert found == ["ignored: [] there, [7] now"]


def test_a_misspelled_encoder_is_refused_before_the_first_cell(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    data = fake_data.plain(tmp_path / "data", images=6)
    words = [f"--data={data}", "--steps=20", "--model=resnt18", "--weights=none"]
    with pytest.raises(UserError, match="resnt18 is not an encoder of timm; nearest: resnet18"):
        plan(Request(out=tmp_path / "x", arguments=words, methods=["supervised"]))


def test_a_list_of_the_pool_counts_by_its_content(tmp_path: Path, fake_data: ModuleType) -> None:
    data, listed = fake_data.plain(tmp_path / "data", images=6), tmp_path / "pool.txt"
    names = (data / "splits" / "train.txt").read_text().split()
    words = [f"--data={data}", "--steps=20", "--model=resnet18", f"--pool={listed}"]
    request = Request(out=tmp_path / "x", arguments=words, methods=["s5mars"])
    listed.write_text("\n".join(names))
    write_comparison(request.out, plan(request).comparison)
    listed.write_text("\n".join(reversed(names)))
    plan(request)
    listed.write_text(names[0])
    with pytest.raises(UserError, match=r"other settings \(.*training\.pool: pool\.txt, \w+ there"):
        plan(request)


def test_a_row_gets_only_the_options_that_it_uses(tmp_path: Path, fake_data: ModuleType) -> None:
    data = fake_data.plain(tmp_path / "data", images=6)
    pool = tmp_path / "pool.txt"
    pool.write_text((data / "splits" / "train.txt").read_text())
    words = [f"--data={data}", "--steps=20", "--model=resnet18", f"--pool={pool}"]
    methods = ["supervised", "fixmatch", "s5mars"]
    request = Request(out=tmp_path / "x", arguments=words, methods=methods)
    work = _Work(request, plan(request))

    def config_of(name: str) -> TrainConfig:
        cell = next(each for each in work.cells.values() if each.row.name == name)
        job = work._job(cell, tmp_path / "run")
        assert job.arguments is not None and Job.from_json(job.to_json()) == job
        return parse_training(job.arguments).config

    supervised, fixmatch, s5mars = map(config_of, methods)
    assert (supervised.pool, supervised.object_cache) == ("all", None)
    assert (fixmatch.pool, fixmatch.object_cache) == (str(pool), None)
    assert (s5mars.pool, s5mars.object_cache) == (str(pool), tmp_path / "x" / "objects")

    # A cell that an earlier version began has recorded all options.
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.ckpt").touch()
    cell = next(each for each in work.cells.values() if each.row.name == "supervised")
    words = [*words, "--method=supervised", "--crop=512", "--resolution=full"]
    old = [*words, f"--out={run}", "--labelled=1.0", "--seed=0", f"--object-cache={tmp_path}"]
    (run / "config.yaml").write_text(parse_training(old).text)
    job = work._job(cell, run)
    assert (job.run, job.arguments) == (run, None)


@pytest.mark.parametrize(
    ("option", "methods", "said"),
    [
        ("--objects=no", ["supervised", "fixmatch"], "not for supervised, fixmatch: leave it out"),
        ("--pool=train", ["supervised"], "--pool is for methods that use a pool, not for superv"),
        ("--objects=no", ["supervised", "s5mars"], "no does not exist: leave out --objects"),
        ("--pool=no.txt", ["supervised", "s5mars"], "no.txt: no such file"),
    ],
)
def test_an_option_that_no_row_uses_or_that_names_nothing(
    option: str, methods: list[str], said: str, tmp_path: Path, fake_data: ModuleType
) -> None:
    data = fake_data.plain(tmp_path / "data", images=6)
    words = [f"--data={data}", "--steps=20", "--model=resnet18", option]
    with pytest.raises(UserError, match=said):
        plan(Request(out=tmp_path / "x", arguments=words, methods=methods))


def test_a_changed_label_or_file_of_an_option_is_another_comparison(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    data, objects, run = (tmp_path / name for name in ("data", "objects", "run"))
    fake_data.plain(data, images=6)
    for folder in (objects, run):
        folder.mkdir()
    (objects / "a.parquet").write_bytes(b"1")
    (run / "best.safetensors").write_bytes(b"1")
    words = [f"--data={data}", "--steps=20", f"--objects={objects}", f"--start-from={run}"]
    request = Request(out=tmp_path / "x", arguments=words, methods=["s5mars"])
    write_comparison(request.out, plan(request).comparison)
    (run / "metrics.json").write_text("{}")  # scores that are added change nothing
    (objects / ".DS_Store").touch()
    recorded = read_comparison(request.out)
    assert plan(request).comparison == recorded
    mask = next((data / "masks").rglob("*.png"))
    for path, said in (
        (mask, "the labels differ"),
        (objects / "a.parquet", "the content of --objects differs"),
        (objects / "b.parquet", "the content of --objects differs"),
        (run / "best.safetensors", "the content of --start-from differs"),
    ):
        before = path.read_bytes() if path.exists() else None
        path.write_bytes((before or b"") + b"2")
        with pytest.raises(UserError, match=rf"other settings \({said}\)"):
            plan(request)
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    # Without a record of the content, it goes on and has one from then on.
    write_comparison(request.out, replace(recorded, content={}))
    assert plan(request).comparison == recorded


def test_a_broken_link_to_a_label_that_no_cell_uses_is_accepted(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    data, names = fake_data.plain(tmp_path / "data", images=6), tmp_path / "names.txt"
    used, unused, *_ = (data / "splits" / "train.txt").read_text().split()
    names.write_text(f"{used}\n")
    mask = data / "masks" / f"{unused}.png"
    mask.unlink()
    mask.symlink_to("nowhere")
    words = [f"--data={data}", "--steps=20", "--model=resnet18", "--weights=none"]
    request = Request(
        out=tmp_path / "x", arguments=words, methods=["supervised"], labelled=[str(names)]
    )
    assert plan(request).comparison == plan(request).comparison


def test_training_images_are_not_scored() -> None:
    with pytest.raises(UserError, match=r"--split must not be train, .*; use val or test"):
        Request(out=Path("x"), arguments=[], methods=["supervised"], split="train")


def test_a_list_is_checked_before_the_first_cell(tmp_path: Path, fake_data: ModuleType) -> None:
    data = fake_data.plain(tmp_path / "data", images=6)
    words = [f"--data={data}", "--steps=20", "--model=resnet18", "--weights=none"]
    names = tmp_path / "names.txt"
    asked = Request(
        out=tmp_path / "x", arguments=words, methods=["supervised"], labelled=["0.5", str(names)]
    )
    (tested,) = (data / "splits" / "test.txt").read_text().split()[-1:]
    trained = (data / "splits" / "train.txt").read_text().split()[-1]
    for text, said in [
        (f"{trained}\n{tested}\n", f"names.txt: {tested} is in the test split"),
        ("nowhere\n", "names.txt lists 1 unknown file: nowhere"),
        ("99\n", "positions must be below"),
    ]:
        names.write_text(text)
        with pytest.raises(UserError, match=said):
            plan(asked)
    names.write_text(f"{trained}\n")
    assert len(plan(asked).cells) == 2
