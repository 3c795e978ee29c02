"""The endless stream of images: permutations in a row, the same whenever it is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s5mars.data.sampler import image_index


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
