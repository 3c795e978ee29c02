"""RanPaste against its reading, pixel by pixel, and its reductions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from oracles import ranpaste as oracle
from oracles.pseudo_labels import Images
from s5mars.augment.random_paste import random_paste
from s5mars.classes import IGNORE
from s5mars.methods.ranpaste import RanPaste
from s5mars.methods.views import weak_views
from s5mars.objective.losses import cross_entropy
from s5mars.types import Batch, View
from tiny import PixelNet, batch, crops, progress_at, rngs, unlabelled_pool

PROGRESS = progress_at(seed=3, step=7, total=20)


def networks() -> tuple[PixelNet, PixelNet]:
    torch.manual_seed(1)
    return PixelNet(), PixelNet()


def images_of(view: View) -> Images:
    targets = view.targets
    return Images(
        view.image.double().numpy(),
        targets.probability.double().numpy(),
        targets.label.numpy(),
        targets.valid.numpy(),
    )


def box(rng: np.random.Generator, size: int) -> tuple[int, int, int, int, int, int]:
    """Drawn as ``random_paste`` draws it, by the order of the draws alone."""
    side = round(math.sqrt(1 - rng.beta(4, 4)) * size)
    (from_y, to_y), (from_x, to_x) = (
        [int(u * (size - side + 1)) for u in rng.random(2)] for _ in range(2)
    )
    return side, side, from_y, from_x, to_y, to_x


@pytest.mark.parametrize("given", [batch(size=10), unlabelled_pool(batch(size=10))])
def test_paste_and_loss_against_the_oracle(given: Batch) -> None:
    student, teacher = networks()
    assert given.pool is not None
    method = RanPaste()
    pasted = method.pasted_view(teacher, batch=given, progress=PROGRESS)
    pool, donors = weak_views(teacher, given.pool, given.labelled, PROGRESS)
    expected = oracle.paste(
        images_of(pool),
        images_of(donors),
        [1, 2, 0],
        [box(rng, 10) for rng in PROGRESS.generators("random paste", 3)],
    )
    got = images_of(pasted)
    for name in ("image", "probability", "label", "valid"):
        assert np.array_equal(getattr(got, name), getattr(expected, name)), name

    terms = method.losses(student, teacher, given, PROGRESS)
    with torch.no_grad():
        logits = student(pasted.image).double().numpy()
    loss, share = oracle.objective(logits, expected, threshold=0.95)
    assert 0 < share < 1
    assert float(terms["pasted"].value.detach()) == pytest.approx(loss, rel=1e-5)
    assert float(terms["pasted"].share or 0) == pytest.approx(share)


def test_rectangles_lie_within_and_are_placed_anywhere() -> None:
    size, seeds = 16, 60
    touched = torch.zeros(size, size)
    for seed in range(seeds):
        teacher = networks()[1]
        pool, donors = weak_views(
            teacher,
            crops(seed=2, valid=1.0, size=size),
            crops(seed=1, valid=1.0, size=size),
            PROGRESS,
        )
        pasted = random_paste(donors, pool, rngs(seed, 3))
        changed = (pasted.image != pool.image).any(1)
        rows, columns = changed.any(2), changed.any(1)
        filled = rows[:, :, None] & columns[:, None, :]
        assert (changed == filled).double().mean() > 0.99  # equal pixels by chance
        touched += changed.double().mean(0) / seeds
    assert touched.min() > 0.02
    # The centre is covered most often, and alike on all sides.
    torch.testing.assert_close(touched, touched.flip(0), atol=0.2, rtol=0)
    torch.testing.assert_close(touched, touched.flip(1), atol=0.2, rtol=0)


def test_donors_without_a_valid_pixel_leave_pseudo_labelling() -> None:
    student, teacher = networks()
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    blind = dataclasses.replace(given.labelled, valid=torch.zeros_like(given.labelled.valid))
    terms = RanPaste(threshold=0.0).losses(
        student, teacher, Batch(labelled=blind, pool=given.pool), PROGRESS
    )
    with torch.no_grad():
        pseudo = teacher(given.pool.image).argmax(1)
        pseudo[~given.pool.valid] = IGNORE
        expected = cross_entropy(student(given.pool.image), pseudo)
    assert terms["pasted"].share == 1
    torch.testing.assert_close(terms["pasted"].value.detach(), expected)
