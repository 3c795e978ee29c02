"""Photometric operations against PIL, torchvision and known answers; and what all must keep."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from s5mars.augment import intensity, photometric
from s5mars.augment.geometric import boxes, inner_rectangles
from s5mars.augment.photometric import AUGSEG, Photometric
from s5mars.randomness import generator
from tiny import rngs

KINDS = get_args(Photometric)
HEIGHT, WIDTH = 14, 17


def bytes_image(seed: int, *, low: int = 0, high: int = 256) -> torch.Tensor:
    """(3, H, W) uint8."""
    random = torch.Generator().manual_seed(seed)
    shape = (3, HEIGHT, WIDTH)
    return torch.randint(low, high, shape, generator=random, dtype=torch.uint8)


def image(seed: int, **kwargs: int) -> torch.Tensor:
    return bytes_image(seed, **kwargs).float() / 255


def everywhere() -> torch.Tensor:
    return torch.ones(HEIGHT, WIDTH, dtype=torch.bool)


def mask(seed: int, share: float) -> torch.Tensor:
    return torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) < share


def to_pil(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def from_pil(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def test_identity_strength_changes_nothing() -> None:
    given_image, valid = image(0), mask(0, 0.7)
    unchanged = [
        intensity.brightness(given_image, valid, factor=1),
        intensity.contrast(given_image, valid, factor=1),
        intensity.saturation(given_image, valid, factor=1),
        intensity.sharpness(given_image, valid, factor=1),
        intensity.hue(given_image, valid, shift=0),
        intensity.posterize(given_image, valid, bits=8),
        intensity.gaussian_blur(given_image, valid, sigma=0.05),
        intensity.add_noise(given_image, valid, noise=torch.zeros_like(given_image)),
    ]
    for result in unchanged:
        torch.testing.assert_close(result, given_image, atol=2e-6, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_exact_operations_against_pil(seed: int) -> None:
    pixels, valid = bytes_image(seed, low=40, high=200), everywhere()
    picture, given_image = to_pil(pixels), pixels.float() / 255
    equal = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(
        intensity.equalize(given_image, valid), from_pil(ImageOps.equalize(picture)), **equal
    )
    for bits in (1, 4, 7):
        torch.testing.assert_close(
            intensity.posterize(given_image, valid, bits=bits),
            from_pil(ImageOps.posterize(picture, bits)),
            **equal,
        )
    torch.testing.assert_close(
        intensity.solarize(given_image, valid, threshold=99.5 / 255),
        from_pil(ImageOps.solarize(picture, 100)),
        **equal,
    )


@pytest.mark.parametrize("factor", [0.05, 0.5, 1.5])
def test_blends_against_pil_up_to_its_rounding(factor: float) -> None:
    pixels, valid = bytes_image(7), everywhere()
    rounding = {"atol": 2 / 255, "rtol": 0}
    for ours, theirs in (
        (intensity.brightness, ImageEnhance.Brightness),
        (intensity.contrast, ImageEnhance.Contrast),
        (intensity.saturation, ImageEnhance.Color),
    ):
        expected = from_pil(theirs(to_pil(pixels)).enhance(factor))
        torch.testing.assert_close(
            ours(pixels.float() / 255, valid, factor=factor), expected, **rounding
        )
    torch.testing.assert_close(
        intensity.autocontrast(image(7, low=40, high=200), valid),
        from_pil(ImageOps.autocontrast(to_pil(bytes_image(7, low=40, high=200)))),
        **rounding,
    )


def test_filters_against_torchvision_away_from_the_border() -> None:
    given_image, valid = image(2), everywhere()
    blurred = intensity.gaussian_blur(given_image, valid, sigma=1.2)
    expected = TF.gaussian_blur(given_image, kernel_size=[9, 9], sigma=[1.2, 1.2])
    torch.testing.assert_close(blurred[:, 4:-4, 4:-4], expected[:, 4:-4, 4:-4])
    sharp = intensity.sharpness(given_image, valid, factor=0.3)
    expected = TF.adjust_sharpness(given_image, 0.3)
    torch.testing.assert_close(sharp[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1])


def test_equalize_of_a_known_histogram() -> None:
    # Four levels, 170 valid pixels each: the step is 510 // 255 = 2, the result thirds.
    given_image = torch.full((3, 20, 45), 0.9)
    valid = torch.zeros(20, 45, dtype=torch.bool)
    valid[:17, :40] = True
    levels = torch.tensor([10.0, 20.0, 30.0, 40.0]) / 255
    given_image[:, :17, :40] = levels.repeat_interleave(10)
    result = intensity.equalize(given_image, valid)
    expected = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]).repeat_interleave(10).expand(3, 17, 40)
    torch.testing.assert_close(result[:, :17, :40], expected)


def test_statistics_are_those_of_the_valid_pixels() -> None:
    given_image, valid = torch.full((3, HEIGHT, WIDTH), 1.0), mask(1, 0.5)
    given_image[:, valid] = image(3, low=64, high=128)[:, valid]
    kept = given_image[:, valid]
    stretched = intensity.autocontrast(given_image, valid)[:, valid]
    assert torch.equal(stretched.amin(1), torch.zeros(3))
    torch.testing.assert_close(stretched.amax(1), torch.ones(3))
    grey = (kept * torch.tensor([0.2989, 0.587, 0.114])[:, None]).sum(0).mean()
    flat = intensity.contrast(given_image, valid, factor=0)[:, valid]
    torch.testing.assert_close(flat, grey.expand_as(flat), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_filters_keep_a_constant_image_up_to_the_border_of_the_valid_area(sigma: float) -> None:
    valid = mask(4, 0.6)
    given_image = torch.full((3, HEIGHT, WIDTH), 0.3).where(valid, 1.0)
    torch.testing.assert_close(
        intensity.gaussian_blur(given_image, valid, sigma=sigma), given_image
    )
    torch.testing.assert_close(intensity.sharpness(given_image, valid, factor=0), given_image)


def test_filters_keep_a_constant_image_under_autocast() -> None:
    flat, valid = torch.full((3, HEIGHT, WIDTH), 0.7), torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(intensity.gaussian_blur(flat, valid, sigma=1.5), flat)


def test_greyscale_and_hue() -> None:
    given_image, valid = image(5), everywhere()
    grey = intensity.grayscale(given_image, valid)
    assert torch.equal(grey[0], grey[2])
    torch.testing.assert_close(intensity.hue(grey, valid, shift=0.3), grey)
    red = torch.zeros_like(given_image)
    red[0] = 0.8
    torch.testing.assert_close(intensity.hue(red, valid, shift=1 / 3)[1], red[0])


def test_erasing_operations() -> None:
    given_image, valid = image(6, low=1, high=120), everywhere()
    for seed in range(20):
        cut = photometric.cutout(given_image, valid, generator(seed, "cut"))
        changed = (cut != given_image).any(0)
        assert (cut[:, changed] == 0.5).all()
        assert changed.float().mean() <= 0.3
        rows, columns = changed.any(1), changed.any(0)
        assert torch.equal(changed, rows[:, None] & columns[None])
        dropped = photometric.dropout(given_image, valid, generator(seed, "drop"))
        assert (dropped[:, (dropped != given_image).any(0)] == 0).all()
    shares = [
        (photometric.dropout(given_image, valid, generator(s, "d")) == 0).float().mean()
        for s in range(200)
    ]
    assert float(torch.stack(shares).mean()) == pytest.approx(0.1, abs=0.02)


def test_noise_has_the_deviation_that_was_drawn() -> None:
    grey = torch.full((3, 60, 60), 0.5)
    deviations = [
        float(photometric.gaussian_noise(grey, grey[0] > 0, generator(s, "noise")).std())
        for s in range(60)
    ]
    assert max(deviations) < 0.104
    assert float(np.mean(deviations)) == pytest.approx(0.05, abs=0.01)


def test_augseg_draws_up_to_three_different_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def recorder(index: int) -> photometric.Augmentation:
        def record(x: torch.Tensor, valid: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
            calls.append(index)
            return x

        return record

    assert len(AUGSEG) == 11
    monkeypatch.setattr(photometric, "AUGSEG", [recorder(i) for i in range(11)])
    drawn = []
    for seed in range(200):
        calls.clear()
        photometric.augseg_set(image(0), everywhere(), generator(seed, "a"))
        assert len(set(calls)) == len(calls)
        drawn.append(list(calls))
    assert {len(d) for d in drawn} == {1, 2, 3}
    assert {i for d in drawn for i in d} == set(range(11))


class End:
    """A generator that draws the lower (0) or upper (1) end of every range."""

    def __init__(self, end: int) -> None:
        self.end = end

    def uniform(self, low: float, high: float) -> float:
        return (low, high)[self.end]

    def integers(self, low: int, high: int) -> int:
        return (low, high - 1)[self.end]


BLUR = (intensity.gaussian_blur, "sigma", (0.1, 2.0))
OF_FIXMATCH = [
    (intensity.brightness, "factor", (0.5, 1.5)),
    (intensity.contrast, "factor", (0.5, 1.5)),
    (intensity.saturation, "factor", (0.5, 1.5)),
    (intensity.hue, "shift", (-0.25, 0.25)),
]
OF_AUGSEG = [
    (intensity.contrast, "factor", (0.05, 0.95)),
    (intensity.sharpness, "factor", (0.05, 0.95)),
    (intensity.saturation, "factor", (0.05, 0.95)),
    (intensity.brightness, "factor", (0.05, 0.95)),
    (intensity.hue, "shift", (-0.5, 0.5)),
    (intensity.posterize, "bits", (4, 8)),
    (intensity.solarize, "threshold", (1 / 256, 1.0)),
]


@pytest.mark.parametrize("end", [0, 1])
def test_strengths_have_the_published_ranges(end: int) -> None:
    given_image, valid = image(8), mask(8, 0.9)
    published = [*OF_FIXMATCH, BLUR, BLUR, *OF_AUGSEG]
    ours = [*photometric.JITTER, photometric.gaussian_blur, *AUGSEG[3:]]
    for augment, (operation, name, ends) in zip(ours, published, strict=True):
        expected = operation(given_image, valid, **{name: ends[end]})  # type: ignore[operator]
        assert torch.equal(augment(given_image, valid, End(end)), expected), operation  # type: ignore[arg-type]


def test_how_often_fixmatch_changes_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def recorder(name: str) -> photometric.Augmentation:
        def record(x: torch.Tensor, *_: object) -> torch.Tensor:
            calls.append(name)
            return x

        return record

    monkeypatch.setattr(photometric, "JITTER", [recorder(str(i)) for i in range(4)])
    monkeypatch.setattr(intensity, "grayscale", recorder("grey"))
    monkeypatch.setattr(photometric, "gaussian_blur", recorder("blur"))
    orders = set()
    for seed in range(1000):
        before = len(calls)
        photometric.fixmatch_set(image(0), everywhere(), generator(seed, "often"))
        orders.add("".join(call for call in calls[before:] if call.isdecimal()))
    shares = {"0": 0.8, "1": 0.8, "2": 0.8, "3": 0.8, "grey": 0.2, "blur": 0.5}
    for name, share in shares.items():
        assert calls.count(name) / 1000 == pytest.approx(share, abs=0.04), name
    assert len(orders) == 25  # all 24 of the four, and none of them


def batch(seed: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    given_image = torch.stack([image(seed), image(seed + 1)])
    return given_image, torch.stack([mask(seed, share), mask(seed + 1, share)])


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), share=st.sampled_from([0, 0.1, 0.8]))
def test_range_and_independence_of_invalid_pixels(
    kind: Photometric, seed: int, share: float
) -> None:
    given_image, valid = batch(seed, share)
    hidden = ~valid.unsqueeze(1).expand_as(given_image)
    disturbed = given_image.masked_fill(hidden, torch.nan)
    before, after = (
        photometric.photometric(x, valid, kind=kind, generators=rngs(seed, 2))
        for x in (given_image, disturbed)
    )
    assert before.shape == given_image.shape
    assert before.dtype == given_image.dtype
    assert before.min() >= 0
    assert before.max() <= 1
    assert torch.equal(before[~hidden], after[~hidden])
    assert torch.equal(before[hidden], given_image[hidden])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_result_and_another_one_another(
    kind: Photometric,
) -> None:
    given_image, valid = batch(3, 0.9)
    original = given_image.clone()
    results = [
        photometric.photometric(given_image, valid, kind=kind, generators=rngs(seed, 2))
        for seed in (0, 0, *range(1, 8))
    ]
    assert torch.equal(given_image, original)
    assert torch.equal(results[0], results[1])
    differs = any(not torch.equal(results[0], other) for other in results[2:])
    assert differs == (kind not in ("none", "equalize"))
    if kind == "none":
        assert torch.equal(results[0], given_image)


def test_an_unknown_kind_lists_the_choices() -> None:
    given_image, valid = batch(0, 1)
    with pytest.raises(ValueError, match=r"none, fixmatch, augseg, .*, dropout \(got 'colour'\)"):
        photometric.photometric(given_image, valid, kind="colour", generators=rngs(0, 2))  # type: ignore[arg-type]


def test_inner_rectangles_lie_inside_with_their_area() -> None:
    region = inner_rectangles((60, 80), rngs(0, 400))
    share = region.double().mean((1, 2))
    assert float((share > 0).double().mean()) == pytest.approx(0.5, abs=0.08)
    assert share.max() < 0.42
    assert float(share[share > 0].mean()) == pytest.approx(0.21, abs=0.03)
    for one in region[share > 0][:50]:
        rows, columns = one.any(1), one.any(0)
        assert torch.equal(one, rows[:, None] & columns[None])
    assert not inner_rectangles((8, 8), rngs(1, 9), probability=0).any()
    square = inner_rectangles((100, 100), rngs(0, 400), probability=1)
    stretch = square.any(2).sum(1) / square.any(1).sum(1)  # height over width
    assert 0.25 < stretch.min() < 0.4 and 2.5 < stretch.max() < 4


def test_boxes_cover_what_they_say() -> None:
    region = boxes((10, 20), centre=np.full((2, 2), 0.5), side=np.array([[0.2, 0.0], [0.5, 0.5]]))
    expected = torch.zeros(10, 20, dtype=torch.bool)
    expected[4:6, 5:15] = True
    assert torch.equal(region[0], expected)
    assert not region[1].any()
