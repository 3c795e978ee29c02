from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from s5mars.proposals.draw import ObjectFilter, coverage, draw_object, qualified
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.types import Sample

from ..products.written import pds3
from .masks import proposal, rectangle

# Areas 1, 4, 9, ... % of a 100×100 image, confidence falling from 0.95 by 0.05.
STAIRS = [
    proposal(rectangle(0, 0, 10 * k, 10 * k, size=(100, 100)), confidence=1 - 0.05 * k)
    for k in range(1, 7)
]
EVERYTHING = {"minimum_area": 0.0, "maximum_area": 1.0, "minimum_confidence": 0.0, "first": 100}


@pytest.fixture
def store(tmp_path):
    write_store(tmp_path / "a.parquet", [("stairs", STAIRS), ("none", [])], proposer="sam")
    return ObjectStore(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("bound", "ranks"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"minimum_area": 0.09}, [2, 3, 4, 5]),
        ({"minimum_area": 0.0901}, [3, 4, 5]),
        ({"maximum_area": 0.09}, [0, 1, 2]),
        ({"maximum_area": 0.0899}, [0, 1]),
        ({"minimum_confidence": 0.85}, [0, 1, 2]),
        ({"minimum_confidence": 0.86}, [0, 1]),
        ({"first": 4}, [0, 1, 2, 3]),
        # `first` counts from the head of the whole list, before any other bound.
        ({"first": 4, "minimum_area": 0.09}, [2, 3]),
    ],
)
def test_each_bound_of_the_filter(store, bound, ranks):
    chosen = ObjectFilter(**{**EVERYTHING, **bound})

    assert qualified(store, "stairs", filter=chosen) == ranks
    drawn = {
        draw_object(store, "stairs", np.random.default_rng(seed), filter=chosen).area
        for seed in range(100)
    }
    assert drawn == {STAIRS[rank].area for rank in ranks}


def test_every_qualified_mask_is_as_likely(store):
    rng = np.random.default_rng(0)
    everything = ObjectFilter(**EVERYTHING)

    counts = Counter(draw_object(store, "stairs", rng, filter=everything).area for _ in range(1200))

    assert min(counts.values()) > 150  # 200 expected, standard deviation 13


def test_none_when_nothing_qualifies_and_nothing_random_is_used(store):
    rng = np.random.default_rng(0)

    assert draw_object(store, "none", rng, filter=ObjectFilter(**EVERYTHING)) is None
    strict = ObjectFilter(**{**EVERYTHING, "minimum_confidence": 1.0})
    assert draw_object(store, "stairs", rng, filter=strict) is None
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_the_defaults_are_those_of_the_released_code():
    default = ObjectFilter()

    assert default.minimum_area * 1200**2 == pytest.approx(1700)
    assert default.maximum_area * 1200**2 == pytest.approx(512**2)
    assert default.blur * 1200 == pytest.approx(5)


def test_confidence_and_rank_default_to_the_proposers_own(tmp_path):
    masks = [rectangle(0, 0, 20, 20, size=(100, 100))] * 60
    confidences = np.linspace(1.0, 0.7, 60)
    stores = {}
    for proposer in ("sam", "graph"):
        items = [
            proposal(m, confidence=float(c), proposer=proposer)
            for m, c in zip(masks, confidences, strict=True)
        ]
        write_store(tmp_path / f"{proposer}.parquet", [("a", items)], proposer=proposer)
        stores[proposer] = ObjectStore(tmp_path / f"{proposer}.parquet")

    # Six of the sixty are at least 0.97; of graph proposals the first forty count.
    assert qualified(stores["sam"], "a", filter=ObjectFilter()) == list(range(6))
    assert qualified(stores["graph"], "a", filter=ObjectFilter()) == list(range(40))
    lenient = ObjectFilter(minimum_confidence=0.0)
    assert qualified(stores["sam"], "a", filter=lenient) == list(range(11))


def test_the_same_generator_draws_the_same_mask(store):
    everything = ObjectFilter(**EVERYTHING)
    draws = [
        [draw_object(store, "stairs", rng, filter=everything) for _ in range(5)]
        for rng in (np.random.default_rng(7), np.random.default_rng(7))
    ]
    assert draws[0] == draws[1]


def test_an_unknown_image_has_no_object(store):
    everything = ObjectFilter(**EVERYTHING)
    assert draw_object(store, "elsewhere", np.random.default_rng(0), filter=everything) is None
    with pytest.raises(ValueError, match="elsewhere"):
        store.proposals("elsewhere")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"minimum_area": 0.5, "maximum_area": 0.4}, "got 0.5 and 0.4"),
        ({"maximum_area": 1.5}, "object areas must .* and 1.5"),
        ({"minimum_confidence": 97.0}, "confidence must be from 0 to 1 .got 97.0"),
        ({"first": 0}, "first must be >= 1 .*got 0"),
        ({"blur": -1.0}, "blur >= 0 .* and -1.0"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        ObjectFilter(**fields)


def test_a_window_leaves_out_masks_that_lie_outside_it(tmp_path: Path) -> None:
    masks = [proposal(rectangle(left, 20, 20, 20, size=(60, 100))) for left in (0, 45, 75)]
    write_store(tmp_path / "a.parquet", [("a", masks)], proposer="sam")
    store = ObjectStore(tmp_path / "a.parquet")
    everything = ObjectFilter(minimum_area=0, maximum_area=1)

    def drawn(window: tuple[float, float, float, float]) -> set[float]:
        draws = (
            draw_object(store, "a", np.random.default_rng(seed), filter=everything, window=window)
            for seed in range(30)
        )
        return {found.box[0] for found in draws if found}

    assert drawn((0, 0, 50, 100)) == {0}  # a quarter of the second is not enough
    assert drawn((-20, 20, 60, 35)) == {0, 45}  # three quarters of each is
    assert drawn((0, 0, 5, 5)) == set()


def test_masks_of_rover_products_are_measured_as_those_of_pictures(tmp_path: Path) -> None:
    image = pds3(tmp_path / "stairs.IMG", np.zeros((100, 100), np.uint8))
    write_store(tmp_path / "a.parquet", [("stairs", STAIRS)], proposer="sam")
    found = coverage(ObjectStore(tmp_path / "a.parquet"), [Sample("stairs", image, None)],
                     filter=ObjectFilter())  # fmt: skip
    assert found.images == 1
