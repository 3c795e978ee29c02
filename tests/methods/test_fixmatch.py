"""FixMatch against its objective computed pixel by pixel, and its strong view."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from oracles import fixmatch as oracle
from s5mars.augment.geometric import inner_rectangles
from s5mars.augment.photometric import photometric
from s5mars.augment.statistics import partners
from s5mars.classes import IGNORE
from s5mars.methods.fixmatch import FixMatch, strong_view
from s5mars.methods.views import kept_pixels, weak_view
from s5mars.objective.losses import cross_entropy
from s5mars.types import View
from tiny import PixelNet, batch, progress_at

PROGRESS = progress_at(seed=3, step=7, total=20)
PLAIN = FixMatch(photometric="none", rectangle=0.0)


def network() -> PixelNet:
    torch.manual_seed(1)
    return PixelNet()


def weak_and_strong(method: FixMatch, student: PixelNet, **kwargs: int) -> tuple[View, View]:
    pool = batch(**kwargs).pool
    assert pool is not None
    weak = weak_view(student, pool, PROGRESS)
    strong, _ = strong_view(
        weak,
        kept_pixels(weak.targets, PROGRESS, above=method.threshold),
        PROGRESS.generators("strong view", len(weak.image)),
        kind=method.photometric,
        rectangle=method.rectangle,
    )
    return weak, strong


@pytest.mark.parametrize("method", [FixMatch(), PLAIN, FixMatch(threshold=0.6)])
def test_objective_against_the_oracle(method: FixMatch) -> None:
    student = network()
    given = batch(size=8)
    terms = method.losses(student, student, given, PROGRESS)
    _, strong = weak_and_strong(method, student, size=8)
    targets = strong.targets
    with torch.no_grad():
        supervised = oracle.supervised(
            student(given.labelled.image).double().numpy(), given.labelled.label.long().numpy()
        )
        expected, share = oracle.consistency(
            student(strong.image).double().numpy(),
            targets.probability.double().numpy(),
            targets.label.numpy(),
            targets.valid.numpy(),
            threshold=method.threshold,
        )
    assert float(terms["supervised"].value.detach()) == pytest.approx(supervised, rel=1e-4)
    assert float(terms["strong"].value.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(terms["strong"].share) == pytest.approx(share)  # type: ignore[arg-type]
    assert (terms["supervised"].weight, terms["strong"].weight) == (1.0, 1.0)


def test_strong_view_against_the_oracle() -> None:
    weak, strong = weak_and_strong(FixMatch(rectangle=1.0), network())
    rngs = PROGRESS.generators("strong view", 3)
    changed = photometric(weak.image, weak.targets.valid, kind="fixmatch", generators=rngs)
    partner = partners(3)
    region = inner_rectangles((24, 24), rngs, probability=1.0)
    assert region.any((1, 2)).all()
    for got, before in (
        (strong.image, changed),
        (strong.targets.probability, weak.targets.probability),
        (strong.targets.label.unsqueeze(1), weak.targets.label.unsqueeze(1)),
        (strong.targets.valid.unsqueeze(1), weak.targets.valid.unsqueeze(1)),
    ):
        expected = oracle.cut_mix(before.numpy(), region.numpy(), partner.tolist())
        np.testing.assert_array_equal(got.numpy(), expected)


def test_pseudo_labels_follow_their_pixels() -> None:
    student = network()
    method = dataclasses.replace(PLAIN, rectangle=1.0)
    weak, strong = weak_and_strong(method, student)
    assert not torch.equal(weak.image, strong.image)
    # The network sees each pixel alone, so it must answer for a moved pixel as it did before.
    with torch.no_grad():
        expected = student(strong.image).softmax(1)
    torch.testing.assert_close(strong.targets.probability, expected)


def test_a_threshold_of_zero_labels_every_valid_pixel() -> None:
    student = network()
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    terms = dataclasses.replace(PLAIN, threshold=0.0).losses(student, student, given, PROGRESS)
    assert terms["strong"].share == 1
    with torch.no_grad():
        logits = student(given.pool.image)
        expected = cross_entropy(logits, logits.argmax(1).masked_fill(~given.pool.valid, IGNORE))
    torch.testing.assert_close(terms["strong"].value.detach(), expected)


def test_it_has_no_teacher() -> None:
    assert FixMatch().needs.pool
    assert not FixMatch().needs.teacher
