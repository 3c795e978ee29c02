"""What FixMatch, both UniMatch and AugSeg share: weak labels, strong views, one objective."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from s5mars.classes import IGNORE
from s5mars.methods.augseg import AugSeg
from s5mars.methods.fixmatch import FixMatch
from s5mars.methods.supervised import Supervised
from s5mars.methods.unimatch import UniMatch
from s5mars.methods.unimatch_v2 import UniMatchV2
from s5mars.methods.views import kept_pixels, weak_view
from s5mars.objective.losses import cross_entropy, ohem_cross_entropy
from s5mars.objective.teacher import evaluating
from s5mars.objective.thresholds import above_threshold
from s5mars.types import Criterion, Term
from tiny import PixelNet, batch, progress_at, unlabelled_pool

PROGRESS = progress_at(seed=3, step=7, total=20)
METHODS: list[FixMatch | UniMatch | UniMatchV2 | AugSeg] = [
    FixMatch(), UniMatch(), UniMatchV2(), AugSeg(),
]  # fmt: skip

each = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def networks() -> tuple[PixelNet, PixelNet]:
    torch.manual_seed(1)
    return PixelNet(), PixelNet().eval()


def total(terms: dict[str, Term]) -> float:
    return float(sum(t.weight * t.value.detach() for t in terms.values()))


class BatchNormNet(PixelNet):
    """A PixelNet whose training pass depends on, and moves, running statistics; and one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3)
        self.frozen.eval()

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        return super().features(self.frozen(self.norm(image)))


@each
@pytest.mark.parametrize("criterion", [cross_entropy, ohem_cross_entropy])
def test_without_unsupervised_weight_it_is_supervised(
    method: FixMatch, criterion: Criterion
) -> None:
    student, teacher = networks()
    progress = dataclasses.replace(PROGRESS, criterion=criterion)
    method = dataclasses.replace(method, unsupervised_weight=0.0)
    terms = method.losses(student, teacher, batch(), progress)
    expected = total(Supervised().losses(student, teacher, batch(), progress))
    assert total(terms) == pytest.approx(expected)


@each
def test_the_ramp_scales_the_unsupervised_weights(method: FixMatch) -> None:
    student, teacher = networks()
    whole = method.losses(student, teacher, batch(), PROGRESS)
    half = method.losses(student, teacher, batch(), dataclasses.replace(PROGRESS, ramp=0.5))
    for name, term in whole.items():
        factor = 1.0 if name == "supervised" else 0.5
        assert half[name].weight == pytest.approx(term.weight * factor)


@each
def test_thresholds_are_asked_once_a_step_about_the_weak_view(method: FixMatch) -> None:
    student, teacher = networks()
    seen: list[tuple[Tensor, float]] = []

    def keep(probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
        seen.append((probability, above))
        return above_threshold(probability, valid, above=above)

    given = batch()
    assert given.pool is not None
    method.losses(student, teacher, given, dataclasses.replace(PROGRESS, keep=keep))
    ((probability, above),) = seen
    assert above == method.threshold
    torch.testing.assert_close(probability, teacher(given.pool.image).softmax(1))


def test_true_labels_are_kept_below_the_threshold() -> None:
    given = batch(pool_labelled=0.5)
    assert given.pool is not None
    weak = weak_view(networks()[1], given.pool, PROGRESS)
    known = weak.targets.label != IGNORE
    assert torch.equal(weak.targets.hard[known], given.pool.label.long()[known])
    assert torch.equal(kept_pixels(weak.targets, PROGRESS, above=2.0), known & given.pool.valid)
    weak = weak_view(networks()[1], unlabelled_pool(given).pool, PROGRESS)  # type: ignore[arg-type]
    assert not kept_pixels(weak.targets, PROGRESS, above=2.0).any()
    assert torch.equal(kept_pixels(weak.targets, PROGRESS, above=0.0), given.pool.valid)


@each
def test_a_shared_network_moves_its_batch_statistics_once(method: FixMatch) -> None:
    torch.manual_seed(0)
    student = BatchNormNet()
    student.train()
    student.frozen.eval()
    before = copy.deepcopy(student.frozen.state_dict())
    terms = method.losses(student, student, batch(), PROGRESS)
    assert student.norm.num_batches_tracked == 1
    assert student.norm.training
    assert not student.frozen.training
    assert all(torch.equal(before[k], v) for k, v in student.frozen.state_dict().items())
    torch.stack([t.weight * t.value for t in terms.values()]).sum().backward()
    assert student.convolution.weight.grad is not None
    assert student.convolution.weight.grad.abs().sum() > 0


def test_labels_come_from_running_statistics() -> None:
    student = BatchNormNet()
    student.norm.running_mean.fill_(0.4)  # type: ignore[union-attr, operator]
    student.train()
    given = batch()
    assert given.pool is not None
    weak = weak_view(student, given.pool, PROGRESS)
    assert not weak.targets.probability.requires_grad
    with torch.no_grad():
        expected = student.eval()(given.pool.image).softmax(1)
    torch.testing.assert_close(weak.targets.probability, expected)


def test_modes_are_restored_after_an_error() -> None:
    student = BatchNormNet()
    with pytest.raises(RuntimeError), evaluating(student):
        assert not student.norm.training
        raise RuntimeError
    assert student.norm.training
    assert not student.frozen.training


@each
def test_mixed_precision_keeps_the_gradient_of_a_shared_network(method: FixMatch) -> None:
    # torch once cached the weights that a pass without gradients had cast, and trained with those.
    student, _ = networks()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method.losses(student, student, batch(), PROGRESS)
    terms["supervised"].value.backward()
    assert student.convolution.weight.grad is not None
    assert student.convolution.weight.grad.abs().sum() > 0
