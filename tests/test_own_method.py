"""The example of docs/method.md: as an object, and registered by an installed package."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from torch import nn

import s5mars
from fakedata import plain
from s5mars.cli import main
from s5mars.comparison.grid import method_rows
from s5mars.comparison.results import read_comparison
from s5mars.data.synthetic import write_synthetic
from s5mars.methods import method_name, method_title
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.supervised import Supervised
from s5mars.training.signals import Ended
from s5mars.types import Needs, Term

DOCS = Path(__file__).resolve().parents[1] / "docs" / "method.md"
SECTION = (
    DOCS.read_text(encoding="utf-8").partition("## A method of your own")[2].partition("\n## ")[0]
)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
(_, LISTING), (_, CALL), (_, TOML), (_, COMMANDS) = BLOCKS
TINY: dict[str, Any] = {
    "labelled": 0.5, "steps": 2, "batch": 2, "crop": 32, "resolution": "full",
    "model": "test_resnet", "weights": "none", "workers": 0, "accelerator": "cpu", "warm_up": 0,
    "ramp": 0,
}  # fmt: skip
OPTIONS = [
    f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "labelled"
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("own") / "DATA", images=10, size=48)


def install(folder: Path, entry_points: dict[str, str], *, name: str = "my-methods") -> None:
    """What pip writes for these entry points."""
    about = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"{name} = {value}\n" for name, value in entry_points.items()]
    (about / "entry_points.txt").write_text("[s5mars.methods]\n" + "".join(lines))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.usefixtures("cells_here")
def test_the_example_is_passed_as_an_object(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(LISTING, "listing", "exec", dont_inherit=True), names)
    own = names["EntropyMinimisation"]
    for name in ("train", "compare"):
        monkeypatch.setattr(s5mars, name, trained_tiny(getattr(s5mars, name)), raising=False)
    exec(CALL.replace("DATA", str(scenes)), names)
    run = names["run"]
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert run.folder == Path("runs/DATA-entropy_minimisation-1")
    assert config["method"] == "entropy_minimisation"
    assert config["entropy_minimisation"] == {"weight": 0.05}
    assert run.metrics["history"][-1]["terms"].keys() == {"supervised", "entropy"}
    assert run.evaluate()["protocol"]["images"] == 2

    found = names["results"]
    assert list(found.runs) == [("supervised", "0.5", 0), ("entropy_minimisation", "0.5", 0)]
    assert "Entropy minimisation" in found.table()
    of_own = found.runs["entropy_minimisation", "0.5", 0]
    assert of_own.metrics["history"][-1]["terms"].keys() == {"supervised", "entropy"}
    recorded = json.loads((of_own.folder / "versions.json").read_text())["command"]
    assert recorded[:2] == ["s5mars", "train"] and recorded != sys.argv

    # Another process does not know the class.
    (run.folder / "metrics.json").unlink()
    assert main(["train", "--resume", str(run.folder)]) == 2
    assert "s5mars.Run.resume as an object" in capsys.readouterr().err
    assert run.resume(method=own(weight=0.05)).metrics["steps"] == 2
    with pytest.raises(s5mars.UserError, match=r"weight is 0\.1 in the method object and 0\.05 in"):
        run.resume(method=own())
    with pytest.raises(s5mars.UserError, match="method object is of supervised"):
        run.resume(method=Supervised())


def trained_tiny(train: Callable[..., Any]) -> Callable[..., Any]:
    return lambda folder, **settings: train(folder, **{**settings, **TINY})


class Unlucky(Supervised):
    title = "Unlucky"

    happens: ClassVar[Callable[[], object]] = lambda: None

    def losses(self, *arguments: Any) -> dict[str, Term]:
        type(self).happens()
        return super().losses(*arguments)


def test_an_object_that_is_stopped_or_fails_is_compared_again_by_the_same_call(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(**others: Any) -> s5mars.Comparison:
        return s5mars.compare(scenes, methods=[Unlucky()], out=tmp_path / "x", **TINY, **others)

    def fail() -> None:
        raise ValueError("no luck")

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Unlucky, "happens", fail)
    with pytest.raises(s5mars.UserError, match="1 of 1 cell failed; repeat the command with"):
        compare()
    assert "ValueError: no luck" in (tmp_path / "x" / "comparison.json").read_text()
    monkeypatch.setattr(Unlucky, "happens", stop)
    with pytest.raises(KeyboardInterrupt):
        compare(retry_failed=True)
    (cell,) = read_comparison(tmp_path / "x").cells
    assert cell.status == "stopped"
    monkeypatch.setattr(Unlucky, "happens", lambda: None)
    (run,) = compare().runs.values()
    assert run.metrics["steps"] == 2


def test_objects_of_one_class_have_one_row() -> None:
    with pytest.raises(s5mars.UserError, match="two methods have the name 'supervised'"):
        s5mars.compare("x", methods=["supervised", Supervised()], out="x")


def test_a_title_that_is_inherited_is_told_apart() -> None:
    """A table compares rows by their titles; a subclass need not have one of its own."""

    class Changed(Supervised):
        pass

    rows = method_rows(["supervised", "supervised_averaged", Changed()])
    assert [row.title for row in rows] == [
        "Supervised", "Supervised, averaged", "Supervised (changed)",
    ]  # fmt: skip


@pytest.mark.usefixtures("cells_here")
def test_the_example_is_registered_by_a_package(
    scenes: Path,
    tmp_path: Path,
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    project = tomllib.loads(TOML)
    (module,) = project["tool"]["setuptools"]["py-modules"]
    (site / f"{module}.py").write_text(LISTING)
    install(site, project["project"]["entry-points"]["s5mars.methods"])
    try:
        for command in COMMANDS.splitlines():
            words = command.replace("DATA", str(scenes)).split()[1:]
            words += OPTIONS if "--steps" in words else []
            assert main(words) == 0, (command, capsys.readouterr().err)
        config = yaml.safe_load(Path("runs/own/config.yaml").read_text())
        assert config["entropy_minimisation"] == {"weight": 0.05}
        assert method_title("entropy_minimisation") == "Entropy minimisation"
        results = s5mars.Comparison("results/own")
        assert "Entropy minimisation" in results.table()
        assert {key[0] for key in results.runs} == {"supervised", "entropy_minimisation"}
        # Options of the method stay out of the other rows, as for the package's own.
        kind = sys.modules[module].EntropyMinimisation
        assert method_name(kind) == "entropy_minimisation"
        capsys.readouterr()
        assert main(["train", "--method=entropy_minimisation", "--help"]) == 0
        assert "--entropy-minimisation.weight" in capsys.readouterr().out
    finally:
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("s5mars", "mine:Mine", "s5mars has a method 's5mars' itself"),
        ("crop", "mine:Mine", "train has an option --crop"),
        ("deeplab", "mine:Mine", "train has an option --deeplab"),
        ("a-b", "mine:Mine", "letters, digits and underscores"),
        ("mine", "no_such_module:Mine", "cannot be imported (No module named 'no_such_module')"),
        ("mine", "textwrap:Mine", "cannot be imported (module 'textwrap' has no attribute 'Mine')"),
        ("mine", "textwrap:TextWrapper", "lacks the decorator @dataclass, title, needs, losses"),
    ],
)
def test_registrations_that_do_not_fit_name_the_package(
    site: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, reason: str
) -> None:
    install(site, {name: value}, name="their-methods")
    data = plain(site / "data")
    assert main(["train", str(data), "--method=mine", "--steps=1", "--out=x"]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "their-methods" in said or "TextWrapper" in said


@dataclass(frozen=True, kw_only=True)
class Own:
    title: ClassVar[str] = "Own"

    weight: float = 1.0
    scales: list[int] = field(default_factory=lambda: [1, 2])

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, student: nn.Module, *_: Any) -> dict[str, Term]:
        raise NotImplementedError


def with_fields(name: str, **annotations: Any) -> type[Any]:
    members = {"__annotations__": annotations, "__module__": __name__}
    return dataclass(frozen=True, kw_only=True)(type(name, (Own,), members))


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        (Own(scales=(1, 2)), {}, r"own\.scales is \(1, 2\) in the method object and \[1, 2\] in"),  # type: ignore[arg-type]
        (
            Own(weight=2.0),
            {"own": {"weight": 3}},
            r"own\.weight is 2\.0 in the method object and 3",
        ),
        (Own(), {"own": {"wait": 3}}, r"unknown option --own\.wait; did you mean '--own\.weight'"),
        (Own, {}, "must be an object"),
        (S5Mars(), {"ablation": "augin/efdm"}, "give no method object"),
        (with_fields("Crop")(), {}, "train has an option --crop"),
        (with_fields("San")(), {}, "s5mars has a method 'san' itself"),
        (
            with_fields("Netted", net=nn.Module)(net=nn.Identity()),
            {},
            "a field of Netted cannot be an option",
        ),
        (object(), {}, "lacks the decorator @dataclass, title, needs, losses"),
    ],
)
def test_objects_that_do_not_fit(
    scenes: Path, tmp_path: Path, method: Any, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(s5mars.UserError, match=reason):
        s5mars.train(scenes, method=method, out=tmp_path / "x", steps=1, **settings)
    assert not (tmp_path / "x").exists()


def test_names_of_classes() -> None:
    assert method_name(S5Mars) == "s5mars"
    for name, expected in (("MyMethod", "my_method"), ("CPS", "cps"), ("MyCPSPlus", "my_cps_plus")):
        assert method_name(with_fields(name)) == expected


def test_an_object_of_the_package_has_the_name_of_its_method(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def train(config: Any, method: Any, **_: Any) -> Ended:
        seen.append((config.method, method))
        return Ended(scenes)

    monkeypatch.setattr("s5mars.training.run.train", train)
    with pytest.raises(s5mars.UserError, match="not the folder of a run"):
        s5mars.train(
            scenes, method=S5Mars(soft_weight=0.25), recipe="as_released", steps=1, out=tmp_path
        )
    # The recipe does not change what the object says.
    assert seen == [("s5mars", S5Mars(soft_weight=0.25))]
