"""Class maps: scores by hand on another taxonomy, rules of a map, and the maps of the package."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s5mars.classes import AI4MARS, IGNORE, MARS_SEG, S5MARS, Class, Taxonomy
from s5mars.cli import main
from s5mars.evaluation import command
from s5mars.evaluation.class_map import ClassMap, named_maps
from s5mars.models.checkpoint import LoadedModel
from s5mars.predict.inference import DEFAULT
from s5mars.predict.predictor import Predictor

from .standin import sample

evaluate = partial(command.evaluate, inference=DEFAULT, draws=20)


def taxonomy(name: str, *classes: str) -> Taxonomy:
    return Taxonomy(name, tuple(Class(each, (i, 0, 0)) for i, each in enumerate(classes)))


MODEL = taxonomy("model", "dust", "sand", "big_rock", "sky")
DATA = taxonomy("data", "sand", "gravel", "rock", "rover")
PAIRS = "dust=sand+gravel, sand=sand+gravel, big rock=rock, sky=-, -=rover"

# dust and sand together beat the rock; sky beats everything, but may not be chosen.
PROBABILITIES = torch.tensor(
    [
        [0.30, 0.30, 0.40, 0.00],  # → sand+gravel, though the rock is the most probable
        [0.10, 0.20, 0.60, 0.10],  # → rock
        [0.05, 0.10, 0.25, 0.60],  # → rock, of what is left
        [0.15, 0.20, 0.25, 0.40],  # → sand+gravel
    ]
)


class Table(nn.Module):
    """Row k of the probabilities where the red channel is 50·k."""

    def __init__(self, *, sharp: float = 1.0) -> None:
        super().__init__()
        self.rows = nn.Parameter(sharp * PROBABILITIES.clamp(min=1e-6).log())

    def forward(self, image: Tensor) -> Tensor:
        return self.rows[(image[:, 0].long() // 50).clamp(max=3)].permute(0, 3, 1, 2)


TRUTH = np.array([[0, 1, 2, 3], [2, 2, 0, IGNORE]], np.uint8).repeat(16, 0).repeat(16, 1)
ROWS = np.array([[0, 3, 1, 2], [2, 0, 1, 0]], np.uint8).repeat(16, 0).repeat(16, 1)
# truth, prediction: sand sand+gravel ✓ | gravel sand+gravel ✓ | rock rock ✓ | rover: left out
#                    rock rock ✓ | rock sand+gravel ✗ | sand rock ✗ | unlabelled
BY_HAND = (np.array([[2, 1], [1, 2]]) * 256).tolist()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "other rover"
    sample(root, "a", TRUTH, ROWS)
    (root / "splits").mkdir()
    (root / "splits/test.txt").write_text("a\n")
    lines = ["classes:", *(f"- {{name: {name}, ids: [{i}]}}" for i, name in enumerate(DATA.names))]
    (root / "dataset.yaml").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(
        command, "open_model", lambda path, *, network: LoadedModel(Table(), MODEL, {}, network)
    )
    return folder


def test_scores_by_hand(run: Path, data: Path) -> None:
    found = evaluate(run, data=data, class_map=PAIRS)
    assert found["confusion"] == BY_HAND
    assert list(found["classes"]) == ["sand+gravel", "rock"]
    assert found["mIoU"] == pytest.approx(50)  # 2 / 4 and 2 / 4
    assert found["pixel_accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["protocol"]["map"] == {
        "name": "",
        "classes": {"sand+gravel": ["dust", "sand"], "rock": ["big_rock"]},
        "ignored_of_model": ["sky"],
        "ignored_of_data": ["rover"],
        "ignored_pixels": pytest.approx(100 / 7),
        "temperature": 1.0,
    }


def test_the_table_names_what_was_merged_and_left_out(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, data=data, class_map=PAIRS)
    text = capsys.readouterr().out
    assert "dust and sand of the model are sand+gravel, with their probabilities added" in text
    assert "The model cannot predict sky. Pixels of rover (14.3 % of the labelled ones)" in text


def test_the_evaluation_of_its_own_data_stays(run: Path, data: Path) -> None:
    own = run / "evaluation-test-full.json"
    own.write_text("{}")
    evaluate(run, data=data, class_map=PAIRS)
    evaluate(run, data=data, class_map="dust=sand, sand=gravel, big rock=rock, *=-, -=*")
    assert own.read_text() == "{}"
    names = sorted(path.name for path in run.glob("cross-*.json"))
    assert len(names) == 2 and all(name.startswith("cross-other_rover-map-") for name in names)
    assert json.loads((run / names[0]).read_text())["protocol"]["map"]["ignored_of_model"] == [
        "sky"
    ]


def test_sums_are_of_calibrated_probabilities() -> None:
    """At a high temperature two small classes together overtake a large one."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 50  # 0.1 and 0.2 against 0.6
    mapped = ClassMap.parse(PAIRS).between(MODEL, DATA)
    for temperature, scored in ((1.0, 1), (4.0, 0)):
        predictor = Predictor(Table(), MODEL, temperature=temperature)
        assert (mapped.predict(predictor, image) == scored).all()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("dust=sand, sand=gravel", "big_rock, sky of the model and rock, rover of the data"),
        ("dust=sand, dust=rock, *=-, -=*", "dust of the model is mapped twice"),
        ("dust=sand+gravel, sand=gravel, *=-, -=*", "gravel of the data is mapped twice"),
        ("dust=sand, -=sand, *=-, -=*", "sand of the data is mapped twice"),
        ("dust=sandd, *=-, -=*", "the data has no class 'sandd'; it has .*did you mean 'sand'"),
        ("dust=sand, *=-, -=*", "fewer than two classes"),
        ("dust=sand, sand", "'sand' is not of the form"),
        ("*=sand", r"the model has no class '\*'"),
        ("ai4mars-marscapes", "did you mean 'ai4mars-marsscapes'"),
    ],
)
def test_a_map_that_does_not_fit_says_why(pairs: str, message: str, run: Path, data: Path) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(run, data=data, class_map=pairs)
    assert not list(run.iterdir())


def test_all_others_are_ignored_wherever_that_stands() -> None:
    first, last = (
        ClassMap.parse(text).between(MODEL, DATA)
        for text in ("*=-, -=*, dust=sand, big rock=rock", "dust=sand, big rock=rock, -=*, *=-")
    )
    assert first == last
    assert first.of_model == (0, None, 1, None) and first.of_data == (0, None, 1, None)


def test_without_a_map_the_error_names_the_option(run: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="or use --map"):
        evaluate(run, data=data)
    with pytest.raises(ValueError, match=r"soil=soil\+gravel"):
        evaluate(run, data=data, class_map=PAIRS, merge=["a+b"])


MARSSCAPES = taxonomy(
    "m", "soil", "bedrock", "sand", "gravel", "big rock", "steep slope", "sky", "unknown"
)
MARSSCAPES_OF_SIX = taxonomy("m", "soil", "bedrock", "gravel", "sand", "rock", "sky")
CLASSES = {
    "s5mars": [S5MARS],
    "ai4mars": [AI4MARS],
    "mars-seg": [MARS_SEG],
    "marsscapes": [MARSSCAPES, MARSSCAPES_OF_SIX],
}


def test_maps_of_the_package_fit_every_pair_of_data_sets() -> None:
    wanted = {f"{a}-{b}" for a in CLASSES for b in CLASSES if a != b}
    assert set(named_maps()) == wanted
    for name in wanted:
        a, b = next((x, y) for x in CLASSES for y in CLASSES if f"{x}-{y}" == name)
        for model in CLASSES[a]:
            for data in CLASSES[b]:
                mapped = ClassMap.parse(name).between(model, data)
                assert len(mapped.taxonomy) >= 4
                # Bedrock is bedrock everywhere, and nothing else is.
                bedrock = mapped.of_model[model.names.index("bedrock")]
                assert bedrock is not None and mapped.of_model.count(bedrock) == 1
                assert mapped.of_data[data.names.index("bedrock")] == bedrock
                assert mapped.of_data.count(bedrock) == 1


def test_there_and_back_are_the_same_merges() -> None:
    for name in named_maps():
        a, b = next((x, y) for x in CLASSES for y in CLASSES if f"{x}-{y}" == name)
        there = ClassMap.parse(name).between(CLASSES[a][0], CLASSES[b][0])
        back = ClassMap.parse(f"{b}-{a}").between(CLASSES[b][0], CLASSES[a][0])

        def groups(of_a: tuple[int | None, ...], of_b: tuple[int | None, ...]) -> set[object]:
            found = {
                (
                    frozenset(i for i, x in enumerate(of_a) if x == k),
                    frozenset(i for i, x in enumerate(of_b) if x == k),
                )
                for k in of_a
                if k is not None
            }
            return set(found)

        assert groups(there.of_model, there.of_data) == groups(back.of_data, back.of_model), name


def test_the_command_line(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--data", str(data), "--map", PAIRS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["confusion"] == BY_HAND
