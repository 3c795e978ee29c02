"""The functions for scripts and notebooks: the same choices, checks and errors as the commands."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import seed_everything
from PIL import Image

import s5mars
import s5mars.api
from s5mars.cli import main
from s5mars.data.synthetic import write_synthetic
from s5mars.methods.s5mars import S5Mars
from s5mars.settings.keywords import as_arguments
from s5mars.settings.parsing import parse_training
from s5mars.training.signals import Ended

DOCS = Path(__file__).resolve().parents[1] / "docs"
TINY: dict[str, Any] = {
    "steps": 2, "batch": 2, "crop": 32, "resolution": "full", "model": "test_resnet",
    "weights": "none", "workers": 0, "accelerator": "cpu", "warm_up": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("api") / "DATA", images=14, size=48)


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> s5mars.Run:
    out = tmp_path_factory.mktemp("runs") / "a"
    return s5mars.train(scenes, method="supervised", out=out, **TINY)


class Stop(Exception):  # noqa: N818 - nothing is wrong
    pass


def settings_of(call: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings and reasons with which a call would train."""
    seen: list[Any] = []

    def train(config: Any, method: Any, *, config_text: str, chosen: str) -> Path:
        seen.extend([config, method, config_text, chosen])
        raise Stop

    monkeypatch.setattr("s5mars.training.run.train", train)
    with pytest.raises(Stop):
        call()
    return seen


def test_import_is_quick() -> None:
    code = "import s5mars, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", s5mars.__all__)
def test_no_module_takes_the_place_of_a_public_name(name: str) -> None:
    """A subpackage ``s5mars.compare`` would replace the function when anything imports it."""
    import s5mars.cli
    import s5mars.comparison.runner
    import s5mars.demo
    import s5mars.evaluation.command

    assert not isinstance(getattr(s5mars, name), type(sys))


def test_without_options_it_chooses_as_the_command(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = list(sys.argv)
    here = settings_of(lambda: s5mars.train(scenes), monkeypatch)
    there = settings_of(lambda: main(["train", str(scenes)]), monkeypatch)
    assert here == there
    assert here[0].out == Path("runs/DATA-s5mars-1")
    assert sys.argv == arguments


def test_the_random_states_of_a_script_are_its_own(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002

    def train(config: Any, method: Any, **_: Any) -> Ended:
        drawn.append((*draws(), *(seed_everything(0, verbose=False), *draws())))
        return Ended(tmp_path)

    drawn: list[tuple[float, ...]] = []
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr("s5mars.training.run.train", train)
    monkeypatch.setattr(s5mars.api, "Run", Path)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = [draws(), draws()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    found = []
    for _ in range(2):
        s5mars.train(scenes, method="supervised", out=tmp_path / "x", **TINY)
        found.append(draws())
    assert found == expected
    assert drawn[0][3:] == drawn[1][3:]  # those of the runs do not depend on them
    assert "PL_GLOBAL_SEED" not in os.environ


def test_keywords_mean_what_the_options_mean(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = tmp_path / "list.txt"
    here = settings_of(
        lambda: s5mars.train(
            scenes, out=tmp_path / "x", labelled=lists, steps=np.int64(6), epochs=None,
            learning_rate=1e-5, scale=(0.5, 1), skip_bad=True, weights="none", objects=None,
            model="resnet50", deeplab={"decoder": "light", "multi_grid": [1, 2]},
            s5mars={"soft_weight": 0.25, "mix": {"rotation": 0}}, balanced_crops=np.float32(0.5),
        ),
        monkeypatch,
    )  # fmt: skip
    words = (
        f"train {scenes} --out {tmp_path}/x --labelled {lists} --steps 6 --learning-rate 1e-5 "
        "--scale [0.5,1] --skip-bad --weights none --model resnet50 --deeplab.decoder light "
        "--deeplab.multi-grid [1,2] --s5mars.soft-weight 0.25 --s5mars.mix.rotation 0 "
        "--balanced-crops 0.5"
    )
    assert here == settings_of(lambda: main(words.split()), monkeypatch)
    assert here[0].network.multi_grid == [1, 2]
    assert here[1].mix.rotation == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stepz": 6}, "unknown option --stepz; did you mean '--steps'"),
        ({"steps": "six"}, "steps is 'six': expected int"),
        ({"deeplab": {"decodr": "light"}}, "--deeplab.decodr; did you mean '--deeplab.decoder'"),
        ({"s5mars": {"soft_wait": 1}}, "--s5mars.soft-wait; did you mean '--s5mars.soft-weight'"),
        ({"crop": 8}, "--crop must be at least 32 pixels (got 8)"),
        ({"method": "s5mar"}, "unknown method 's5mar'; nearest first: s5mars"),
        ({"model": "san", "deeplab": {"decoder": "light"}}, "it is for a timm encoder, not san"),
        ({"data": "x"}, "the data is given twice, as DATA and as data"),
        ({"resume": "runs/a"}, r"s5mars.Run(folder).resume()"),
        ({"print_config": True}, "print_config is an option of the command line only"),
    ],
)
def test_errors_are_those_of_the_command(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(s5mars.UserError, match=re.escape(reason)):
        s5mars.train("DATA", **{"steps": 1, "out": "x", **settings})


def test_a_folder_is_needed() -> None:
    with pytest.raises(s5mars.UserError, match="the data folder is missing"):
        s5mars.train()


def test_numbers_lists_and_switches_as_text() -> None:
    nested = {"e_f": False, "g": ["x, y", Path("z")]}
    words = ["--a-b=[0.5, 2]", "--d.e-f=false", '--d.g=["x, y", z]']
    assert as_arguments({"a_b": (0.5, 2), "c": None, "d": nested}) == words
    config = parse_training(
        ["--data=x", "--out=y", *as_arguments({"steps": 1, "learning_rate": 3e-07})]
    ).config
    assert config.learning_rate == 3e-07


def test_a_run_that_goes_on_predicts_with_its_new_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("")
    weights = ["old"]
    monkeypatch.setattr(s5mars.api, "load", lambda folder, **settings: weights[0])
    monkeypatch.setattr(s5mars.api.command, "resume", lambda *_, **__: weights.insert(0, "new"))
    run = s5mars.Run(tmp_path)
    assert run.predictor == "old"
    assert run.resume().predictor == "new"
    assert run.predictor == "new"


def test_several_devices_are_for_the_command(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further processes would run the script again, or have no notebook to run."""
    monkeypatch.setattr(
        "s5mars.training.command.processes",
        lambda config: 4 if config.devices == "auto" else config.devices,
    )
    config, *_, chosen = settings_of(
        lambda: s5mars.train(scenes, steps=1, out=tmp_path / "x"), monkeypatch
    )
    assert config.devices == 1
    assert "training from Python takes one process" in chosen
    everything = {"model": "test_resnet", "resolution": "full", "crop": 32}
    *_, chosen = settings_of(
        lambda: s5mars.train(scenes, steps=1, out=tmp_path / "x", **everything), monkeypatch
    )
    assert [line.split()[0] for line in chosen.splitlines()] == ["chosen", "--devices=1"]
    with pytest.raises(s5mars.UserError, match="use the command s5mars train"):
        s5mars.train(scenes, steps=1, out=tmp_path / "x", devices=2)


def test_a_run_is_scored_and_described(scenes: Path, run: s5mars.Run) -> None:
    score = run.metrics["best"]["mIoU"]
    assert repr(run) == f"Run({run.folder}; Supervised, step 2 of 2, mIoU {score:.1f} % on val)"
    scores = run.evaluate(split="val", merge=["sky+ridge"], window=64)
    assert scores["protocol"]["merged"] == ["sky+ridge"]
    assert json.loads((run.folder / "evaluation-val-full-sky+ridge.json").read_text()) == scores
    assert repr(scores).startswith("class ")
    assert "The student was evaluated on the val split" in repr(scores)
    assert s5mars.evaluate(run, data=scenes)["protocol"]["split"] == "test"
    assert run.report(out=run.folder / "page.html").stat().st_size > 10_000
    command = json.loads((run.folder / "versions.json").read_text())["command"]
    assert command[:3] == ["s5mars", "train", f"--data={scenes}"]
    assert run.resume().metrics == run.metrics  # it is finished
    assert str(s5mars.load(run).name) == str(run.folder)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda run: run.evaluate(splt="val"), "unknown option --splt; did you mean '--split'"),
        (lambda run: run.evaluate(window="wide"), "argument --window: invalid int value: 'wide'"),
        (lambda run: run.evaluate(json=True), "json is an option of the command line only"),
        (lambda run: run.evaluate(protocol="papr"), "invalid choice: 'papr'"),
        (lambda run: run.report(outt="x"), "unknown option --outt; did you mean '--out'"),
        (lambda run: run.predict("nowhere.png"), "nowhere.png: no such file"),
        (lambda run: run.predict(run.folder), "is a folder: give one image"),
        (lambda run: run.predict(np.zeros((4, 4, 3))), "must have dtype uint8"),
        (lambda run: run.predict(Image.new("I;16", (4, 4))), "give the path of its file"),
        (lambda run: s5mars.Run("nowhere"), "is not the folder of a run"),
        (lambda run: s5mars.compare("DATA", methods=[object()], out="x"), "lacks the decorator"),
        (lambda run: s5mars.compare("DATA", methods=[S5Mars], out="x"), "write method=S5Mars()"),
        (lambda run: s5mars.compare("DATA", methods=S5Mars, out="x"), "write method=S5Mars()"),
        (lambda run: s5mars.compare("DATA", methods="all"), "required: --out"),
        (
            lambda run: s5mars.compare("DATA", methods=S5Mars(), out="x", keep_checkpoints=None),
            "give either --steps or --epochs",
        ),
        (lambda run: s5mars.compare("DATA", table_vi=1, out="x"), "table_vi must be True or False"),
        (lambda run: s5mars.compare("DATA", methods="s5mars", seed=1, out="x"), "use --seeds"),
        (lambda run: s5mars.Comparison("nowhere"), "has no comparison.json"),
    ],
)
def test_other_errors_are_those_of_the_commands(run: s5mars.Run, call: Any, reason: str) -> None:
    with pytest.raises(s5mars.UserError, match=re.escape(reason)):
        call(run)


def test_a_path_a_picture_and_an_array_have_one_map(
    scenes: Path, run: s5mars.Run, tmp_path: Path
) -> None:
    path = next((scenes / "images").iterdir())
    found = run.predict(path)
    for other in (str(path), Image.open(path), np.asarray(Image.open(path))):
        assert (run.predict(other).labels == found.labels).all()
    assert (run.load().predict(path) == found.labels).all()
    assert found.image.shape == (48, 48, 3)
    assert sum(found.shares.values()) == pytest.approx(1)

    # What has no data has no class, as in the maps of the command.
    picture = np.array(Image.open(path))
    picture[:, :20] = 0
    Image.fromarray(picture).save(tmp_path / "border.png")
    assert main(["predict", str(run.folder), f"{tmp_path}/border.png", f"--out={tmp_path}/m"]) == 0
    here = run.predict(tmp_path / "border.png").labels
    assert (here == np.array(Image.open(tmp_path / "m" / "border.png"))).all()
    assert (here[:, :19] == s5mars.IGNORE).all()
    assert (here != s5mars.IGNORE).any()


def test_orientation_and_palette_of_a_picture_count(run: s5mars.Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (40, 56, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90°
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.quantize(8).save(tmp_path / "palette.png")
    for name, shape in (("turned", (56, 40)), ("palette", (40, 56))):
        with Image.open(tmp_path / f"{name}.png") as opened:
            found = run.predict(opened)
        assert found.labels.shape == shape
        assert (found.image == run.predict(tmp_path / f"{name}.png").image).all()


def test_a_result_shows_itself(run: s5mars.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 2100, 3), np.uint8)
    found = run.predict(image)
    assert repr(found).startswith("Segmentation(2100 × 64; ")
    assert "mean confidence 0." in repr(found)
    assert found.overlay(legend=False).size == (2100, 64)
    assert np.asarray(found.overlay(opacity=0, legend=False)).tolist() == image.tolist()
    with pytest.raises(s5mars.UserError, match="opacity must be in"):
        found.overlay(opacity=2)

    # In a notebook it is displayed, made smaller; elsewhere it is opened in a viewer.
    displayed: list[Image.Image] = []
    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(
        get_ipython=lambda: shell, display=SimpleNamespace(display=displayed.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    found.show(opacity=0.25)
    del shell.kernel  # IPython in a terminal
    monkeypatch.setattr(Image.Image, "show", lambda self: displayed.append(self))
    found.show()
    monkeypatch.delitem(sys.modules, "IPython")
    found.show()
    assert [each.width for each in displayed] == [1024, 1024, 1024]


def test_what_a_predictor_is(run: s5mars.Run) -> None:
    said = repr(run.load(tta=True))
    assert said.startswith(f"Predictor({run.folder}; DeepLabV3+, test_resnet; 9 classes (")
    assert said.endswith("; resolution full; cpu; averaged over the horizontal flip)")


def test_folds(scenes: Path, tmp_path: Path) -> None:
    run = s5mars.train(
        scenes, method="supervised", out=tmp_path / "x", folds=2, **TINY | {"validate_every": 2}
    )
    mean = run.metrics["mIoU"]["mean"]
    assert repr(run) == f"Run({tmp_path / 'x'}; 2 folds, mIoU {mean:.1f} %)"
    first, second = run.folds
    assert first.metrics["steps"] == second.metrics["steps"] == 2
    with pytest.raises(s5mars.UserError, match="one model for each fold; give one of them"):
        run.evaluate()


def shown(value: object) -> str:
    """What a notebook shows of the last line of a cell."""
    if hasattr(value, "_repr_png_"):
        assert value._repr_png_().startswith(b"\x89PNG")
        return "picture"
    if hasattr(value, "_repr_markdown_"):
        return str(value._repr_markdown_())
    return "" if value is None else repr(value)


@pytest.mark.usefixtures("cells_here", "navcam")
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell in this process.

    A kernel needs twenty more packages, and a new process that imports for six seconds.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda _: None)
    notebook = json.loads((DOCS / "first_model.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    text = "\n\n".join("".join(cell["source"]) for cell in cells)
    (long,) = re.findall(r"^short = ({.*?^})$", text, re.MULTILINE | re.DOTALL)
    # The default of compare would be downloaded.
    assert ast.literal_eval(long)["model"] == "tf_efficientnet_lite0"
    short = repr(TINY | {"resolution": "48"})
    names: dict[str, Any] = {"__name__": __name__}
    last = []
    for cell in cells:
        code = "".join(cell["source"]).replace(long, short)
        # S5Mars would segment the objects of all images.
        body = ast.parse(code.replace('"s5mars"]', '"mean_teacher"]')).body
        end = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec", dont_inherit=True), names)
        if end is not None:
            value = eval(compile(ast.Expression(end.value), "cell", "eval"), names)
            last.append(shown(value))
    sizes, predictor, picture, run, scores, classes, shares, page, own, comparison = last
    assert sizes == repr({"train": 12, "val": 8, "test": 20, "unlabelled": 20})
    assert predictor.startswith("Predictor(navcam; ")
    assert picture == "picture"
    assert run.startswith("Run(runs/navcam60-supervised-1; Supervised, step 2 of 2, mIoU ")
    assert scores.startswith("class ")
    assert classes.startswith("{'soil': ")
    assert shares.startswith("{'soil': ")
    assert "report.html" in page
    assert own.startswith("class ")
    assert "Mean Teacher" in comparison


def test_a_misspelled_setting_of_load_is_named_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(s5mars.UserError, match=r"got 'abstian'\); did you mean 'abstain'"):
        s5mars.load(tmp_path / "no run", abstian=0.5)
