"""ClassMix against its paper, pixel by pixel, and its reductions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles import classmix as oracle
from oracles.pseudo_labels import Images
from s5mars.classes import IGNORE
from s5mars.methods.classmix import ClassMix
from s5mars.methods.views import as_float
from s5mars.objective.losses import cross_entropy
from s5mars.randomness import each
from s5mars.types import Batch, View
from tiny import PixelNet, batch, progress_at, unlabelled_pool

PROGRESS = progress_at(seed=3, step=7, total=20)


def networks() -> tuple[PixelNet, PixelNet]:
    torch.manual_seed(1)
    student, teacher = PixelNet(), PixelNet()
    with torch.no_grad():  # every class is predicted somewhere
        teacher.convolution.bias.copy_(-0.5 * teacher.convolution.weight.sum((1, 2, 3)))
    return student, teacher


def images_of(given: Batch, teacher: PixelNet) -> Images:
    """The pool as the oracle takes it."""
    assert given.pool is not None
    image, label = as_float(given.pool.image), given.pool.label.long()
    with torch.no_grad():
        probability = teacher(image).softmax(1)
    return Images(
        image.double().numpy(),
        probability.double().numpy(),
        label.numpy(),
        given.pool.valid.numpy(),
    )


def assert_same(view: View, images: Images) -> None:
    np.testing.assert_allclose(view.image.numpy(), images.image, rtol=1e-6)
    np.testing.assert_allclose(view.targets.probability.numpy(), images.probability, rtol=1e-5)
    assert np.array_equal(view.targets.label.numpy(), images.label)
    assert np.array_equal(view.targets.valid.numpy(), images.valid)


@pytest.mark.parametrize("given", [batch(size=8), unlabelled_pool(batch(size=8))])
def test_mix_and_loss_against_the_paper(given: Batch) -> None:
    student, teacher = networks()
    assert given.pool is not None
    method = ClassMix()
    mixed = method.mixed_view(teacher, given.pool, PROGRESS)
    partner = [1, 2, 0]
    drawn = each(PROGRESS.generators("class mix", 3), lambda rng: rng.random(256, dtype=np.float32))
    expected = oracle.mix(images_of(given, teacher), partner, drawn.astype(np.float64))
    assert_same(mixed, expected)
    assert not torch.equal(mixed.image, as_float(given.pool.image))

    terms = method.losses(student, teacher, given, PROGRESS)
    with torch.no_grad():
        logits = student(mixed.image).double().numpy()
    loss, share = oracle.objective(logits, expected, confident=0.968)
    assert 0 < share < 1
    assert float(terms["mixed"].value.detach()) == pytest.approx(loss, rel=1e-5)
    assert float(terms["mixed"].share or 0) == pytest.approx(share)


def test_without_a_class_to_paste_it_is_pseudo_labelling() -> None:
    student, teacher = networks()
    given = batch(pool_labelled=0.0)
    assert given.pool is not None
    terms = ClassMix(class_share=0.0, confident=0.0).losses(student, teacher, given, PROGRESS)
    with torch.no_grad():
        pseudo = teacher(given.pool.image).argmax(1)
        pseudo[~given.pool.valid] = IGNORE
        expected = cross_entropy(student(given.pool.image), pseudo)
    assert terms["mixed"].share == 1
    torch.testing.assert_close(terms["mixed"].value.detach(), expected)


def test_a_pool_of_nothing_sure_weighs_nothing() -> None:
    student, teacher = networks()
    terms = ClassMix(confident=1.0).losses(student, teacher, batch(pool_labelled=0.0), PROGRESS)
    assert terms["mixed"].value == 0
