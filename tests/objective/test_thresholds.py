"""Class-wise thresholds against hand-computed numbers, and their reduction to a fixed one."""

from __future__ import annotations

import pytest
import torch

from s5mars.objective.thresholds import ClassThresholds, above_threshold

# Four pixels, three classes: confidences 0.8 and 0.6 for class 0, 0.9 for class 1, 0.5 for class 2.
PROBABILITY = (
    torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.05, 0.9, 0.05], [0.3, 0.2, 0.5]])
    .T.reshape(1, 3, 2, 2)
    .contiguous()
)
EVENLY = torch.ones(3)
VALID = torch.ones(1, 2, 2, dtype=torch.bool)


def test_a_fixed_threshold() -> None:
    kept = above_threshold(PROBABILITY, VALID, above=0.7)
    assert kept.flatten().tolist() == [True, False, True, False]
    assert not above_threshold(PROBABILITY, ~VALID, above=0.0).any()


def test_flexmatch_by_hand() -> None:
    rule = ClassThresholds(EVENLY, kind="flexmatch", momentum=0.0)
    kept = rule(PROBABILITY, VALID, above=0.7)
    # Above 0.7: a quarter of the pixels each for classes 0 and 1; unused: a half, the largest.
    effect = torch.tensor([0.5, 0.5, 0.0])
    torch.testing.assert_close(rule.used.value, torch.tensor([0.25, 0.25, 0.0]))
    torch.testing.assert_close(rule.thresholds(0.7), effect / (2 - effect) * 0.7)
    assert kept.all()


def test_flexmatch_is_fixmatch_for_a_class_that_is_learned_best() -> None:
    rule = ClassThresholds(torch.ones(2), kind="flexmatch", momentum=0.0)
    probability = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.9, 0.1]])
    rule(probability.T.reshape(1, 2, 2, 2), VALID, above=0.7)
    assert rule.thresholds(0.7)[0] == pytest.approx(0.7)
    assert rule.thresholds(0.7)[1] == 0


def test_freematch_by_hand() -> None:
    rule = ClassThresholds(EVENLY, kind="freematch", momentum=0.0)
    kept = rule(PROBABILITY, VALID, above=0.99)
    mean = PROBABILITY.mean((0, 2, 3))
    torch.testing.assert_close(rule.mean.value, mean)
    assert float(rule.confidence.value) == pytest.approx(0.7)
    # With even classes it is the paper's, down to one half.
    torch.testing.assert_close(rule.thresholds(0.99), (mean / mean.max() * 0.7).clamp(min=0.5))
    # Class 0 is the commonest: its threshold is the mean confidence. That of class 2 is one half.
    assert kept.flatten().tolist() == [True, False, True, False]


def test_freematch_does_not_take_a_rare_class_for_a_hard_one() -> None:
    """Two classes, 90 % and 10 % of labels and of predictions alike: one threshold for both."""
    rule = ClassThresholds(torch.tensor([9.0, 1.0]), kind="freematch", momentum=0.0)
    probability = torch.tensor([[0.95, 0.05]] * 9 + [[0.45, 0.55]]).T.reshape(1, 2, 2, 5)
    probability[:, 1, 1, 4], probability[:, 0, 1, 4] = 0.55, 0.45
    rule(probability, torch.ones(1, 2, 5, dtype=torch.bool), above=0.9)
    confidence = (9 * 0.95 + 0.55) / 10
    mean = torch.tensor([(9 * 0.95 + 0.45) / 10, (9 * 0.05 + 0.55) / 10])
    assert mean.tolist() == pytest.approx([0.9, 0.1])
    assert rule.thresholds(0.9).tolist() == pytest.approx([confidence, confidence])
    # The paper's own rule would let every pixel of the rare class pass: 0.1 / 0.9 of 0.91.


def test_averages_start_without_bias() -> None:
    once = ClassThresholds(EVENLY, kind="freematch", momentum=0.99)
    once(PROBABILITY, VALID, above=0.99)
    assert float(once.confidence.value) == pytest.approx(0.7)


@pytest.mark.parametrize("kind", ["flexmatch", "freematch"])
def test_pixels_that_are_not_valid_say_nothing(kind: str) -> None:
    rule = ClassThresholds(EVENLY, kind=kind, momentum=0.5)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in rule.named_buffers()}
    kept = rule(PROBABILITY, ~VALID, above=0.7)
    assert not kept.any()
    for name, value in rule.named_buffers():
        assert torch.equal(value, before[name]), name
    half = VALID.clone()
    half[0, 1] = False
    other = PROBABILITY.clone()
    other[:, :, 1] = 1 / 3
    again = ClassThresholds(EVENLY, kind=kind, momentum=0.5)  # type: ignore[arg-type]
    assert torch.equal(again(other, half, above=0.7), rule(PROBABILITY, half, above=0.7))
    disturbed = dict(again.named_buffers())
    for name, value in rule.named_buffers():
        assert torch.equal(value, disturbed[name]), name


def test_freematch_has_thresholds_without_labels_of_a_class() -> None:
    rule = ClassThresholds(torch.tensor([3.0, 1.0, 0.0]), kind="freematch", momentum=0.0)
    probability = torch.tensor([0.9, 0.1, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert rule(probability, VALID, above=0.9).sum() == 0  # the threshold of class 0 is 0.9 itself
    assert rule.thresholds(0.9).tolist() == pytest.approx([0.9, 0.5, 0.5])


@pytest.mark.parametrize("kind", ["flexmatch", "freematch"])
def test_a_method_without_a_threshold_gets_every_valid_pixel(kind: str) -> None:
    rule = ClassThresholds(EVENLY, kind=kind, momentum=0.99)  # type: ignore[arg-type]
    assert torch.equal(rule(PROBABILITY, VALID, above=0.0), VALID)
    assert rule(PROBABILITY, ~VALID, above=-0.7).sum() == 0


def test_an_unknown_kind_names_the_choices() -> None:
    with pytest.raises(ValueError, match="flexmatch or freematch"):
        ClassThresholds(EVENLY, kind="fixed", momentum=0.99)
