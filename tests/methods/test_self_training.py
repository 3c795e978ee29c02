"""Self-training: reduced to cases that are known, and what erasing does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from s5mars.classes import IGNORE
from s5mars.methods.self_training import SelfTraining, erase
from s5mars.types import Targets, View
from tiny import PixelNet, batch, progress_at

PROGRESS = progress_at(seed=0, step=5, total=10)


def test_without_augmentation_it_is_cross_entropy_with_what_the_teacher_says() -> None:
    torch.manual_seed(0)
    student, teacher = PixelNet(), PixelNet()
    given = batch(pool_labelled=0.0, valid=0.7)
    pool = given.pool
    assert pool is not None
    terms = SelfTraining(photometric="none", erased=0.0).losses(
        student, teacher.eval(), given, PROGRESS
    )
    label = teacher(pool.image).argmax(1).masked_fill(~pool.valid, IGNORE)
    expected = functional.cross_entropy(student(pool.image), label, ignore_index=IGNORE)
    torch.testing.assert_close(terms["strong"].value, expected)
    assert terms["strong"].share == 1  # no threshold


def test_erased_pixels_are_noise_and_train_nothing() -> None:
    image = torch.full((64, 3, 16, 16), 0.5)
    targets = Targets(
        probability=torch.full((64, 4, 16, 16), 0.25),
        label=torch.full((64, 16, 16), IGNORE),
        valid=torch.ones(64, 16, 16, dtype=torch.bool),
    )
    erased = erase(View(image, targets), PROGRESS.generators("x", 64), probability=0.5)
    changed = (erased.image != 0.5).any(1)
    assert torch.equal(changed, ~erased.targets.valid)
    assert 16 < int(changed.any((1, 2)).sum()) < 48
    assert targets.valid.all()  # what was given stays


@pytest.mark.parametrize("erased", [0.0, 1.0])
def test_the_teacher_stays_as_it_is(erased: float) -> None:
    student, teacher = PixelNet(), PixelNet()
    before = copy.deepcopy(teacher.state_dict())
    terms = SelfTraining(erased=erased).losses(student, teacher, batch(), PROGRESS)
    sum(t.weight * t.value for t in terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
