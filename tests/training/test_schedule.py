"""The learning rate, the ramp, and the teacher's memory over a run."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s5mars.settings.config import TrainConfig
from s5mars.training import schedule
from s5mars.training.run import _total_steps
from s5mars.training.schedule import ramp, teacher_momentum
from s5mars.training.streams import Streams
from s5mars.types import Sample

polynomial = partial(schedule.polynomial, power=0.9, freeze_at=1.0)


def test_polynomial_at_known_places() -> None:
    assert polynomial(0, total=100) == 1
    assert polynomial(50, total=100) == pytest.approx(0.5**0.9)
    assert polynomial(100, total=100) == 0
    assert polynomial(120, total=100) == 0  # asked for once more after the last step
    assert polynomial(75, total=100, power=1) == 0.25
    assert polynomial(75, total=100, power=0) == 1


def test_polynomial_stays_where_it_is_frozen() -> None:
    frozen = polynomial(200, total=240)
    assert polynomial(200, total=240, freeze_at=200 / 240) == pytest.approx(frozen)
    assert polynomial(239, total=240, freeze_at=200 / 240) == pytest.approx(frozen)
    assert polynomial(100, total=240, freeze_at=200 / 240) == polynomial(100, total=240)


@given(st.integers(1, 10_000), st.floats(0.1, 3))
def test_polynomial_never_rises(total: int, power: float) -> None:
    rates = [polynomial(total * i // 20, total=total, power=power) for i in range(21)]
    assert rates == sorted(rates, reverse=True)


def test_ramp() -> None:
    assert ramp(0, start=0, length=0) == 1  # the paper: none
    assert ramp(0, start=0, length=100) == pytest.approx(math.exp(-5))
    assert ramp(50, start=0, length=100) == pytest.approx(math.exp(-5 / 4))
    assert ramp(100, start=0, length=100) == ramp(500, start=0, length=100) == 1
    values = [ramp(step, start=0, length=37.5) for step in range(60)]
    assert values == sorted(values) and values[37] < 1 == values[38]


def test_the_warm_up_comes_before_the_ramp() -> None:
    values = [ramp(step, start=10, length=5) for step in range(20)]
    assert values[:10] == [0.0] * 10
    assert values[10] == pytest.approx(math.exp(-5))
    assert values[15:] == [1.0] * 5
    assert [ramp(step, start=3, length=0) for step in (2, 3)] == [0.0, 1.0]


@pytest.mark.parametrize("length", [0, 5])
def test_the_first_step_with_a_pool_uses_it(length: int) -> None:
    """0.07 · 100 is above 7 in floats, and the batch of step 7 has a pool."""
    assert [ramp(step, start=0.07 * 100, length=length) > 0 for step in (6, 7)] == [False, True]


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.0), (1, 0.5), (9, 0.9), (10_000, 0.996)])
def test_the_teachers_momentum_grows_from_a_copy_of_the_student(step: int, momentum: float) -> None:
    of_paper = teacher_momentum(step, total=150_000, limit=0.996, span=0)
    assert of_paper == pytest.approx(momentum)


def test_the_teachers_memory_fits_the_run() -> None:
    def largest(total: int, *, span: float) -> float:
        return teacher_momentum(10**9, total=total, limit=0.996, span=span)

    assert largest(150_000, span=0.05) == 0.996
    assert largest(600, span=0.05) == pytest.approx(1 - 1 / 30)
    assert largest(600, span=0) == 0.996
    assert largest(10, span=0.05) == 0  # less than one step


@pytest.mark.parametrize(("epochs", "steps"), [(2.2, 55), (2.21, 56), (0.001, 1)])
def test_epochs_have_no_step_too_many(epochs: float, steps: int) -> None:
    """2.2 · 50 is above 110 in floats."""
    config = TrainConfig(data=Path("data"), out=Path("run"), epochs=epochs, batch=2)
    labelled = tuple(Sample(str(i), Path(f"{i}.png")) for i in range(50))
    streams = Streams(labelled=labelled, pool=None, selection=(), areas=None)
    assert _total_steps(config, streams) == steps
