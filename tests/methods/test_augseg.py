"""AugSeg against its confidence, adaptive CutMix and objective, and its reductions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles import augseg as oracle
from oracles import fixmatch as fixmatch_oracle
from s5mars.augment.geometric import rectangles
from s5mars.augment.statistics import partners
from s5mars.classes import IGNORE
from s5mars.methods.augseg import AugSeg, confidence
from s5mars.methods.views import as_float, kept_pixels, weak_view
from s5mars.objective.losses import cross_entropy
from s5mars.randomness import each
from s5mars.types import Batch, Targets, View
from tiny import PixelNet, batch, crops, progress_at

PROGRESS = progress_at(seed=3, step=7, total=20)
SIZE = (24, 24)


def networks() -> tuple[PixelNet, PixelNet]:
    torch.manual_seed(1)
    return PixelNet(), PixelNet().eval()


def weak_and_strong(
    method: AugSeg, teacher: PixelNet, given: Batch
) -> tuple[View, View, torch.Tensor]:
    assert given.pool is not None
    weak = weak_view(teacher, given.pool, PROGRESS)
    kept = kept_pixels(weak.targets, PROGRESS, above=method.threshold)
    rngs = PROGRESS.generators("strong view", len(kept))
    strong, kept = method.strong_view(weak, kept, given.labelled, rngs)
    return weak, strong, kept


def test_confidence_against_the_oracle() -> None:
    _, teacher = networks()
    given = batch()
    assert given.pool is not None
    targets = weak_view(teacher, given.pool, PROGRESS).targets
    expected = oracle.confidence(targets.probability.double().numpy(), targets.valid.numpy())
    np.testing.assert_allclose(confidence(targets).numpy(), expected, rtol=1e-5)


def test_confidence_is_one_when_sure_and_zero_when_unsure_or_empty() -> None:
    probability = torch.full((3, 4, 2, 2), 0.25)
    probability[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None, None]
    valid = torch.ones(3, 2, 2, dtype=torch.bool)
    valid[2] = False
    label = torch.full((3, 2, 2), IGNORE)
    score = confidence(Targets(probability=probability, label=label, valid=valid))
    torch.testing.assert_close(score, torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("seed", range(3))
def test_adaptive_cut_mix_against_the_oracle(seed: int) -> None:
    _, teacher = networks()
    # Five pool images and two donors: both are drawn from, none is skipped.
    given = Batch(
        labelled=crops(seed=seed, valid=0.9, batch=2),
        pool=crops(seed=seed + 50, labelled=0.2, valid=0.9, batch=5),
    )
    method = AugSeg(photometric="none", threshold=0.6)
    weak, strong, kept = weak_and_strong(method, teacher, given)
    rngs = PROGRESS.generators("strong view", 5)
    partner = partners(5)
    donor = partner % 2
    draws = each(rngs, lambda rng: rng.random())
    patch = rectangles(SIZE, rngs, alpha=8.0, beta=2.0)
    rectangle = rectangles(SIZE, rngs, beta=4.0)

    # 255 for a pixel that trains nothing, so that one map shows what moved and what is kept.
    before = torch.where(kept_pixels(weak.targets, PROGRESS, above=0.6), weak.targets.hard, IGNORE)
    image, label = oracle.adaptive_cut_mix(
        weak.image.numpy(),
        before.numpy(),
        as_float(given.labelled.image).numpy(),
        given.labelled.label.long().numpy(),
        given.labelled.valid.numpy(),
        scores=confidence(weak.targets).tolist(),
        draws=draws,
        donor=donor.tolist(),
        patch=patch.numpy(),
        partner=partner.tolist(),
        rectangle=rectangle.numpy(),
    )
    np.testing.assert_array_equal(strong.image.numpy(), image)
    np.testing.assert_array_equal(torch.where(kept, strong.targets.hard, IGNORE).numpy(), label)
    assert (strong.image != weak.image).any()


@pytest.mark.parametrize("method", [AugSeg(), AugSeg(threshold=0.7)])
def test_objective_against_the_oracle(method: AugSeg) -> None:
    student, teacher = networks()
    given = batch(size=8)
    terms = method.losses(student, teacher, given, PROGRESS)
    _, strong, _ = weak_and_strong(method, teacher, given)
    targets = strong.targets
    with torch.no_grad():
        supervised = fixmatch_oracle.supervised(
            student(given.labelled.image).double().numpy(), given.labelled.label.long().numpy()
        )
        # An unlabelled pixel of a donor has a prediction of zeros, which is above no threshold.
        expected, share = fixmatch_oracle.consistency(
            student(strong.image).double().numpy(),
            targets.probability.double().numpy(),
            targets.label.numpy(),
            targets.valid.numpy(),
            threshold=method.threshold,
        )
    assert float(terms["supervised"].value.detach()) == pytest.approx(supervised, rel=1e-4)
    assert float(terms["strong"].value.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(terms["strong"].share) == pytest.approx(share)  # type: ignore[arg-type]
    assert terms["strong"].weight == 1.0


def test_a_sure_teacher_gets_no_labelled_patches_and_an_unsure_one_does() -> None:
    given = batch(valid=1.1)
    for scale, changes in ((1e6, False), (0.0, True)):
        _, teacher = networks()
        with torch.no_grad():
            teacher.convolution.weight.mul_(scale)
            teacher.convolution.bias.mul_(scale)  # type: ignore[union-attr]
        weak, strong, _ = weak_and_strong(AugSeg(photometric="none"), teacher, given)
        known = {tuple(p.tolist()) for p in weak.image.permute(0, 2, 3, 1).reshape(-1, 3)}
        pixels = strong.image.permute(0, 2, 3, 1).reshape(-1, 3)
        foreign = [tuple(p.tolist()) not in known for p in pixels]
        assert any(foreign) == changes


def test_without_patches_and_colours_it_is_cut_mix_with_a_teacher() -> None:
    student, teacher = networks()
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    method = AugSeg(photometric="none", labelled_patches=False)
    terms = method.losses(student, teacher, given, PROGRESS)
    partner = partners(3)
    region = rectangles(SIZE, PROGRESS.generators("strong view", 3))
    image, valid = as_float(given.pool.image), given.pool.valid
    mixed = torch.where(region.unsqueeze(1), image[partner], image)
    with torch.no_grad():
        pseudo = teacher(mixed).argmax(1)
        pseudo[~torch.where(region, valid[partner], valid)] = IGNORE
        expected = cross_entropy(student(mixed), pseudo)
    torch.testing.assert_close(terms["strong"].value.detach(), expected)
    assert terms["strong"].share == 1


def test_a_donors_unlabelled_pixels_train_nothing_and_its_padding_is_not_pasted() -> None:
    _, teacher = networks()
    labelled = crops(seed=4, labelled=0.0, valid=0.5)
    with torch.no_grad():  # unsure of everything: every image gets a patch
        teacher.convolution.weight.zero_()
        teacher.convolution.bias.zero_()  # type: ignore[union-attr]
    pool = crops(seed=5, labelled=0.0, valid=1.1)
    method = AugSeg(photometric="none")
    _, strong, kept = weak_and_strong(method, teacher, Batch(labelled=labelled, pool=pool))
    foreign = (strong.targets.probability == 0).all(1)
    assert foreign.any()
    assert not kept[foreign].any()
    assert kept[~foreign].all()
    assert strong.targets.valid.all()


def test_labelled_patches_are_smaller_than_cut_mix_rectangles() -> None:
    rngs = PROGRESS.generators("areas", 500)
    patch = rectangles(SIZE, rngs, alpha=8.0, beta=2.0).float().mean()
    rectangle = rectangles(SIZE, rngs).float().mean()
    assert float(patch) < 0.2 < float(rectangle)
