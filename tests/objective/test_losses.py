"""Loss terms against numbers worked out by hand and against plain cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from s5mars.classes import IGNORE
from s5mars.objective.losses import cross_entropy, hard_and_soft_loss, hard_loss, ohem_cross_entropy
from s5mars.objective.pixel_losses import pixel_cross_entropies, pixel_cross_entropy


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cross_entropy_by_hand() -> None:
    # Two pixels: p = (3/4, 1/4) with label 0, and one ignored.
    scores = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2).contiguous()
    label = torch.tensor([[[0, IGNORE]]], dtype=torch.uint8)
    assert cross_entropy(scores, label).item() == pytest.approx(-math.log(0.75))


def test_ignored_pixels_change_nothing() -> None:
    scores, label = logits(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    label[:, ::2] = IGNORE
    other = scores.clone()
    other[:, :, ::2] = 1e3
    assert torch.equal(cross_entropy(scores, label), cross_entropy(other, label))
    assert torch.equal(
        ohem_cross_entropy(scores, label, minimum_kept=3),
        ohem_cross_entropy(other, label, minimum_kept=3),
    )


def test_no_labelled_pixel_is_zero_with_zero_gradient() -> None:
    scores = logits(1, 3, 2, 2).requires_grad_()
    loss = cross_entropy(scores, torch.full((1, 2, 2), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@given(seed=st.integers(0, 50), share=st.floats(0.1, 1))
def test_divisors(seed: int, share: float) -> None:
    scores, hard = logits(2, 3, 5, 5, seed=seed), torch.randint(0, 3, (2, 5, 5))
    valid = torch.rand(2, 5, 5) < 0.8
    kept = valid & (torch.rand(2, 5, 5) < share)
    total = F.cross_entropy(scores, hard, reduction="none")[kept].sum()
    for over, divisor in (("valid", valid.sum()), ("all", torch.tensor(50)), ("kept", kept.sum())):
        value = hard_loss(scores, hard, kept=kept, valid=valid, over=over)  # type: ignore[arg-type]
        torch.testing.assert_close(value, total / divisor.clamp(min=1))


def test_unknown_divisor_names_the_choices() -> None:
    kept = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="valid, all, kept"):
        hard_loss(
            logits(1, 2, 2, 2),
            torch.zeros(1, 2, 2, dtype=torch.long),
            kept=kept,
            valid=kept,
            over="some",  # type: ignore[arg-type]
        )


def test_soft_loss_with_one_hot_targets_is_the_hard_loss() -> None:
    scores, hard = logits(2, 4, 3, 3), torch.randint(0, 4, (2, 3, 3))
    everything = torch.ones(2, 3, 3, dtype=torch.bool)
    one_hot = F.one_hot(hard, 4).permute(0, 3, 1, 2).double()
    of_hard, of_soft = hard_and_soft_loss(
        scores,
        hard,
        one_hot,
        kept=(everything, everything),
        valid=everything,
        over=("valid", "kept"),
    )
    alone = hard_loss(scores, hard, kept=everything, valid=everything, over="valid")
    torch.testing.assert_close(of_soft, of_hard)
    torch.testing.assert_close(of_hard, alone)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.7, 1.9)])
def test_the_fused_losses_are_pytorchs_own(weights: tuple[float, float]) -> None:
    probability = logits(2, 4, 5, 6, seed=1).softmax(1)
    label = torch.randint(0, 4, (2, 5, 6), generator=torch.Generator().manual_seed(2))
    label[:, :2] = IGNORE
    fused, plain = (logits(2, 4, 5, 6).requires_grad_() for _ in range(2))
    hard, soft = pixel_cross_entropies(fused, label, probability)
    torch.testing.assert_close(pixel_cross_entropy(fused, label.to(torch.uint8)), hard)
    expected = F.cross_entropy(plain, label, ignore_index=IGNORE, reduction="none")
    distribution = -(probability * plain.log_softmax(1)).sum(1)
    torch.testing.assert_close((hard, soft), (expected, distribution))
    some = torch.rand(2, 5, 6, dtype=torch.float64)  # each pixel has a gradient of its own
    for a, b, scores in ((hard, soft, fused), (expected, distribution, plain)):
        ((weights[0] * a + weights[1] * b) * some).sum().backward()
        assert scores.grad is not None
    torch.testing.assert_close(fused.grad, plain.grad)


def test_half_precision_is_summed_in_single() -> None:
    scores, label = logits(1, 9, 4, 5).half(), torch.randint(0, 9, (1, 4, 5))
    probability = scores.float().softmax(1)
    hard, soft = pixel_cross_entropies(scores, label, probability)
    torch.testing.assert_close(hard, F.cross_entropy(scores.float(), label, reduction="none"))
    torch.testing.assert_close(soft, -(probability * scores.float().log_softmax(1)).sum(1))


def test_the_gradient_of_one_label_is_pytorchs_own() -> None:
    label = torch.tensor([[[0, 3, IGNORE], [1, 2, IGNORE]]])
    scores = logits(1, 4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pixel_cross_entropy(x, label), scores)


def test_ohem_keeps_the_hard_pixels() -> None:
    scores, label = logits(2, 3, 6, 6, seed=3), torch.randint(0, 3, (2, 6, 6))
    label[0, :3] = IGNORE
    probability = scores.softmax(1).gather(1, label.clamp(max=2).unsqueeze(1)).squeeze(1)
    losses = F.cross_entropy(scores, label, ignore_index=IGNORE, reduction="none")
    labelled = label != IGNORE
    expected = losses[labelled & (probability <= 0.2)].mean()
    torch.testing.assert_close(
        ohem_cross_entropy(scores, label, threshold=0.2, minimum_kept=1), expected
    )
    hardest = losses[labelled].sort(descending=True).values[:40].mean()
    torch.testing.assert_close(
        ohem_cross_entropy(scores, label, threshold=0.0, minimum_kept=40), hardest
    )
    torch.testing.assert_close(ohem_cross_entropy(scores, label), cross_entropy(scores, label))


def test_ohem_has_the_constants_of_the_released_code() -> None:
    """Threshold 0.7, and at least 100 000 pixels."""
    label = torch.zeros(1, 300, 400, dtype=torch.long)
    easy = torch.linspace(0.71, 0.99, 120_000, dtype=torch.float64)
    for probability, kept in (
        (easy, 100_000),
        (torch.cat([torch.full((110_000,), 0.69), torch.full((10_000,), 0.71)]).double(), 110_000),
    ):
        scores = torch.stack([probability, 1 - probability]).log().view(1, 2, 300, 400)
        expected = -probability[:kept].log().mean()
        torch.testing.assert_close(ohem_cross_entropy(scores, label), expected)
