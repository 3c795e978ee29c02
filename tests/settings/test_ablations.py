"""Each row changes the fields that it should, and trains."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from s5mars.cli import main
from s5mars.data.synthetic import write_synthetic
from s5mars.methods.s5mars import S5Mars
from s5mars.settings.ablations import ABLATIONS, find_ablation
from s5mars.settings.parsing import parse_training, training_from_yaml
from s5mars.settings.recipes import find_recipe
from s5mars.types import Batch
from tiny import PixelNet, batch, progress_at

DEFAULT = find_recipe("default").method("s5mars", S5Mars())
BASE = ["--data", "d", "--out", "o", "--steps", "5"]
NAMES = [f"{table}/{row}" for table, content in ABLATIONS.items() for row in content.rows]

ALONE = {"swap": "none", "mix.source": "none"}
STILL = {"mix.rotation": 0.0, "mix.flip": 0.0, "mix.rescale": (1.0, 1.0)}
CHANGES: dict[str, dict[str, Any]] = {
    "strong/identity": ALONE,
    **{
        f"strong/{kind}": ALONE | {"photometric": kind}
        for kind in ("gaussian_noise", "cutout", "gaussian_blur", "hue", "contrast", "equalize",
                     "brightness", "dropout")
    },
    "strong/cutmix": ALONE | {"mix.source": "rectangles"},
    "strong/augin": {"mix.source": "none"},
    "strong/sam_mix": {"swap": "none"},
    "augin/identity": {"swap": "none"},
    **{f"augin/{kind}": {"swap": kind} for kind in ("efdm", "wct", "fda", "mean", "both")},
    "augin/std": {},
    "mixing/identity": {"mix.source": "none"},
    "mixing/cutmix": {"mix.source": "rectangles"},
    "mixing/classmix": {"mix.source": "classmix"},
    "mixing/dacs": {"mix.source": "dacs"},
    "mixing/sam_mix": {},
    "objects/none": STILL,
    "objects/rotation": {k: v for k, v in STILL.items() if k != "mix.rotation"},
    "objects/flip": {k: v for k, v in STILL.items() if k != "mix.flip"},
    "objects/rescaling": {k: v for k, v in STILL.items() if k != "mix.rescale"},
    "objects/all": {},
    "labels/soft": {"hard_weight": 0.0},
    "labels/hard": {"soft_weight": 0.0},
    "labels/both": {},
    **{f"hard_threshold/{t:g}": {"hard_threshold": t} for t in (0.0, 0.5, 0.8, 0.9, 0.95)},
    "hard_threshold/0.7": {},
    **{f"soft_threshold/{t:g}": {"soft_threshold": t} for t in (0.5, 0.7, 0.8, 0.95, 1.0)},
    "soft_threshold/0.9": {},
    **{f"soft_weight/{w:g}": {"soft_weight": w} for w in (0.0, 0.25, 0.5, 2.0, 4.0)},
    "soft_weight/1": {},
    "soft_labels/with": {},
    "soft_labels/without": {"soft_weight": 0.0},
}  # fmt: skip


def flat(method: S5Mars) -> dict[str, Any]:
    fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    mix = fields.pop("mix")
    return fields | {f"mix.{f.name}": getattr(mix, f.name) for f in dataclasses.fields(mix)}


def test_every_row_is_in_the_table_below() -> None:
    assert sorted(CHANGES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_changes_these_fields_and_no_other(name: str) -> None:
    before, after = flat(S5Mars()), flat(find_ablation(name).change(S5Mars()))
    assert {k: v for k, v in after.items() if v != before[k]} == CHANGES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_it_needs_and_trains(name: str) -> None:
    method = find_ablation(name).change(S5Mars())
    assert method.needs.objects == (CHANGES[name].get("mix.source", "objects") == "objects")
    torch.manual_seed(0)
    student = PixelNet()
    teacher = copy.deepcopy(student).eval()
    given = batch(valid=0.8, pool_labelled=0.0)
    if not method.needs.objects:
        given = Batch(dataclasses.replace(given.labelled, objects=None), given.pool)
    terms = method.losses(student, teacher, given, progress_at(seed=0, step=5, total=10))
    unsupervised = [term for key, term in terms.items() if key != "supervised" and term.weight]
    assert len(unsupervised) == (1 if name in {"labels/soft", "labels/hard", "soft_weight/0",
                                               "soft_labels/without"} else 2)  # fmt: skip
    loss = torch.stack([term.weight * term.value for term in unsupervised]).sum()
    loss.backward()
    gradient = student.convolution.weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", [n for n in NAMES if n.partition("/")[0] in {"strong", "augin"}])
def test_a_row_shows_another_image_unless_it_is_the_identity(name: str) -> None:
    method = dataclasses.replace(
        find_ablation(name).change(S5Mars()), mix=dataclasses.replace(S5Mars().mix, source="none")
    )
    given = batch()
    assert given.pool is not None
    view = method.strong_view(PixelNet(), given, given.pool, progress_at(seed=0, step=0, total=9))
    unchanged = torch.equal(view.image, given.pool.image.float() / 255)
    assert unchanged == (name.partition("/")[2] in {"identity", "cutmix", "sam_mix"})


def test_numbers_are_those_of_the_paper() -> None:
    whole = [
        row.paper
        for table, name in (("augin", "std"), ("mixing", "sam_mix"), ("labels", "both"))
        for row in [ABLATIONS[table].rows[name]]
    ]
    assert whole == [(84.73, 80.15)] * 3
    read = {table for table, content in ABLATIONS.items() for r in content.rows.values() if r.paper}
    assert read == {"augin", "mixing", "labels"}
    for table in read:
        best = max(ABLATIONS[table].rows.values(), key=lambda row: row.paper or (0, 0))
        assert best.paper == (84.73, 80.15)


def test_an_unknown_row_lists_all_the_nearest_first() -> None:
    for wrong, nearest in (("augin/edfm", "augin/efdm"), ("mixing/class_mix", "mixing/classmix")):
        with pytest.raises(ValueError) as caught:
            find_ablation(wrong)
        message = str(caught.value)
        assert f"nearest first: {nearest}, " in message and "\n" not in message
        assert all(name in message for name in NAMES)


def test_the_row_comes_after_the_recipe_and_before_options() -> None:
    settings = parse_training([*BASE, "--ablation", "augin/efdm"])
    assert settings.config.ablation == "augin/efdm"
    assert settings.method == dataclasses.replace(DEFAULT, swap="efdm")

    released = find_recipe("as_released").method("s5mars", S5Mars())
    settings = parse_training([*BASE, "--recipe", "as_released", "--ablation=objects/all"])
    assert isinstance(settings.method, S5Mars)
    assert settings.method.soft_weight == released.soft_weight == 0.5
    assert settings.method.mix.rotation == 20 and settings.method.mix.extra_rectangle

    settings = parse_training([*BASE, "--ablation", "augin/efdm", "--s5mars.swap", "wct", "--ohem"])
    assert settings.method == dataclasses.replace(DEFAULT, swap="wct")


def test_without_mixing_the_released_rectangle_is_gone_too() -> None:
    for row in ("mixing/identity", "strong/identity"):
        settings = parse_training([*BASE, "--recipe", "as_released", "--ablation", row])
        assert isinstance(settings.method, S5Mars)
        assert not settings.method.mix.extra_rectangle


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_a_run_come_back(name: str, tmp_path: Path) -> None:
    given = parse_training([*BASE, "--ablation", name])
    path = tmp_path / "config.yaml"
    path.write_text(given.text)
    assert training_from_yaml(path) == given
    assert yaml.safe_load(given.text)["ablation"] == name


def test_a_row_may_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data: d\nout: o\nsteps: 5\nablation: labels/soft\n")
    assert training_from_yaml(path).method == dataclasses.replace(DEFAULT, hard_weight=0.0)
    settings = parse_training(["--config", str(path), "--ablation", "labels/hard"])
    assert settings.method == dataclasses.replace(DEFAULT, soft_weight=0.0)


def test_the_command_line_prints_the_changed_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *BASE, "--ablation", "augin/efdm", "--print-config"])
    assert not ended.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["ablation"] == "augin/efdm" and printed["s5mars"]["swap"] == "efdm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ablation", "augin/edfm"], "unknown ablation 'augin/edfm'; nearest first: augin/efdm"),
        (["--ablation", "augin"], "unknown ablation 'augin'; nearest first: augin/"),
        (["--method", "supervised", "--ablation", "augin/efdm"],
         "ablation 'augin/efdm' needs --method s5mars (got supervised)"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *BASE, *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


def test_the_names_import_nothing_heavy() -> None:
    code = "import sys, s5mars.settings.ablations; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_documentation_has_every_row_and_every_score() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "method.md").read_text("utf-8")
    for table, content in ABLATIONS.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{table}` | `"))
        rows = " ".join(f"`{row}`" for row in content.rows)
        assert line.startswith(f"| `{table}` | {rows} | {content.source} |")
        for row, one in content.rows.items():
            if one.paper:
                assert f"`{row}` | {one.paper[0]:.2f} / {one.paper[1]:.2f} |" in text


def test_a_run_of_a_row_makes_no_objects_that_it_does_not_paste(tmp_path: Path) -> None:
    scenes = write_synthetic(tmp_path / "scenes", images=14, size=64, unlabelled=2)
    out = tmp_path / "run"
    settings = {
        "data": scenes, "out": out, "labelled": 0.5, "steps": 2, "batch": 2, "crop": 48,
        "model": "test_resnet", "weights": "none", "workers": 0, "warm-up": 0, "ramp": 0,
        "ablation": "mixing/classmix", "resolution": "full",
    }  # fmt: skip
    assert main(["train", *(f"--{key}={value}" for key, value in settings.items())]) == 0
    assert not (out / "objects").exists()
    written = training_from_yaml(out / "config.yaml")
    assert written.method == find_ablation("mixing/classmix").change(DEFAULT)
