"""Mean Teacher against its equation, and its reductions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from oracles import mean_teacher as oracle
from s5mars.classes import IGNORE
from s5mars.methods.mean_teacher import MeanTeacher, dropout
from s5mars.methods.supervised import Supervised
from s5mars.methods.views import as_float
from s5mars.types import Batch
from tiny import PixelNet, batch, progress_at, unlabelled_pool

PROGRESS = progress_at(seed=3, step=7, total=20, ramp=0.5)


class Recorder(nn.Module):
    """Keeps what it saw and said."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PixelNet()
        self.dropout = nn.Dropout2d(0.5)
        self.seen: list[Tensor] = []
        self.said: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(self.dropout(image))
        self.seen.append(image)
        self.said.append(logits.detach())
        return logits


def networks() -> tuple[Recorder, Recorder]:
    torch.manual_seed(1)
    return Recorder(), Recorder().eval()


def pool_images(given: Batch) -> Tensor:
    assert given.pool is not None
    return torch.cat([as_float(given.labelled.image), as_float(given.pool.image)])


@pytest.mark.parametrize("given", [batch(size=8), unlabelled_pool(batch(size=8))])
def test_objective_against_the_equation(given: Batch) -> None:
    student, teacher = networks()
    assert given.pool is not None
    terms = MeanTeacher().losses(student, teacher, given, PROGRESS)
    known = torch.cat([torch.full_like(given.labelled.label, IGNORE), given.pool.label])
    valid = torch.cat([given.labelled.valid, given.pool.valid])
    expected = oracle.consistency(
        student.said[0].double().numpy(),
        teacher.said[0].double().numpy(),
        known.long().numpy(),
        valid.numpy(),
    )
    assert float(terms["consistency"].value.detach()) == pytest.approx(expected, rel=1e-5)
    assert terms["consistency"].weight == 5.0
    assert terms["supervised"].weight == 1.0


def test_both_see_other_noise_of_the_right_size() -> None:
    student, teacher = networks()
    given = batch(size=64)
    MeanTeacher().losses(student, teacher, given, PROGRESS)
    clean = pool_images(given)
    ours, theirs = student.seen[0] - clean, teacher.seen[0] - clean
    for noise in (ours, theirs):
        assert float(noise.std()) == pytest.approx(0.01, rel=0.02)
        assert float(noise.mean()) == pytest.approx(0, abs=1e-3)
    correlation = float((ours * theirs).mean() / (ours.std() * theirs.std()))
    assert abs(correlation) < 0.02


def test_only_the_dropout_of_the_teacher_draws_and_only_for_the_pass() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.5)).eval()
    with dropout(network, active=True):
        assert [m.training for m in network] == [False, False, True]
    with dropout(network, active=False):
        assert not any(m.training for m in network)
    assert not any(m.training for m in network.modules())


def test_equal_networks_without_noise_or_dropout_agree() -> None:
    student = PixelNet()
    teacher = copy.deepcopy(student).eval()
    method = MeanTeacher(noise=0.0, teacher_dropout=False)
    terms = method.losses(student, teacher, batch(pool_labelled=0.0), PROGRESS)
    assert terms["consistency"].value == 0
    with_noise = MeanTeacher().losses(student, teacher, batch(pool_labelled=0.0), PROGRESS)
    assert with_noise["consistency"].value > 0


def test_without_noise_its_supervised_term_is_supervised() -> None:
    student = PixelNet()
    given = batch()
    terms = MeanTeacher(noise=0.0).losses(student, PixelNet(), given, PROGRESS)
    expected = Supervised().losses(student, student, given, PROGRESS)
    torch.testing.assert_close(terms["supervised"].value, expected["supervised"].value)
