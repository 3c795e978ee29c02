"""The predictor: one forward where one is enough, the same answer however it is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s5mars.classes import IGNORE, S5MARS
from s5mars.data.resolution import Resolution
from s5mars.devices import find_device
from s5mars.models.checkpoint import LoadedModel
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor, Segmentation, checked
from ties import assert_same_labels

from .standin import THREE, Brightness, Convolutions


def image_of(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height * 1000 + width)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 8, 0), 8, 1)[:height, :width]


def test_labels_are_right_where_the_answer_is_known() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, 30:60], image[:, 60:] = 128, 255
    labels = Predictor(Brightness(), THREE).predict(image)
    assert labels.dtype == np.uint8 and labels.shape == (60, 90)
    assert np.array_equal(labels, np.broadcast_to(np.repeat([0, 1, 2], 30), (60, 90)))


def test_probabilities_sum_to_one_and_agree_with_the_labels() -> None:
    predictor = Predictor(Convolutions(), THREE, window=48)
    labels, probabilities = predictor.predict(image_of(100, 130), probabilities=True)
    assert probabilities.dtype == np.float32 and probabilities.shape == (3, 100, 130)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(0), labels)
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("window", [40, 512])
def test_segment_is_predict_with_its_largest_probability(window: int) -> None:
    predictor = Predictor(Convolutions(), THREE, window=window)
    image = image_of(100, 130)
    labels, probabilities = predictor.predict(image, probabilities=True)
    found = predictor.segment(image)
    assert isinstance(found, Segmentation)
    assert np.array_equal(found.labels, labels)
    assert found.confidence.dtype == np.uint8
    np.testing.assert_allclose(found.confidence, 255 * probabilities.max(0), atol=0.51)


def test_labels_do_not_depend_on_the_batch() -> None:
    image = image_of(150, 170)
    one, three = (Predictor(Convolutions(), THREE, window=64, batch=b) for b in (1, 3))
    labels, probabilities = one.predict(image, probabilities=True)
    assert_same_labels(three.predict(image), labels, probabilities)
    answers = [predictor.segment(image).confidence.astype(int) for predictor in (one, three)]
    assert np.abs(answers[0] - answers[1]).max() <= 1  # a rounding of 255 steps


def test_an_image_in_one_window_is_one_forward() -> None:
    model = Brightness()
    Predictor(model, THREE, window=128).predict(image_of(100, 128))
    assert model.shapes == [(1, 3, 100, 128)]
    model.shapes.clear()
    Predictor(model, THREE, window=64, batch=3).predict(image_of(100, 128))
    assert sum(shape[0] for shape in model.shapes) == 2 * 3
    assert {shape[2:] for shape in model.shapes} == {(64, 64)}


def test_single_forward_equals_the_bare_model() -> None:
    model, image = Convolutions(), image_of(70, 90)
    _, probabilities = Predictor(model, THREE).predict(image, probabilities=True)
    with torch.inference_mode():
        bare = model(torch.from_numpy(image).permute(2, 0, 1)[None]).softmax(1)[0]
    np.testing.assert_allclose(probabilities, bare.numpy(), atol=1e-6)


def test_grey_is_repeated_and_odd_layouts_in_memory_are_fine() -> None:
    predictor = Predictor(Convolutions(), THREE)
    grey = image_of(50, 60)[..., 0]
    expected = predictor.predict(np.repeat(grey[..., None], 3, 2))
    assert np.array_equal(predictor.predict(grey), expected)
    image = image_of(60, 50)
    mirrored = predictor.predict(image[:, ::-1])
    assert np.array_equal(mirrored, predictor.predict(image[:, ::-1].copy()))
    assert image_of(60, 50).tobytes() == image.tobytes()


@pytest.mark.filterwarnings("error")  # torch warns where it shares such an array
def test_a_read_only_array_is_predicted_as_any_other() -> None:
    image, predictor = image_of(50, 60), Predictor(Convolutions(), THREE)
    expected = predictor.predict(image)
    image.flags.writeable = False
    assert np.array_equal(predictor.predict(image), expected)


def test_model_is_in_evaluation_mode_and_answers_without_gradients() -> None:
    model = Convolutions().train()
    predictor = Predictor(model, THREE)
    before = model.layers[1].running_mean.clone()
    image = image_of(64, 64)
    assert np.array_equal(predictor.predict(image), predictor.predict(image))
    assert torch.equal(before, model.layers[1].running_mean)
    assert all(p.grad is None for p in model.parameters())


def test_bfloat16_is_close() -> None:
    image = image_of(64, 64)
    _, full = Predictor(Convolutions(), THREE).predict(image, probabilities=True)
    _, half = Predictor(Convolutions(), THREE, precision="bf16").predict(image, probabilities=True)
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((40, 40, 3), np.float32), "float32"),
        (np.zeros((40, 40, 3), np.uint16), "uint16"),
        (np.zeros((40, 40, 4), np.uint8), r"\(40, 40, 4\)"),
        (np.zeros((3, 40, 40), np.uint8), r"\(3, 40, 40\)"),
        (np.zeros((1, 40, 40, 3), np.uint8), r"\(1, 40, 40, 3\)"),
        (np.zeros((0, 40, 3), np.uint8), r"\(0, 40, 3\)"),
    ],
)
def test_what_is_no_image_is_refused_and_named(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(Brightness(), THREE).predict(array)
    with pytest.raises(ValueError, match=message):
        checked(array)


def test_a_model_of_another_taxonomy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?s)\(1, 3, 40, 40\).*9 classes of 's5mars'"):
        Predictor(Brightness(), S5MARS).predict(image_of(40, 40))


class Halved(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.float()[:, :, ::2, ::2]


def test_a_model_that_answers_at_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 20, 20\)"):
        Predictor(Halved(), THREE).predict(image_of(40, 40))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window": 64.5}, r"window must be a whole number \(got 64\.5\)"),
        ({"batch": 1.5}, r"batch must be a whole number \(got 1\.5\)"),
        ({"batch": True}, r"batch must be a whole number \(got True\)"),
        ({"overlap": "a"}, r"overlap must be a number \(got 'a'\)"),
        ({"abstain": "x"}, r"abstain must be a number \(got 'x'\)"),
        ({"tta": "no"}, r"tta must be True or False \(got 'no'\)"),
        ({"window": 8}, r"window must be at least 32 pixels \(got 8\)"),
        ({"overlap": -0.1}, r"overlap must be in \[0, 0\.9\] \(got -0\.1\)"),
        ({"overlap": float("nan")}, "overlap must be"),
        ({"batch": 0}, r"batch must be at least 1 \(got 0\)"),
        ({"precision": "fp64"}, "must be one of fp32, bf16"),
        ({"device": "gpu"}, "gpu"),
        ({"abstain": 1.5}, r"abstain must be in \[0, 1\] \(got 1\.5\)"),
        ({"temperature": 0.0}, r"temperature must be .* \(got 0\.0\)"),
        ({"temperature": float("nan")}, r"temperature must be .* \(got nan\)"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(
    setting: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(Brightness(), THREE, **setting)


def test_an_unknown_setting_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="windw"):
        Predictor(Brightness(), THREE, windw=64)


def test_a_loaded_model_brings_its_temperature_and_resolution() -> None:
    facts = {"resolution": "1/2", "calibration": {"teacher": {"temperature": 1.5}}}
    loaded = LoadedModel(Brightness(), THREE, facts, "teacher")
    predictor = Predictor.of(loaded, Inference(window=64))
    assert predictor.temperature == 1.5 and predictor.resolution == Resolution(divisor=2)
    assert predictor.inference == Inference(window=64)


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(torch.device("cpu")).type == "cpu"
    if torch.accelerator.is_available():
        assert find_device("auto").type != "cpu"
        with pytest.raises(ValueError, match="not there"):
            find_device("cuda:99")
    else:
        assert find_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="only cpu"):
            find_device("cuda")


def test_a_temperature_changes_confidence_and_never_a_label() -> None:
    image = image_of(150, 170)
    for window in (48, 512):  # with seams and without
        plain = Predictor(Convolutions(), THREE, window=window)
        labels, before = plain.predict(image, probabilities=True)
        for temperature in (0.3, 1.7, 6.0):
            predictor = Predictor(Convolutions(), THREE, window=window, temperature=temperature)
            again, after = predictor.predict(image, probabilities=True)
            found = predictor.segment(image)
            assert np.array_equal(again, labels) and np.array_equal(found.labels, labels)
            np.testing.assert_allclose(after.sum(0), 1, atol=1e-5)
            np.testing.assert_allclose(found.confidence, 255 * after.max(0), atol=0.51)
            assert (after.max(0).mean() > before.max(0).mean()) == (temperature < 1)
            found = np.full_like(after, np.nan)
            for rows, columns, block in predictor.blocks(image):
                found[:, rows, columns] = block.numpy()
            assert np.array_equal(found, after)


def test_in_one_window_the_logits_are_divided_by_the_temperature() -> None:
    image = image_of(60, 70)
    model = Convolutions().eval()
    _, found = Predictor(model, THREE, temperature=2.5).predict(image, probabilities=True)
    with torch.inference_mode():
        logits = model(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_allclose(found, (logits / 2.5).softmax(1)[0].numpy(), atol=1e-6)


def test_abstaining_writes_ignore_below_the_calibrated_confidence() -> None:
    image = image_of(90, 110)
    for temperature in (1.0, 3.0):
        settings = {"window": 64, "temperature": temperature}
        labels, probabilities = Predictor(Convolutions(), THREE, **settings).predict(
            image, probabilities=True
        )
        threshold = float(np.median(probabilities.max(0))) + 1e-5
        unsure = probabilities.max(0) < threshold
        predictor = Predictor(Convolutions(), THREE, abstain=threshold, **settings)
        found = predictor.segment(image)
        assert np.array_equal(found.labels, np.where(unsure, IGNORE, labels))
        assert np.array_equal(predictor.predict(image), found.labels)
        whole = Predictor(Convolutions(), THREE, **settings).segment(image)
        assert np.array_equal(found.confidence, whole.confidence)
        assert not (whole.labels == IGNORE).any()


def test_the_flip_is_averaged_and_changes_nothing_where_it_cannot() -> None:
    image = image_of(64, 96)
    plain = Predictor(Brightness(), THREE).predict(image, probabilities=True)[1]
    flipped = Predictor(Brightness(), THREE, tta=True).predict(image, probabilities=True)[1]
    assert np.array_equal(plain, flipped)  # a network that looks at single pixels
    one = Predictor(Convolutions(), THREE)
    both = [one.predict(im, probabilities=True)[1] for im in (image, image[:, ::-1])]
    mean = (both[0] + both[1][..., ::-1]) / 2
    found = Predictor(Convolutions(), THREE, tta=True).predict(image, probabilities=True)[1]
    np.testing.assert_allclose(found, mean, atol=1e-6)
    assert np.abs(found - both[0]).max() > 1e-3


def test_doubt_is_put_into_words() -> None:
    assert Predictor(Brightness(), THREE).confidence_note == ""
    predictor = Predictor(Brightness(), THREE, temperature=1.25, tta=True, abstain=0.6)
    words = "temperature 1.250, averaged over the horizontal flip, no class below confidence 0.6"
    assert predictor.confidence_note == words


def test_any_callable_is_a_network() -> None:
    model = Convolutions().eval()
    image = image_of(70, 90)
    found = Predictor(lambda windows: model(windows), THREE).predict(image)
    assert np.array_equal(found, Predictor(model, THREE).predict(image))


@pytest.mark.parametrize("window", [48, 1024])
@pytest.mark.parametrize("text", ["1/2", "50", "400"])
def test_maps_come_back_at_full_size(text: str, window: int) -> None:
    image = image_of(601, 131)
    resolution = Resolution.parse(text)
    predictor = Predictor(Convolutions(), THREE, window=window, resolution=resolution)
    labels, probabilities = predictor.predict(image, probabilities=True)
    assert labels.shape == (601, 131)
    small = Predictor(Convolutions(), THREE, window=window).predict(
        resolution.resized(image), probabilities=True
    )[1]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None], size=(601, 131), mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_the_resolution_is_what_the_network_sees() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(Convolutions):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(tuple(image.shape[2:]))
            return super().forward(image)

    predictor = Predictor(Watching(), THREE, resolution=Resolution(divisor=2))
    predictor.segment(image_of(120, 90))
    assert seen == [(60, 45)]
