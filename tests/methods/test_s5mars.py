"""S5Mars against equations 1–7 computed pixel by pixel, and its reductions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from oracles import s5mars as oracle
from s5mars.augment.sam_mix import SamMix
from s5mars.classes import IGNORE
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.supervised import Supervised
from s5mars.methods.views import as_float
from s5mars.objective.losses import cross_entropy
from s5mars.settings.recipes import find_recipe
from s5mars.types import Batch, Term
from tiny import PixelNet, batch, progress_at, unlabelled_pool

PROGRESS = progress_at(seed=3, step=7, total=20)
PLAIN = S5Mars(mix=SamMix(source="none"), swap="none")


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    return PixelNet().double(), PixelNet().double()


class Double(nn.Module):
    """Lets float64 networks read uint8 and float32 images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(as_float(image).double())
        return result


def total(terms: dict[str, Term]) -> float:
    return float(sum(t.weight * t.value.detach() for t in terms.values()))


@pytest.mark.parametrize("method", [S5Mars(), PLAIN, S5Mars(swap="both")])
def test_objective_against_the_equations(method: S5Mars) -> None:
    student, teacher = (Double(n) for n in networks())
    given = batch(size=8, valid=0.9)
    assert given.pool is not None
    terms = method.losses(student, teacher, given, PROGRESS)
    strong = method.strong_view(teacher, given, given.pool, PROGRESS)
    with torch.no_grad():
        expected = oracle.objective(
            student(given.labelled.image).numpy(),
            given.labelled.label.long().numpy(),
            student(strong.image).numpy(),
            strong.targets.probability.double().numpy(),
            strong.targets.label.numpy(),
            strong.targets.valid.numpy(),
            lambda_u=2.0, lambda_s=1.0, t_hard=0.7, t_soft=0.9,
        )  # fmt: skip
    got = (total(terms), *(float(terms[k].value.detach()) for k in ("supervised", "hard", "soft")))
    assert got == pytest.approx(expected, rel=1e-5)


def test_the_plain_strong_view_is_the_weak_view_with_the_teachers_answer() -> None:
    _, teacher = networks()
    given = batch()
    assert given.pool is not None
    strong = PLAIN.strong_view(Double(teacher), given, given.pool, PROGRESS)
    assert torch.equal(strong.image, as_float(given.pool.image))
    with torch.no_grad():
        expected = Double(teacher)(given.pool.image).softmax(1)
    torch.testing.assert_close(strong.targets.probability, expected)
    assert torch.equal(strong.targets.label, given.pool.label.long())


def test_true_labels_override_with_confidence_one() -> None:
    _, teacher = networks()
    given = batch()
    assert given.pool is not None
    targets = PLAIN.strong_view(Double(teacher), given, given.pool, PROGRESS).targets
    known = targets.label != IGNORE
    assert known.any()
    assert (targets.confidence[known] == 1).all()
    assert torch.equal(targets.hard[known], targets.label[known])


def test_a_pasted_object_keeps_its_true_label_where_the_pool_has_none() -> None:
    _, teacher = networks()
    given = unlabelled_pool(batch())
    assert given.pool is not None
    method = S5Mars()
    targets = method.strong_view(Double(teacher), given, given.pool, PROGRESS).targets
    assert (targets.label != IGNORE).any()


def test_without_unsupervised_weight_it_is_supervised() -> None:
    student, teacher = (Double(n) for n in networks())
    given = batch()
    method = S5Mars(unsupervised_weight=0.0)
    supervised = Supervised().losses(student, teacher, given, PROGRESS)
    assert total(method.losses(student, teacher, given, PROGRESS)) == pytest.approx(
        total(supervised)
    )


def test_thresholds_at_zero_are_pseudo_labels_for_all_valid_pixels() -> None:
    student, teacher = (Double(n) for n in networks())
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    method = dataclasses.replace(PLAIN, hard_threshold=0.0, soft_threshold=0.0)
    terms = method.losses(student, teacher, given, PROGRESS)
    assert terms["hard"].share == 1
    assert terms["soft"].share == 0
    assert terms["soft"].value == 0
    with torch.no_grad():
        pseudo = teacher(given.pool.image).argmax(1)
        pseudo[~given.pool.valid] = IGNORE
        expected = cross_entropy(student(given.pool.image), pseudo)
    torch.testing.assert_close(terms["hard"].value.detach(), expected)


def test_thresholds_are_strict_and_overlap_between_them() -> None:
    student, teacher = (Double(n) for n in networks())
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    terms = PLAIN.losses(student, teacher, given, PROGRESS)
    with torch.no_grad():
        confidence = teacher(given.pool.image).softmax(1).amax(1)[given.pool.valid]
    assert float(terms["hard"].share or 0) == pytest.approx(
        float((confidence > 0.7).float().mean())
    )
    assert float(terms["soft"].share or 0) == pytest.approx(
        float((confidence < 0.9).float().mean())
    )


def test_as_released_weighs_the_soft_term_once() -> None:
    method = find_recipe("as_released").method("s5mars", S5Mars())
    assert method.unsupervised_weight * method.soft_weight == 1.0
    assert method.hard_threshold < 0
    assert method.swap == "none"  # its main script never calls AugIN
    assert method.mix.extra_rectangle
    assert method.mix.flip == 0.5
    assert method.mix.rotation == 0


def test_a_batch_without_pool_is_refused() -> None:
    student, teacher = networks()
    with pytest.raises(ValueError, match="pool"):
        S5Mars().losses(student, teacher, Batch(labelled=batch().labelled), PROGRESS)


def test_the_ramp_scales_the_unsupervised_weights() -> None:
    student, teacher = (Double(n) for n in networks())
    half = S5Mars().losses(student, teacher, batch(), dataclasses.replace(PROGRESS, ramp=0.5))
    assert [term.weight for term in half.values()] == [1.0, 1.0, 1.0]
    whole = S5Mars().losses(student, teacher, batch(), PROGRESS)
    assert [term.weight for term in whole.values()] == [1.0, 2.0, 2.0]


class Brightest(nn.Module):
    """Predicts the brightest channel, so that every image shows three classes."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return as_float(image) * 9


def test_classmix_mixes_the_pool_alone_and_asks_for_no_other_answer() -> None:
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    method = S5Mars(mix=SamMix(source="classmix"), swap="none")
    strong = method.strong_view(Brightest(), given, given.pool, PROGRESS)
    weak = as_float(given.pool.image)
    assert not torch.equal(strong.image, weak)
    # Every pixel stands in some pool image at the same place.
    found = (strong.image[:, None] == weak[None]).all(2).any(1)
    assert found.all()
    other = Batch(labelled=batch(seed=9).labelled, pool=given.pool)
    again = method.strong_view(Brightest(), other, given.pool, PROGRESS)
    assert torch.equal(again.image, strong.image)


def test_colours_are_disturbed_before_the_paste() -> None:
    _, teacher = networks()
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    method = S5Mars(mix=SamMix(source="dacs"), swap="none", photometric="brightness")
    strong = method.strong_view(Double(teacher), given, given.pool, PROGRESS)
    pasted = strong.targets.label != IGNORE
    assert pasted.any()
    # Pasted pixels are those of a labelled image at the same place, as they were.
    same = (strong.image[:, None] == as_float(given.labelled.image)[None]).all(2).any(1)
    assert same[pasted].all()
    around = given.pool.valid & ~pasted
    dimmed = (strong.image != as_float(given.pool.image)).any(1)
    assert dimmed[around].float().mean() > 0.9


def test_a_weight_of_the_hard_loss_scales_it_alone() -> None:
    student, teacher = (Double(n) for n in networks())
    terms = S5Mars(hard_weight=0.25).losses(student, teacher, batch(), PROGRESS)
    assert [term.weight for term in terms.values()] == [1.0, 0.5, 2.0]
