"""Distribution alignment against the formula of ReMixMatch, and what it counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s5mars.objective.alignment import Alignment

EVERYWHERE = torch.ones(1, 1, 5, dtype=torch.bool)


def said(*probability: float, pixels: int = 5) -> Tensor:
    """(1, C, 1, pixels): the same probabilities everywhere."""
    return torch.tensor(probability).view(1, -1, 1, 1).expand(-1, -1, 1, pixels)


def test_formula_from_the_first_batch_on() -> None:
    """The average starts without bias: one batch is what has been seen so far."""
    alignment = Alignment(torch.tensor([0.5, 0.3, 0.2]), momentum=0.98, power=1.0)
    first = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]).T.reshape(1, 3, 1, 2)
    aligned = alignment(first, torch.ones(1, 1, 2, dtype=torch.bool))
    expected = (
        first
        * torch.tensor([0.5, 0.3, 0.2]).view(1, 3, 1, 1)
        / torch.tensor([0.2, 0.25, 0.55]).view(1, 3, 1, 1)
    )
    torch.testing.assert_close(aligned, expected / expected.sum(1, keepdim=True))


def test_the_average_is_weighted_as_the_momentum_says() -> None:
    alignment = Alignment(torch.ones(2), momentum=0.5, power=1.0)
    for probability in (0.2, 0.6, 0.9):
        alignment(said(probability, 1 - probability), EVERYWHERE)
    expected = (0.25 * 0.2 + 0.5 * 0.6 + 0.9) / 1.75
    assert float(alignment.predicted.value[0]) == pytest.approx(expected)


def test_predictions_drift_to_the_shares_of_the_labels() -> None:
    alignment = Alignment(torch.tensor([6.0, 2.0, 0.0]), momentum=0.9, power=1.0)
    for _ in range(50):
        aligned = alignment(said(0.1, 0.1, 0.8), EVERYWHERE).mean((0, 2, 3))
    torch.testing.assert_close(aligned[:2], torch.tensor([0.75, 0.25]), atol=2e-3, rtol=0)


def test_equal_shares_change_nothing() -> None:
    alignment = Alignment(torch.ones(4), momentum=0.98, power=1.0)
    same = said(0.25, 0.25, 0.25, 0.25)
    torch.testing.assert_close(alignment(same, EVERYWHERE), same)


def test_the_power_flattens_the_shares_of_the_labels() -> None:
    alignment = Alignment(torch.tensor([0.64, 0.36]), momentum=0.98, power=0.5)
    torch.testing.assert_close(alignment.wanted, torch.tensor([0.8, 0.6]) / 1.4)


def test_a_class_without_labels_keeps_a_small_share() -> None:
    """With a share of 0 the teacher could never predict the class again."""
    alignment = Alignment(torch.tensor([3.0, 1.0, 0.0]), momentum=0.98, power=1.0)
    torch.testing.assert_close(alignment.wanted, torch.tensor([0.75, 0.25, 0.001]) / 1.001)


def test_pixels_that_do_not_count_say_nothing() -> None:
    alignment = Alignment(torch.ones(2), momentum=0.98, power=1.0)
    given = said(0.9, 0.1)
    assert torch.equal(alignment(given, ~EVERYWHERE), given)
    half = EVERYWHERE.clone()
    half[..., :2] = False
    disturbed = given.clone()
    disturbed[..., :2] = 0.5
    alignment(disturbed, half)
    assert float(alignment.predicted.value[0]) == pytest.approx(0.9)
