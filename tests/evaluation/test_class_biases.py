"""Class biases: brute force, few images, and everything that uses a model."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import s5mars
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.errors import UserError
from s5mars.evaluation.calibrate import calibrate
from s5mars.evaluation.class_biases import LARGEST_RANGE, fit_class_biases
from s5mars.evaluation.confusion import Confusion
from s5mars.evaluation.reliability import Pixels
from s5mars.models.checkpoint import load_model, save_model
from s5mars.models.facts import write_class_biases
from s5mars.predict.predictor import Predictor
from s5mars.training import class_biases as training_class_biases

from .standin import TINTS, Tint


def pixels_of(
    offset: tuple[float, ...], *, images: int = 20, each: int = 400, seed: int = 0
) -> Pixels:
    """Labels drawn from softmax(z + offset): the logits z lack the offset."""
    random = np.random.default_rng(seed)
    number, classes = images * each, len(offset)
    logits = random.normal(0, 1.5, (number, classes)).astype(np.float32)
    drawn = logits + np.array(offset) + random.gumbel(size=logits.shape)
    image = np.repeat(np.arange(images, dtype=np.int32), each)
    return Pixels(logits, drawn.argmax(1).astype(np.uint8), image)


def miou(pixels: Pixels, biases: Any) -> float:
    confusion = Confusion(pixels.logits.shape[1])
    confusion.update(pixels.label, (pixels.logits + np.asarray(biases, np.float32)).argmax(1))
    return confusion.mIoU


def test_two_classes_agree_with_brute_force() -> None:
    pixels = pixels_of((0.0, 2.0))
    found = fit_class_biases(pixels)
    grid = np.arange(-LARGEST_RANGE, LARGEST_RANGE + 0.1, 0.25)
    best = max(miou(pixels, (0, second)) for second in grid)
    assert found.factor == 1
    assert miou(pixels, found.values) == pytest.approx(best, abs=1e-3)
    assert found.before == pytest.approx(miou(pixels, (0, 0)))
    assert sum(found.values) == pytest.approx(0) and found.values[1] > found.values[0]


def test_no_other_bias_of_one_class_is_better() -> None:
    pixels = pixels_of((0.0, 1.5, -1.0))
    found = fit_class_biases(pixels)
    best = miou(pixels, found.values)
    assert best > found.before + 0.03 and found.held_out > found.before + 0.03
    for c, change in itertools.product(range(3), (-1.0, -0.25, 0.25, 1.0)):
        other = np.array(found.values)
        other[c] += change
        assert miou(pixels, other) <= best + 3e-4


def together(one: Pixels, other: Pixels) -> Pixels:
    """The pixels of the images of both, one set of images after the other."""
    return Pixels(
        np.concatenate([one.logits, other.logits]),
        np.concatenate([one.label, other.label]),
        np.concatenate([one.image, other.image + one.image.max() + 1]),
    )


def test_the_score_of_images_left_out_decides() -> None:
    """Images of one half want the opposite of what the images of the other half want."""
    one, other = pixels_of((0.0, 2.0), images=5), pixels_of((2.0, 0.0), images=5, seed=1)
    found = fit_class_biases(together(one, other))
    assert found.factor == 0 and set(found.values) == {0.0}


def test_the_folds_are_neighbours_and_are_left_out_of_the_fit() -> None:
    """Only the last two images, which may show one scene, want a bias: no other ones confirm it."""
    most, scene = pixels_of((0.0, 0.0), images=8), pixels_of((0.0, 2.0), images=2, each=8000)
    found = fit_class_biases(together(most, scene))
    assert found.factor == 0 and found.held_out == found.before


def alike(*groups: tuple[int, int, tuple[float, ...]]) -> Pixels:
    """Ten equal images; each group is a number of pixels, their class, and their logits."""
    repeats = [number for number, _, _ in groups]
    logits = np.repeat(np.array([z for _, _, z in groups], np.float32), repeats, axis=0)
    label = np.repeat(np.array([c for _, c, _ in groups], np.uint8), repeats)
    image = np.repeat(np.arange(10, dtype=np.int32), len(label))
    return Pixels(np.tile(logits, (10, 1)), np.tile(label, 10), image)


RIGHT = ((2000, 0, (9.0, 0.0)), (2000, 1, (0.0, 9.0)))
"""Pixels that no bias makes wrong."""


@pytest.mark.parametrize(("wrong", "factor"), [(1, 0.0), (4, 0.25)])
def test_a_gain_below_a_tenth_of_a_point_gives_none(wrong: int, factor: float) -> None:
    """Each wrong pixel in 2000 is 0.05 points; the smallest factor that repairs them is enough."""
    found = fit_class_biases(alike(*RIGHT, (wrong, 1, (0.3, 0.0))))
    assert found.factor == factor
    assert found.values == (-factor, factor)


def test_biases_differ_by_six_at_most() -> None:
    wrong = [(20, 1, (margin, 0.0)) for margin in (1.0, 3.0, 5.0, 7.0)]
    assert fit_class_biases(alike(*RIGHT, *wrong)).values == (-3, 3)


def test_a_bias_does_not_follow_a_few_pixels() -> None:
    """One pixel in 6000 is less than the gain for which a bias is changed."""
    right = [(6000, label, logits) for _, label, logits in RIGHT]
    found = fit_class_biases(alike(*right, (60, 1, (0.3, 0.0)), (1, 1, (3.0, 0.0))))
    assert found.values == (-0.25, 0.25)


def test_pixels_that_are_wrong_in_any_case_do_not_raise_a_class_without_labels() -> None:
    pixels = alike(
        *((number, label, (*logits, -9.0)) for number, label, logits in RIGHT),
        (500, 0, (0.05, 0.0, -9.0)), (500, 1, (0.0, 0.05, -9.0)),  # keep the two others in place
        (100, 1, (2.0, -9.0, 1.9)), (100, 0, (-9.0, 2.0, 1.9)),
    )  # fmt: skip
    assert fit_class_biases(pixels).values == (0, 0, 0)


def test_a_class_without_labels_is_not_raised() -> None:
    """Where both classes are likely to be wrong, a class without IoU would cost nothing."""
    pixels = pixels_of((0.0, 1.0))
    third = np.maximum(*pixels.logits.T) - np.abs(np.subtract(*pixels.logits.T))
    found = fit_class_biases(replace(pixels, logits=np.column_stack([pixels.logits, third])))
    assert found.values[2] == 0
    assert sum(found.values[:2]) == pytest.approx(0) and found.values[1] > found.values[0]


def test_few_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"at least 10 labelled images.*\(got 9\)"):
        fit_class_biases(pixels_of((0.0, 1.0), images=9))


def test_the_predictor_adds_them_before_the_temperature() -> None:
    image = np.random.default_rng(0).integers(0, 200, (40, 50, 3), np.uint8)
    biases, temperature = (0.0, 3.0, -2.0, 0.5), 2.0
    predictor = Predictor(Tint(), TINTS, class_biases=biases, temperature=temperature, window=32)
    labels, probabilities = predictor.predict(image, probabilities=True)
    logits = Tint()(torch.from_numpy(image).permute(2, 0, 1)[None])[0].double()
    logits = logits.detach() + torch.tensor(biases).double()[:, None, None]
    np.testing.assert_array_equal(labels, logits.argmax(0).numpy())
    np.testing.assert_allclose(probabilities, (logits / temperature).softmax(0), atol=1e-5)
    assert "class biases" in predictor.confidence_note
    assert (labels != Predictor(Tint(), TINTS).predict(image)).any()
    with pytest.raises(UserError, match=r"class_biases must have one value for each .* \(got 2\)"):
        Predictor(Tint(), TINTS, class_biases=(0.0, 1.0))


def train(data: Path, out: Path, **changes: object) -> Path:
    settings: dict[str, object] = {
        "data": data, "out": out, "method": "supervised", "steps": 4, "batch": 2, "crop": 32,
        "resolution": "full",
        "model": "test_resnet", "weights": "none", "workers": 0, "validate-every": 2,
    } | changes  # fmt: skip
    assert main(["train", *(f"--{key}={value}" for key, value in settings.items())]) == 0
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, fake_data: ModuleType) -> Path:
    return Path(fake_data.plain(tmp_path_factory.mktemp("mars") / "data", images=40))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A network that has learnt something, and predicts soil too rarely."""
    run = train(data, tmp_path_factory.mktemp("runs") / "run", recipe="paper", steps=30,
                **{"validate-every": 30})  # fmt: skip
    loaded = load_model(run)
    loaded.model.classifier.bias[0] -= 3  # type: ignore[union-attr, index]
    save_model(
        run / "best.safetensors", {"student": loaded.model},
        taxonomy=loaded.taxonomy, training=loaded.facts["training"],
    )  # fmt: skip
    return run


@pytest.fixture
def run(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_calibrate_fits_them_and_all_scores_use_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    before = json.loads((run / "evaluation-val-full.json").read_text())
    assert main(["calibrate", str(run), "--class-biases", "fit"]) == 0
    shown = capsys.readouterr().out
    assert "class biases: " in shown and "fitted on 10 images of the val split" in shown
    entry = json.loads((run / "best.json").read_text())["class_biases"]["student"]
    assert entry == json.loads((run / "calibration.json").read_text())["class_biases"]
    assert entry["before"] == pytest.approx(before["mIoU"], abs=0.01)
    assert entry["held_out"] > entry["before"]
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    assert "Class biases were added" in capsys.readouterr().out
    after = json.loads((run / "evaluation-val-full.json").read_text())
    assert after["mIoU"] > before["mIoU"]
    assert after["protocol"]["class_biases"] == entry["values"]
    assert after["protocol"]["class_biases_fitted_on"] == "val"
    assert main(["evaluate", str(run), "--split", "val", "--no-class-biases"]) == 0
    plain = json.loads((run / "evaluation-val-full-no-class-biases.json").read_text())
    assert plain["mIoU"] == before["mIoU"] and plain["protocol"]["class_biases"] is None
    assert plain["protocol"]["class_biases_fitted_on"] is None
    # A later fit of the temperature keeps them, and finds the same.
    together = json.loads((run / "calibration.json").read_text())
    assert not together["at_limit"]
    assert main(["calibrate", str(run)]) == 0
    later = json.loads((run / "calibration.json").read_text())
    assert later["temperature"] == pytest.approx(together["temperature"], rel=1e-3)
    assert later["before"]["nll"] == pytest.approx(together["before"]["nll"], rel=1e-4)
    assert s5mars.load(run).class_biases is not None
    assert s5mars.load(run, class_biases=False).class_biases is None
    # The scores of before are not taken for those of now.
    assert main(["calibrate", str(run), "--class-biases", "none"]) == 0
    assert s5mars.load(run).class_biases is None
    assert main(["report", str(run)]) == 0
    assert "class biases are newer than the evaluation" in (run / "report.html").read_text()


def test_the_onnx_file_contains_them(run: Path, data: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_class_biases(run, "student", {"values": [0.5, -1.0, 0.5]})
    assert main(["export", str(run), "--out", str(run / "a.onnx")]) == 0
    image = np.array(s5mars.load(run).predict(open_dataset(data).split("test")[0].image))
    here, there = s5mars.load(run), s5mars.load(run / "a.onnx")
    picture = np.random.default_rng(0).integers(0, 256, (*image.shape, 3), np.uint8)
    _, ours = here.predict(picture, probabilities=True)
    _, theirs = there.predict(picture, probabilities=True)
    np.testing.assert_allclose(theirs, ours, atol=2e-3)
    with pytest.raises(UserError, match="are a part of the file"):
        s5mars.load(run / "a.onnx", class_biases=False)
    assert main(["evaluate", str(run / "a.onnx"), "--data", str(data)]) == 0
    assert json.loads((run / "a.evaluation-test-full.json").read_text())["protocol"][
        "class_biases"
    ] == [0.5, -1.0, 0.5]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"student": {"values": [1.0, 2.0]}}, "2 class biases for 3 classes"),
        ({"student": {"values": [1.0, float("nan"), 0.0]}}, "class biases are"),
        ({"student": [1.0]}, "not a table with values"),
        ("x", "not a table with values"),
    ],
)
def test_damaged_entries_are_named(run: Path, entry: object, what: str) -> None:
    facts = json.loads((run / "best.json").read_text())
    (run / "best.json").write_text(json.dumps({**facts, "class_biases": entry}))
    with pytest.raises(UserError, match=rf"best\.json: damaged .*{what}"):
        s5mars.load(run)


def test_training_fits_them_on_the_selection_split(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = train(data, tmp_path / "fitted")
    assert "class biases: " in capsys.readouterr().out
    entry = json.loads((run / "best.json").read_text())["class_biases"]["student"]
    assert entry["split"] == "val" and entry["images"] == 10 and len(entry["values"]) == 3
    plain = train(data, tmp_path / "paper", recipe="paper")
    assert "class_biases" not in json.loads((plain / "best.json").read_text())
    # Stopped between the last step and the fit: resuming a finished run adds them.
    facts = json.loads((run / "best.json").read_text())
    unfitted = json.dumps({k: facts[k] for k in facts.keys() - {"class_biases"}})
    (run / "best.json").write_text(unfitted)
    assert main(["train", "--resume", str(run)]) == 0
    assert json.loads((run / "best.json").read_text())["class_biases"]["student"] == entry
    # Of a label with few pixels, none may be among those that are drawn.
    (run / "best.json").write_text(unfitted)
    collect = training_class_biases.collect_pixels

    def without_the_last(*arguments: Any, **options: Any) -> Pixels:
        pixels = collect(*arguments, **options)
        kept = pixels.image < pixels.image.max()
        return Pixels(**{field.name: getattr(pixels, field.name)[kept] for field in fields(pixels)})

    monkeypatch.setattr(training_class_biases, "collect_pixels", without_the_last)
    assert main(["train", "--resume", str(run)]) == 0
    entry = json.loads((run / "best.json").read_text())["class_biases"]["student"]
    assert entry["values"] == [0, 0, 0] and "9 images with enough labelled" in entry["reason"]


def test_a_small_selection_split_gives_none(
    tmp_path: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fake_data.plain(tmp_path / "small")
    run = train(data, tmp_path / "run")
    reason = "the val split has 3 images and 10 are needed"
    assert f"class biases: none, because {reason}" in capsys.readouterr().err
    entry = json.loads((run / "best.json").read_text())["class_biases"]["student"]
    assert entry["values"] == [0, 0, 0] and "3 labelled images" in entry["reason"]
    assert s5mars.load(run).class_biases is None
    with pytest.raises(UserError, match="at least 10 labelled images"):
        calibrate(run, class_biases="fit")
    # The record makes a finished run independent of its data again.
    next((data / "images").iterdir()).unlink()
    assert main(["train", "--resume", str(run)]) == 0


def test_a_selection_split_without_labels_gives_none(
    tmp_path: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fake_data.plain(tmp_path / "data", images=40)
    for name in (data / "splits" / "val.txt").read_text().split():
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save(data / "masks" / f"{name}.png")
    run = train(data, tmp_path / "run")
    assert "class biases: none, because the val split has 0 labelled" in capsys.readouterr().out
    assert s5mars.load(run).class_biases is None


def test_new_biases_remove_the_temperature_of_others(run: Path) -> None:
    assert main(["calibrate", str(run)]) == 0
    fitted = s5mars.load(run).temperature
    assert fitted != 1
    write_class_biases(run, "student", None)  # it had none
    assert s5mars.load(run).temperature == fitted
    write_class_biases(run, "student", {"values": [3.0, 0.0, -3.0]})
    assert s5mars.load(run).temperature == 1


def test_a_folder_of_maps_does_not_mix_them(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = ["predict", str(run), str(data / "images"), "--out", str(tmp_path / "maps")]
    assert main(predict) == 0
    write_class_biases(run, "student", {"values": [3.0, 0.0, -3.0]})
    assert main([*predict, "--resume"]) == 2
    assert "class_biases" in capsys.readouterr().err
    assert main(["calibrate", str(run)]) == 0  # an entry needs no more than its values


def test_scores_on_the_split_of_the_fit_say_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run), "--split", "test", "--class-biases", "fit"]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert "They were fitted on this split, so the score is too high." in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    assert "The class biases were fitted on the test split" in (run / "report.html").read_text()
