"""The alternatives of AugIN on inputs whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from s5mars.augment.alternatives import FDA_BETA, Alternative, efdm, fda, wct
from s5mars.augment.exchange import Exchange, exchange
from s5mars.augment.statistics import augin

RIVALS: dict[str, Callable[..., Tensor]] = {"efdm": efdm, "wct": wct, "fda": fda}
AROUND = torch.tensor([1, 2, 0])


def images(
    seed: int, *, share: float = 0.8, size: tuple[int, int] = (9, 8), dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(3, 3, *size, generator=random, dtype=dtype)
    valid = torch.rand(3, *size, generator=random) < share
    valid[:, 0, :2] = True
    return image, valid


def whole(seed: int, size: tuple[int, int] = (9, 8)) -> tuple[Tensor, Tensor]:
    return images(seed, share=1.1, size=size, dtype=torch.float64)


@pytest.mark.parametrize("alternative", get_args(Alternative))
def test_an_image_that_is_its_own_partner_stays_as_it_is(alternative: str) -> None:
    image, valid = images(0, dtype=torch.float64)
    result = RIVALS[alternative](image, valid, partner=torch.arange(3))
    torch.testing.assert_close(result, image)


@pytest.mark.parametrize("alternative", get_args(Alternative))
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), loud=st.floats(-1e3, 1e3))
def test_invalid_pixels_influence_nothing_and_stay(alternative: str, seed: int, share: float, loud: float) -> None:  # noqa: E501  # fmt: skip
    image, valid = images(seed, share=share, dtype=torch.float64)
    hidden = ~valid.unsqueeze(1).expand_as(image)
    other = image.masked_fill(hidden, loud)
    before = RIVALS[alternative](image, valid, partner=AROUND)
    after = RIVALS[alternative](other, valid, partner=AROUND)
    assert torch.equal(before[~hidden], after[~hidden])
    assert torch.equal(before[hidden], image[hidden]) and (after[hidden] == loud).all()
    assert before.isfinite().all()


@pytest.mark.parametrize("alternative", get_args(Alternative))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_grey_and_empty_images_stay_finite(alternative: str, dtype: torch.dtype) -> None:
    image, valid = images(1, dtype=dtype)
    image[0] = 0.5
    image[2] = image[2, :1]
    for empty in (None, 0, 1, 2):
        here = valid.clone()
        if empty is not None:
            here[empty] = False
        for partner in ([1, 2, 0], [2, 0, 1], [0, 0, 0]):
            result = RIVALS[alternative](image, here, partner=torch.tensor(partner))
            assert result.isfinite().all() and result.dtype == dtype
            for i, j in enumerate(partner):
                if empty in (i, j):
                    assert torch.equal(result[i], image[i])


def test_efdm_gives_exactly_the_partners_sorted_values() -> None:
    image, valid = whole(2)
    result = efdm(image, valid, partner=AROUND)
    assert torch.equal(result.flatten(2).sort().values, image[AROUND].flatten(2).sort().values)
    # And the order of the pixels stays.
    assert torch.equal(result.flatten(2).argsort(), image.flatten(2).argsort())


def test_efdm_of_permuted_pixels_undoes_the_permutation() -> None:
    image, valid = whole(3)
    mixed_up = image.flatten(2)[..., torch.randperm(72)].view(image.shape)
    pair = torch.cat([image[:1], mixed_up[:1]])
    result = efdm(pair, valid[:2], partner=torch.tensor([1, 0]))
    assert torch.equal(result, pair)  # the same values in the same order of ranks


def test_efdm_matches_quantiles_where_the_counts_differ() -> None:
    image = torch.zeros(2, 1, 1, 6, dtype=torch.float64)
    image[0, 0, 0] = torch.tensor([3, 1, 2, 0, 9, 9])
    image[1, 0, 0] = torch.tensor([0.5, 9, 0.1, 9, 9, 9])
    valid = torch.tensor([[[True] * 4 + [False] * 2], [[True, False, True, False, False, False]]])
    result = efdm(image, valid, partner=torch.tensor([1, 0]))
    # Four ranks at the quantiles 1/8, 3/8, 5/8, 7/8 of two values at 1/4 and 3/4.
    expected = [0.5, 0.1 + 0.4 * 0.25, 0.1 + 0.4 * 0.75, 0.1]
    np.testing.assert_allclose(result[0, 0, 0, :4], expected)
    # Two ranks at 1/4 and 3/4 of four values at 1/8, 3/8, 5/8, 7/8.
    np.testing.assert_allclose(result[1, 0, 0, [2, 0]], [0.5, 2.5])


def test_efdm_ranks_equal_values_by_their_place() -> None:
    image = torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.3, 0.2]], dtype=torch.float64)[:, None, None]
    valid = torch.ones(2, 1, 3, dtype=torch.bool)
    result = efdm(image, valid, partner=torch.tensor([1, 0]))
    assert result[:, 0, 0].tolist() == [[0.1, 0.2, 0.3], [0.5, 0.5, 0.5]]


def channel_statistics(image: Tensor, valid: Tensor) -> tuple[np.ndarray, np.ndarray]:
    pixels = image[:, valid].numpy()
    return pixels.mean(1), np.cov(pixels, bias=True)


@given(st.integers(0, 500))
def test_wct_takes_the_partners_mean_and_covariance(seed: int) -> None:
    image, valid = images(seed, dtype=torch.float64)
    result = wct(image, valid, partner=AROUND, epsilon=1e-12)
    for i, j in enumerate(AROUND):
        if valid[i].sum() < 4 or valid[j].sum() < 4:
            continue
        mean, covariance = channel_statistics(result[i], valid[i])
        target_mean, target_covariance = channel_statistics(image[j], valid[j])
        np.testing.assert_allclose(mean, target_mean, atol=1e-9)
        np.testing.assert_allclose(covariance, target_covariance, atol=1e-6)


def test_wct_leaves_a_grey_image_without_amplified_noise() -> None:
    image, valid = whole(4)
    image[0] = image[0, :1]
    result = wct(image.float(), valid, partner=AROUND)
    assert result[0].abs().max() < 5  # 1/√ε would be 300


def test_fda_exchanges_low_amplitudes_and_keeps_phases() -> None:
    image, valid = whole(5, size=(40, 60))
    beta, reach = 0.06, 2
    result = fda(image, valid, partner=AROUND, beta=beta)
    before, after = torch.fft.fft2(image), torch.fft.fft2(result)
    low = torch.zeros(40, 60, dtype=torch.bool)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            low[y, x] = True
    torch.testing.assert_close(after.abs()[:, :, low], before.abs()[AROUND][:, :, low])
    torch.testing.assert_close(after[:, :, ~low], before[:, :, ~low])
    turned = after / before
    torch.testing.assert_close(turned.imag, torch.zeros_like(turned.imag), atol=1e-9, rtol=0)
    assert (turned.real > 0).all()


def test_fda_swaps_the_brightness_of_constant_images() -> None:
    image, valid = whole(6)
    levels = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None, None, None]
    image = levels.expand_as(image)
    torch.testing.assert_close(fda(image, valid, partner=AROUND), image[AROUND])


def test_fda_of_a_small_crop_is_the_exchange_of_means() -> None:
    image, valid = whole(7, size=(40, 40))
    assert math.floor(FDA_BETA * 40) == 0
    expected = image - image.mean((2, 3), keepdim=True) + image.mean((2, 3), keepdim=True)[AROUND]
    torch.testing.assert_close(fda(image, valid, partner=AROUND), expected)


@pytest.mark.parametrize("alternative", get_args(Alternative))
def test_single_precision_is_enough(alternative: str) -> None:
    image, valid = images(8, size=(33, 47), dtype=torch.float64)
    expected = RIVALS[alternative](image, valid, partner=AROUND)
    result = RIVALS[alternative](image.float(), valid, partner=AROUND)
    torch.testing.assert_close(result.double(), expected, atol=1e-4, rtol=0)


def test_wct_is_not_computed_in_half_precision() -> None:
    image, valid = images(9, dtype=torch.float32)
    expected = wct(image, valid, partner=AROUND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(wct(image, valid, partner=AROUND), expected)


@pytest.mark.parametrize("kind", get_args(Exchange))
def test_each_name_is_its_function(kind: Exchange) -> None:
    image, valid = images(10, dtype=torch.float64)
    result = exchange(image, valid, partner=AROUND, kind=kind)
    if kind in RIVALS:
        expected = RIVALS[kind](image, valid, partner=AROUND)
    else:
        expected = augin(image, valid, partner=AROUND, swap=kind)  # type: ignore[arg-type]
    assert torch.equal(result, expected)
    assert torch.equal(result, image) == (kind == "none")


def test_an_unknown_exchange_lists_the_choices() -> None:
    image, valid = images(11, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"std, mean, both, none, efdm, wct, fda .*'adain'"):
        exchange(image, valid, partner=AROUND, kind="adain")  # type: ignore[arg-type]
