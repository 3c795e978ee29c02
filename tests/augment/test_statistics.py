"""AugIN against the naive reading of eq. 5, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import s5mars as oracle
from s5mars.augment.statistics import Swap, augin, moments, partners


def images(seed: int, *, batch: int = 3, share: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, 6, 5, generator=random, dtype=torch.float64)
    valid = torch.rand(batch, 6, 5, generator=random) < share
    valid[:, 0, :2] = True
    return image, valid


@pytest.mark.parametrize("swap", ["std", "mean", "both"])
def test_against_the_oracle(swap: str) -> None:
    image, valid = images(0)
    partner = [2, 0, 1]
    expected = oracle.augin(image.numpy(), valid.numpy(), partner, swap=swap)
    result = augin(image, valid, partner=torch.tensor(partner), swap=swap)  # type: ignore[arg-type]
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=5e-4)  # ε in the divisor


def test_none_and_the_image_itself_change_nothing() -> None:
    image, valid = images(1)
    self_index = torch.arange(3)
    assert torch.equal(augin(image, valid, partner=self_index, swap="none"), image)
    torch.testing.assert_close(
        augin(image, valid, partner=self_index, swap="both"), image, atol=5e-4, rtol=0
    )


@given(st.integers(0, 200))
def test_sigma_keeps_the_mean_and_takes_the_partners_deviation(seed: int) -> None:
    image, valid = images(seed)
    partner = partners(3)
    mean, std = moments(image, valid)
    new_mean, new_std = moments(augin(image, valid, partner=partner, swap="std"), valid)
    torch.testing.assert_close(new_mean, mean)
    torch.testing.assert_close(new_std, std[partner], atol=5e-4, rtol=0)


def test_the_statistics_of_the_batch_do_not_change() -> None:
    image, valid = images(4, share=1.1)
    result = augin(image, valid, partner=torch.tensor([1, 2, 0]), swap="both")
    torch.testing.assert_close(result.mean((0, 2, 3)), image.mean((0, 2, 3)), atol=5e-4, rtol=0)


def test_padding_neither_counts_nor_leaks() -> None:
    image, valid = images(5)
    other = image.masked_fill(~valid.unsqueeze(1), 1e3)
    partner = torch.tensor([1, 2, 0])
    inside = valid.unsqueeze(1).expand_as(image)
    assert torch.equal(
        augin(image, valid, partner=partner)[inside], augin(other, valid, partner=partner)[inside]
    )


@pytest.mark.parametrize("swap", ["std", "mean", "both"])
def test_padding_stays_black(swap: Swap) -> None:
    """As the other methods of table VII and the photometric augmentations leave it."""
    image = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(4, 8, 8, dtype=torch.bool)
    valid[:, :3] = False
    image[:, :, :3] = 0
    moved = augin(image, valid, partner=partners(4), swap=swap)
    assert (moved[:, :, :3] == 0).all() and not torch.equal(moved, image)


def test_flat_and_empty_images_stay_finite() -> None:
    image, valid = images(6)
    image[0] = 0.5
    valid[1] = False
    for partner in ([1, 2, 0], [2, 0, 1], [0, 0, 0]):
        result = augin(image, valid, partner=torch.tensor(partner), swap="both")
        assert result.isfinite().all()


@pytest.mark.parametrize("swap", ["mean", "both", "std"])
def test_an_empty_partner_gives_nothing(swap: Swap) -> None:
    image, valid = images(8)
    valid[1] = False
    result = augin(image, valid, partner=torch.tensor([1, 2, 0]), swap=swap)
    torch.testing.assert_close(result[0], image[0], atol=1e-4, rtol=0)  # ε


def test_unknown_swap_lists_the_choices() -> None:
    image, valid = images(7)
    with pytest.raises(ValueError, match="std, mean, both, none"):
        augin(image, valid, partner=torch.arange(3), swap="sigma")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", range(1, 10))
def test_everybody_is_the_partner_of_another(size: int) -> None:
    index = partners(size)
    assert sorted(index.tolist()) == list(range(size))
    assert size == 1 or (index != torch.arange(size)).all()


@pytest.mark.parametrize(("size", "share"), [(8, 4), (8, 2), (12, 4), (4, 4)])
def test_pairs_are_the_same_for_any_number_of_processes(size: int, share: int) -> None:
    split = [partners(share) + first for first in range(0, size, share)]
    assert torch.equal(torch.cat(split), partners(size))
