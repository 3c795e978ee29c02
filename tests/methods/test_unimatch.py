"""UniMatch against its objective, its feature stream, and its reductions to FixMatch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles import unimatch as oracle
from s5mars.methods.fixmatch import FixMatch, consistency, strong_view
from s5mars.methods.unimatch import UniMatch
from s5mars.methods.views import as_float, kept_pixels, weak_view
from s5mars.types import Targets, Term, View
from tiny import PixelNet, batch, progress_at

PROGRESS = progress_at(seed=5, step=2, total=20)


def network() -> PixelNet:
    torch.manual_seed(1)
    return PixelNet()


def total(terms: dict[str, Term]) -> float:
    return float(sum(t.weight * t.value.detach() for t in terms.values()))


def views(method: UniMatch, weak: View) -> list[View]:
    kept = kept_pixels(weak.targets, PROGRESS, above=method.threshold)
    return [
        strong_view(
            weak,
            kept,
            PROGRESS.generators(purpose, len(kept)),
            kind=method.photometric,
            rectangle=method.rectangle,
        )[0]
        for purpose in ("strong view", "second strong view")
    ]


@pytest.mark.parametrize("method", [UniMatch(), UniMatch(rectangle=1.0)])
def test_objective_against_the_oracle(method: UniMatch) -> None:
    student = network()
    given = batch(size=8)
    assert given.pool is not None
    torch.manual_seed(9)
    terms = method.losses(student, student, given, PROGRESS)
    weak = weak_view(student, given.pool, PROGRESS)
    first, second = views(method, weak)
    torch.manual_seed(9)
    with torch.no_grad():
        labelled, disturbed, logits_1, logits_2 = method.logits(
            student, [as_float(given.labelled.image), weak.image, first.image, second.image]
        )

    def stream(logits: Tensor, targets: Targets) -> tuple[np.ndarray, ...]:
        return (
            logits.double().numpy(),
            targets.probability.double().numpy(),
            targets.label.numpy(),
            targets.valid.numpy(),
        )

    expected = oracle.objective(
        labelled.double().numpy(),
        given.labelled.label.long().numpy(),
        [
            stream(logits_1, first.targets),
            stream(logits_2, second.targets),
            stream(disturbed, weak.targets),
        ],
        threshold=0.95,
    )
    assert total(terms) == pytest.approx(expected, rel=1e-4)


def test_the_two_strong_views_differ() -> None:
    given = batch()
    assert given.pool is not None
    first, second = views(UniMatch(), weak_view(network(), given.pool, PROGRESS))
    assert not torch.equal(first.image, second.image)


class Recorder(PixelNet):
    """Keeps the features that are decoded."""

    def decode(self, low: Tensor, high: Tensor, *, size: tuple[int, int]) -> Tensor:
        self.decoded = (low.detach(), high.detach())
        self.size = size
        return super().decode(low, high, size=size)


def test_half_the_channels_of_the_weak_features_are_dropped_and_no_others() -> None:
    student = Recorder(classes=40)
    images = [torch.rand(n, 3, 4, 6) + 0.1 for n in (2, 9, 3, 3)]
    with torch.no_grad():
        UniMatch().logits(student, images)
        before = student.features(torch.cat(images))
    assert student.size == (4, 6)
    for clean, decoded in zip(before, student.decoded, strict=True):
        assert torch.equal(clean[:2], decoded[:2])
        assert torch.equal(clean[11:], decoded[11:])
    shares = [
        float(np.mean(oracle.dropped_channels(a[2:11].numpy(), b[2:11].numpy())))
        for a, b in zip(before, student.decoded, strict=True)
    ]
    assert 0.1 < shares[0] < 0.9  # 27 channels
    assert shares[1] == pytest.approx(0.5, abs=0.1)  # 360 channels


def test_one_strong_view_alone_is_fixmatch() -> None:
    student = network()
    method = UniMatch(strong_weights=(1.0, 0.0), feature_weight=0.0)
    terms = method.losses(student, student, batch(), PROGRESS)
    expected = FixMatch().losses(student, student, batch(), PROGRESS)
    assert total(terms) == pytest.approx(total(expected), rel=1e-5)


def test_without_drops_the_feature_stream_is_the_weak_view_itself() -> None:
    student = network()
    given = batch()
    assert given.pool is not None
    terms = UniMatch(dropped=0.0).losses(student, student, given, PROGRESS)
    weak = weak_view(student, given.pool, PROGRESS)
    kept = kept_pixels(weak.targets, PROGRESS, above=0.95)
    expected = consistency(student(weak.image), weak.targets, kept=kept, weight=0.5)
    torch.testing.assert_close(terms["features"].value, expected.value)
    assert terms["features"].weight == expected.weight


def test_without_disturbance_all_streams_are_one() -> None:
    student = network()
    method = UniMatch(photometric="none", rectangle=0.0, dropped=0.0)
    terms = method.losses(student, student, batch(), PROGRESS)
    torch.testing.assert_close(terms["strong_1"].value, terms["features"].value)
    torch.testing.assert_close(terms["strong_2"].value, terms["features"].value)
    plain = dataclasses.replace(FixMatch(), photometric="none", rectangle=0.0)
    expected = plain.losses(student, student, batch(), PROGRESS)
    assert total(terms) == pytest.approx(total(expected), rel=1e-5)
