"""Distribution alignment against the formula of ReMixMatch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from s5mars.alignment import AlignedTeacher, Alignment, counting
from s5mars.classes import IGNORE
from tiny import PixelNet


class Fixed(nn.Module):
    """A teacher that always gives the same probabilities."""

    def __init__(self, probability: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(probability).log()

    def forward(self, image: Tensor) -> Tensor:
        size = (len(image), -1, *image.shape[-2:])
        return self.logits.view(1, -1, 1, 1).expand(size)


def test_formula() -> None:
    alignment = Alignment(3)
    label_share, predicted = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    alignment.labelled.copy_(label_share)
    alignment.predicted.copy_(predicted)
    q = torch.tensor([0.1, 0.2, 0.7])
    expected = q * label_share / predicted
    aligned = (q.log() + alignment.correction).softmax(0)
    torch.testing.assert_close(aligned, expected / expected.sum())


def test_predictions_drift_to_the_shares_of_the_labels() -> None:
    alignment = Alignment(3, momentum=0.9)
    label = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    teacher = AlignedTeacher(Fixed([0.1, 0.1, 0.8]), alignment)
    image = torch.ones(1, 3, 1, 5)
    for _ in range(200):
        alignment.observe_labels(label)
        with counting(teacher, torch.ones(1, 1, 5, dtype=torch.bool)):
            aligned = teacher(image).softmax(1).mean((0, 2, 3))
    torch.testing.assert_close(
        alignment.labelled, torch.tensor([0.75, 0.25, 0.0]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(aligned[:2], torch.tensor([0.75, 0.25]), atol=2e-3, rtol=0)


def test_equal_shares_change_nothing() -> None:
    alignment = Alignment(4)
    assert torch.equal(alignment.correction, torch.zeros(4))


def test_ignored_pixels_and_empty_batches_say_nothing() -> None:
    alignment = Alignment(2)
    before = [alignment.labelled.clone(), alignment.predicted.clone()]
    alignment.observe_labels(torch.full((1, 2, 2), IGNORE))
    teacher = AlignedTeacher(Fixed([0.9, 0.1]), alignment)
    valid = torch.zeros(1, 2, 2, dtype=torch.bool)
    with counting(teacher, valid):
        teacher(torch.ones(1, 3, 2, 2))
    assert torch.equal(alignment.labelled, before[0])
    assert torch.equal(alignment.predicted, before[1])
    valid[..., 0] = True
    with counting(teacher, valid):
        teacher(torch.ones(1, 3, 2, 2))
    assert alignment.predicted[0] > 0.5


def test_areas_of_a_partition_count_as_labels_do() -> None:
    one, other = Alignment(3), Alignment(3)
    for _ in range(5):
        one.observe_areas(torch.tensor([6, 2, 0]))
        other.observe_labels(torch.tensor([[[0, 0, 0, 1, IGNORE]]]))
    torch.testing.assert_close(one.labelled, other.labelled)


def test_the_parts_give_what_the_whole_gives() -> None:
    image = torch.randint(0, 255, (2, 3, 6, 6), dtype=torch.uint8)
    valid = torch.rand(2, 6, 6) > 0.3
    label = torch.tensor([[[0, 0, 1, IGNORE]]])
    network = PixelNet()
    results, averages = [], []
    for whole in (True, False):
        alignment = Alignment(4, momentum=0.5)
        alignment.observe_labels(label)
        teacher = AlignedTeacher(network, alignment)
        with counting(teacher, valid):
            if whole:
                results.append(teacher(image))
            else:
                results.append(teacher.decode(*teacher.features(image), size=(6, 6)))
        averages.append(alignment.predicted)
    assert torch.equal(*results)
    assert torch.equal(*averages)
    fused = network.fuse(*network.features(image))
    assert torch.equal(teacher.represent(fused), network.represent(fused))


def test_pixels_that_nobody_spoke_of_are_refused() -> None:
    teacher = AlignedTeacher(PixelNet(), Alignment(4))
    with pytest.raises(ValueError, match="spoke of None"):
        teacher(torch.zeros(1, 3, 2, 2))
    others = torch.ones(1, 3, 3, dtype=torch.bool)
    with counting(teacher, others), pytest.raises(ValueError, match=r"\(1, 3, 3\)"):
        teacher.classify(torch.zeros(1, 4, 2, 2), size=(2, 2))
