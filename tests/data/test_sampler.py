"""The endless stream of images: permutations in a row, the same whenever it is asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s5mars.data.sampler import Balance, image_index
from s5mars.randomness import generator


def stream(length: int, *, size: int, seed: int = 0, name: str = "pool") -> list[int]:
    return [image_index(seed, name, position=i, size=size) for i in range(length)]


@given(st.integers(1, 40), st.integers(0, 1000), st.integers(0, 5))
def test_every_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    drawn = [image_index(seed, "pool", position=epoch * size + i, size=size) for i in range(size)]
    assert sorted(drawn) == list(range(size))


def test_epochs_seeds_and_streams_have_orders_of_their_own() -> None:
    size = 20
    both = stream(2 * size, size=size)
    orders = [
        both[:size],
        both[size:],
        stream(size, size=size, seed=1),
        stream(size, size=size, name="labelled"),
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_any_position_can_be_asked_first() -> None:
    forward = stream(30, size=7)
    backward = [image_index(0, "pool", position=i, size=7) for i in reversed(range(30))]
    assert backward[::-1] == forward


def test_a_set_smaller_than_the_batch_fills_it() -> None:
    batch = stream(8, size=3)
    counts = [batch.count(image) for image in range(3)]
    assert sum(counts) == 8 and min(counts) >= 2 and max(counts) <= 3
    assert stream(5, size=1) == [0] * 5


AREAS = np.array([[900, 0, 0, 0], [900, 3, 0, 0], [900, 0, 9, 0], [900, 0, 7, 0]])
"""Class 0 everywhere, 1 in one image, 2 in two, 3 in none."""


def test_balanced_draws_show_each_class_as_often() -> None:
    balance = Balance.of(AREAS, share=1.0)
    drawn = [balance.draw(generator(0, "class", sample=k)) for k in range(3000)]
    assert None not in drawn
    counts = Counter(drawn)
    assert set(counts) == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (2, 2), (2, 3)}
    for chosen in range(3):
        assert 900 < sum(n for (c, _), n in counts.items() if c == chosen) < 1100
    assert abs(counts[2, 2] - counts[2, 3]) < 120


def test_the_share_of_balanced_draws() -> None:
    for share, low, high in ((0.0, 0, 0), (0.3, 250, 350), (1.0, 1000, 1000)):
        balance = Balance.of(AREAS, share=share)
        drawn = [balance.draw(generator(1, "class", sample=k)) for k in range(1000)]
        assert low <= sum(d is not None for d in drawn) <= high
    nothing = Balance.of(np.zeros((2, 3), np.int64), share=1.0)
    assert nothing.draw(generator(0, "class")) is None
