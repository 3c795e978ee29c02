"""PrevMatch: which networks are kept, what they say of the pool, and its reduction to UniMatch."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.fixmatch import consistency
from oracles.prevmatch import ensemble, ramp
from s5mars.methods.prevmatch import PrevMatch
from s5mars.methods.unimatch import UniMatch
from s5mars.types import Crops, Progress, Targets, as_predicted
from tiny import PixelNet, batch, progress_at

TOTAL = 20
PLAIN = UniMatch(photometric="none", rectangle=0.0, dropped=0.0, threshold=0.3)


def progress(step: int, **changes: object) -> Progress:
    return progress_at(seed=5, step=step, total=TOTAL, **changes)


def network(seed: int) -> PixelNet:
    torch.manual_seed(seed)
    return PixelNet().train()


def with_past(number: int, **settings: object) -> PrevMatch:
    """A method that has kept networks of the seeds 100, 101, …"""
    method = PrevMatch(unimatch=PLAIN, threshold=0.4, spacing=1 / TOTAL, **settings)
    for step in range(number):
        method.remember(network(100 + step), progress(step))
    return method


def test_before_the_first_copy_it_is_unimatch() -> None:
    student = network(0)
    torch.manual_seed(1)  # of the dropped channels
    terms = PrevMatch().losses(student, student, batch(), progress(1))
    torch.manual_seed(1)
    expected = UniMatch().losses(student, student, batch(), progress(1))
    assert terms.keys() == expected.keys()
    for name, term in expected.items():
        torch.testing.assert_close(terms[name].value, term.value)
        assert terms[name].weight == term.weight


@pytest.mark.parametrize(("step", "networks"), [(5, 1), (10, 2), (9, 3)])
def test_previous_labels_follow_the_paper(step: int, networks: int) -> None:
    student, given = network(0), batch(valid=0.8)
    assert given.pool is not None
    method = with_past(4)
    now = progress(step)
    terms = method.losses(student, student, given, now)

    rng = now.generator("earlier networks")
    number = int(rng.integers(1, 4))
    drawn = rng.choice(4, size=number, replace=False)
    weights = rng.dirichlet(np.ones(number))
    assert number == networks and weights.sum() == pytest.approx(1)
    with torch.no_grad():
        said = [network(100 + int(i)).eval()(given.pool.image).double().numpy() for i in drawn]
        logits = student(given.pool.image).double().numpy()
    loss, share = consistency(
        logits,
        ensemble(said, list(weights)),
        given.pool.label.long().masked_fill(~given.pool.valid, 255).numpy(),
        given.pool.valid.numpy(),
        threshold=0.4,
    )
    # Without disturbance all three views are the weak one: ¼ + ¼ + ½.
    assert float(terms["previous"].value.detach()) == pytest.approx(loss, rel=1e-4)
    assert terms["previous"].share is not None
    assert float(terms["previous"].share) == pytest.approx(share)
    assert terms["previous"].weight == pytest.approx(ramp(step, TOTAL))


@pytest.mark.parametrize("step", [0, 3, 10, 15, 19])
def test_its_weight_grows_to_the_middle_and_falls_to_the_end(step: int) -> None:
    method, student = with_past(1), network(0)
    terms = method.losses(student, student, batch(), progress(step, ramp=0.5))
    assert terms["previous"].weight == pytest.approx(0.5 * ramp(step, TOTAL))


def test_copies_are_spaced_over_the_steps_with_a_pool_and_the_oldest_is_dropped() -> None:
    method, student = PrevMatch(spacing=0.25, copies=3), network(0)
    kept_at = []
    for step in range(4, TOTAL):
        before = method.past
        with torch.no_grad():
            student.convolution.bias.fill_(step)
        method.remember(student, progress(step, pool_from=4))
        if method.past is not before:
            kept_at.append(step)
    assert kept_at == [4, 8, 12, 16]
    assert [float(copy["convolution.bias"][0]) for copy in method.past] == [8, 12, 16]


def test_an_interval_is_not_one_step_longer_than_its_share() -> None:
    """0.07 · 100 is 7.000000000000001 in floating point."""
    method, student = PrevMatch(spacing=0.07, copies=3), network(0)
    method.remember(student, replace(progress(7, pool_from=0), total=100))
    assert len(method.past) == 1


def test_an_interval_has_at_least_one_step() -> None:
    method, student = PrevMatch(spacing=1e-9, copies=3), network(0)
    for step in range(2):
        method.remember(student, progress(step))
    assert len(method.past) == 2


def test_a_copy_has_what_is_trained_and_batch_statistics_alone() -> None:
    student = network(0)
    student.embedding.requires_grad_(False)
    student.register_buffer("statistics", torch.ones(2))
    method = PrevMatch()
    method.remember(student, progress(0))
    (copy,) = method.past
    assert set(copy) == {"convolution.weight", "convolution.bias", "statistics"}
    assert not any(x.requires_grad for x in copy.values())


def test_all_drawn_numbers_of_networks_occur() -> None:
    method, student = with_past(5, drawn=3), network(0)
    image = torch.rand(1, 3, 4, 4)
    numbers = []
    for step in range(40):
        rng = progress(0).generator(f"{step}")
        numbers.append(int(progress(0).generator(f"{step}").integers(1, 4)))
        said = method.predict(student, image, rng)
        torch.testing.assert_close(said.sum(1), torch.ones(1, 4, 4))
    assert set(numbers) == {1, 2, 3}


def test_more_may_be_drawn_than_are_kept() -> None:
    method, student = with_past(1, drawn=3), network(0)
    with torch.no_grad():
        said = method.predict(student, torch.full((1, 3, 4, 4), 0.5), progress(0).generator("x"))
        expected = network(100)(torch.full((1, 3, 4, 4), 0.5)).softmax(1)
    torch.testing.assert_close(said, expected)


def test_both_kinds_of_labels_are_asked_for_together() -> None:
    given, student = batch(), network(0)
    assert given.pool is not None
    asked: list[tuple[Tensor, Crops]] = []

    def pseudo_labels(probability: Tensor, pool: Crops) -> Targets:
        asked.append((probability, pool))
        return as_predicted(probability, pool)

    now = progress(5, pseudo_labels=pseudo_labels)
    terms = with_past(3).losses(student, student, given, now)
    ((probability, pool),) = asked
    size = len(given.pool.image)
    assert len(probability) == len(pool.image) == 2 * size
    assert torch.equal(pool.label[:size], pool.label[size:])
    assert not torch.equal(probability[:size], probability[size:])
    assert not probability.requires_grad
    student.zero_grad()
    terms["previous"].value.backward()
    assert student.convolution.weight.grad is not None
    assert student.convolution.weight.grad.abs().sum() > 0


def test_what_it_has_kept_goes_through_a_checkpoint() -> None:
    method, student = with_past(3), network(0)
    other = PrevMatch(unimatch=PLAIN, threshold=0.4, spacing=1 / TOTAL)
    other.load_state_dict(method.state_dict())
    first, second = (
        m.losses(student, student, batch(), progress(7))["previous"].value for m in (method, other)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"copies": 0}, "copies must be at least 1 (got 0)"),
        ({"drawn": 0}, "drawn must be at least 1 (got 0)"),
        ({"spacing": 0.0}, "spacing"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        PrevMatch(**settings)  # type: ignore[arg-type]


def test_the_interval_of_a_short_run_is_one_step() -> None:
    method, student = PrevMatch(spacing=0.05, copies=100), network(0)
    for step in range(TOTAL):
        method.remember(student, progress(step))
    assert len(method.past) == math.ceil(1 / 0.05)
