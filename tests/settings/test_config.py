"""No option is accepted and ignored."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

import s5mars
from s5mars.augment.sam_mix import SamMix
from s5mars.errors import UserError
from s5mars.methods import METHODS, OF_A_NETWORK, method_class
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import NETWORKS, NetworkOptions
from s5mars.settings.parsing import parse_training, with_values
from s5mars.settings.paths import with_absolute_paths

SOURCE = Path(s5mars.__file__).parent


def code_outside(*names: str) -> str:
    files = [path for path in SOURCE.rglob("*.py") if path.name not in names]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("name", [field.name for field in fields(TrainConfig)])
def test_every_setting_is_read_somewhere(name: str) -> None:
    if name in {"recipe", "ablation"}:  # read before the settings exist, to choose their defaults
        assert f"early.{name}" in code_outside("config.py")
        return
    name = {"crops": "tiles"}.get(name, name)  # read through a property
    assert re.search(rf"config\.{name}\b", code_outside("config.py")), f"nothing reads {name}"


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_option_of_a_network_is_read_where_it_is_built(kind: type[NetworkOptions]) -> None:
    text = (SOURCE / "models" / "build.py").read_text(encoding="utf-8")
    for field in fields(kind):
        assert re.search(rf"options\.{field.name}\b", text), field.name


def test_the_network_has_the_options_of_its_model() -> None:
    with pytest.raises(
        UserError, match="network is DeepLabOptions, but model san takes SideAdapterOptions"
    ):
        TrainConfig(data=Path("d"), out=Path("o"), steps=1, model="san")


@pytest.mark.parametrize("name", sorted({**METHODS, **OF_A_NETWORK}))
def test_every_field_of_a_method_is_read_in_its_file(name: str) -> None:
    text = (SOURCE / "methods" / f"{name}.py").read_text(encoding="utf-8")
    for field in fields(method_class(name)):  # type: ignore[arg-type]
        assert re.search(rf"self\.{field.name}\b", text), field.name


def test_every_field_of_the_paste_is_read() -> None:
    text = (SOURCE / "augment" / "sam_mix.py").read_text(encoding="utf-8")
    for field in fields(SamMix):
        assert f"self.{field.name}" in text or f".{field.name} " in text, field.name
    # The source is also what decides whether objects are loaded at all.
    assert "mix.source" in (SOURCE / "methods" / "s5mars.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": None}, "either --steps or --epochs"),
        ({"epochs": 2.0}, "--steps and --epochs are both given"),
        ({"steps": 0}, r"--steps must be above 0 \(got 0\)"),
        ({"steps": None, "epochs": float("nan")}, "--epochs must be finite"),
        ({"steps": None, "epochs": float("inf")}, "--epochs must be finite"),
        ({"objects": Path("o"), "object_cache": Path("c")}, "leave one of them out"),
        ({"batch": 0}, "--batch must be above 0"),
        ({"crop": 16}, "32 pixels"),
        ({"scale": (2.0, 0.5)}, "smallest and the largest"),
        ({"scale": (0.5, float("inf"))}, "finite and above 0"),
        ({"clip": -1.0}, "--clip must be at least 0"),
        ({"freeze_at": 0.0}, "--freeze-at must be"),
        ({"warm_up": 1.0}, "--warm-up must be in"),
        ({"alignment_power": 2.0}, "--alignment-power must be"),
        ({"select_on": "train"}, "--select-on must not be train"),
        ({"select_on": "test", "folds": 2}, "would choose its checkpoint on them"),
        ({"seed": -1}, r"--seed must be in \[0, 4294967295\] \(got -1\)"),
        ({"learning_rate": float("nan")}, "--learning-rate must be finite"),
        ({"balanced_crops": 1.5}, r"--balanced-crops must be in \[0, 1\]"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, object], words: str) -> None:
    settings: dict[str, object] = {"data": Path("d"), "out": Path("o"), "steps": 1} | changes
    with pytest.raises(ValueError, match=words):
        TrainConfig(**settings)  # type: ignore[arg-type]


def test_only_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("all", "auto", "unlabelled", "navcam", "0.5"):
        Path(name).mkdir()
    Path("list.txt").touch()
    words = ["--data=d", "--out=o", "--steps=1", "--model=resnet18"]
    named = parse_training([*words, "--pool=unlabelled", "--start-from=navcam"]).config
    assert with_absolute_paths(named) == replace(named, data=tmp_path / "d")
    default = with_absolute_paths(parse_training([*words, "--labelled=0.5"]).config)
    assert (default.pool, default.weights, default.labelled) == ("all", "auto", 0.5)
    (tmp_path / "navcam" / "best.safetensors").touch()
    paths = parse_training(
        [*words, "--pool=list.txt", "--labelled=list.txt", "--start-from=navcam",
         "--freeze=encoder", "--feature-cache=c"]
    )  # fmt: skip
    found = with_absolute_paths(paths.config)
    assert found.pool == found.labelled == str(tmp_path / "list.txt")
    assert found.start_from == str(tmp_path / "navcam")
    assert found.feature_cache == tmp_path / "c"


def test_paths_of_a_network_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data=d", "--out=o", "--steps=1"]
    cached = parse_training([*words, "--model=sam-cls", "--method=supervised", "--sam.features=f"])
    san = parse_training(
        [*words, "--recipe=san", "--model=san", "--method=san", "--side-adapter.checkpoint=a.pth"]
    )
    for training, group, wanted in (
        (cached, "sam", {"features": str(tmp_path / "f")}),
        (san, "side_adapter", {"checkpoint": str(tmp_path / "a.pth"), "input_side": 640}),
    ):
        config = with_absolute_paths(training.config)
        text = with_values(training.text, config, ["network"])
        assert yaml.safe_load(text)[group] == wanted
