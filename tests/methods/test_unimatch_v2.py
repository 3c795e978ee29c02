"""UniMatch V2: complementary channels, an EMA teacher's labels, and its reductions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from s5mars.methods.fixmatch import FixMatch
from s5mars.methods.unimatch_v2 import UniMatchV2
from tiny import PixelNet, batch, progress_at

PROGRESS = progress_at(seed=5, step=2, total=20)
PLAIN = UniMatchV2(photometric="none", rectangle=0.0)


class Recorder(PixelNet):
    """Keeps the features that are decoded."""

    def decode(self, low: Tensor, high: Tensor, *, size: tuple[int, int]) -> Tensor:
        self.decoded = (low.detach(), high.detach())
        return super().decode(low, high, size=size)


def networks() -> tuple[Recorder, PixelNet]:
    torch.manual_seed(1)
    return Recorder(classes=40), PixelNet(classes=40)


@pytest.mark.parametrize("undropped", [0.0, 1.0])
def test_the_two_views_see_complementary_channels(undropped: float) -> None:
    student, _ = networks()
    images = [torch.rand(3, 3, 4, 4) + 0.1 for _ in range(3)]
    with torch.no_grad():
        clean = student.features(torch.cat(images))
        rngs = PROGRESS.generators("complementary channels", 3)
        UniMatchV2(undropped=undropped).logits(student, images, rngs)
    for before, decoded in zip(clean, student.decoded, strict=True):
        labelled, first, second = decoded.split(3)
        assert torch.equal(labelled, before[:3])
        gone = [~x.flatten(2).any(2) for x in (first, second)]
        if undropped:
            assert not gone[0].any() and not gone[1].any()
            assert torch.equal(first, before[3:6])
            continue
        assert torch.equal(gone[0], ~gone[1])  # what one loses the other has
        torch.testing.assert_close(first[~gone[0]], 2 * before[3:6][~gone[0]])
        torch.testing.assert_close(second[~gone[1]], 2 * before[6:][~gone[1]])
    assert float(gone[0].float().mean()) == pytest.approx((1 - undropped) / 2, abs=0.2)


def test_images_draw_their_own_channels_and_half_of_them_none() -> None:
    student, _ = networks()
    images = [torch.rand(n, 3, 2, 2) + 0.1 for n in (2, 64, 64)]
    with torch.no_grad():
        UniMatchV2().logits(student, images, PROGRESS.generators("complementary channels", 64))
    gone = ~student.decoded[1][2:66].flatten(2).any(2)
    undropped = ~gone.any(1)
    assert 0.3 < float(undropped.float().mean()) < 0.7
    drawn = gone[~undropped]
    assert len(drawn.unique(dim=0)) == len(drawn)


def test_without_drops_and_disturbance_it_is_fixmatch_with_a_teacher() -> None:
    student, teacher = networks()
    given = batch(classes=40)
    method = dataclasses.replace(PLAIN, undropped=1.0, threshold=0.3)
    terms = method.losses(student, teacher, given, PROGRESS)
    plain = FixMatch(photometric="none", rectangle=0.0, threshold=0.3)
    expected = plain.losses(student, teacher, given, PROGRESS)
    assert terms["strong_1"].weight == terms["strong_2"].weight == 0.5
    for name in ("strong_1", "strong_2"):
        torch.testing.assert_close(terms[name].value, expected["strong"].value)
    torch.testing.assert_close(terms["supervised"].value, expected["supervised"].value)


def test_the_two_strong_views_differ() -> None:
    student, teacher = networks()
    terms = UniMatchV2(undropped=1.0, threshold=0.3).losses(
        student, teacher, batch(classes=40), PROGRESS
    )
    assert not torch.equal(terms["strong_1"].value, terms["strong_2"].value)
