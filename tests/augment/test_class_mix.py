"""Class regions: half of the classes, all of their pixels, nothing that is ignored."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from s5mars.augment.class_mix import class_regions
from s5mars.classes import IGNORE
from tiny import rngs


def regions(label: Tensor, valid: Tensor | None = None, *, seed: int = 0, **share: float) -> Tensor:
    valid = torch.ones_like(label, dtype=torch.bool) if valid is None else valid
    return class_regions(label, valid, generators=rngs(seed, len(label)), **share)


def test_a_label_made_by_hand() -> None:
    label = torch.tensor([[[0, 0, 1], [2, 3, 255]], [[4, 4, 4], [4, 4, 255]]])
    region = regions(label)
    assert region.dtype == torch.bool
    inside = set(label[0][region[0]].tolist())
    outside = set(label[0][~region[0]].tolist())
    assert len(inside) == 2
    assert inside | outside == {0, 1, 2, 3, 255}
    assert not inside & outside
    assert not region[1].any()  # one class: half of it, rounded down


@pytest.mark.parametrize(
    ("classes", "share", "expected"),
    [
        (2, 0.5, 1),
        (3, 0.5, 1),
        (9, 0.5, 4),
        (5, 1.0, 5),
        (5, 0.0, 0),
        (10, 0.7, 7),
        (23, 7 / 23, 7),
    ],
)
def test_how_many_classes(classes: int, share: float, expected: int) -> None:
    region = regions(torch.arange(classes).view(1, 1, classes), share=share)
    assert region.sum() == expected


def test_a_class_on_invalid_pixels_only_is_not_present() -> None:
    label = torch.tensor([[[0, 1, 1, 7]]])
    valid = torch.tensor([[[True, True, False, False]]])
    for seed in range(20):
        region = regions(label, valid, seed=seed)
        assert region.sum() == 1
        assert region[0, 0, :2].any()


def test_every_class_is_drawn_equally_often_and_images_differ() -> None:
    label = torch.arange(4).view(1, 1, 4).expand(2000, 1, 4)
    region = regions(label)
    torch.testing.assert_close(
        region.double().mean((0, 1)), torch.full((4,), 0.5, dtype=torch.float64), atol=0.05, rtol=0
    )
    assert len({tuple(row.tolist()) for row in region[:, 0]}) == 6


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([torch.uint8, torch.int64]))
def test_properties(seed: int, classes: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (3, 5, 6), generator=random).to(dtype)
    label[torch.rand(label.shape, generator=random) < 0.2] = IGNORE
    valid = torch.rand(label.shape, generator=random) < 0.8
    region = regions(label, valid, seed=seed)
    assert torch.equal(region, regions(label, valid, seed=seed))
    counted = valid & (label != IGNORE)
    assert not (region & ~counted).any()
    for one, where, inside in zip(label, counted, region, strict=True):
        shown = set(one[where].tolist())
        taken = set(one[inside].tolist())
        assert len(taken) == math.floor(len(shown) / 2)
        for name in taken:
            assert torch.equal(inside & (one == name), where & (one == name))
    hidden = label.where(counted, IGNORE)
    assert torch.equal(region, regions(hidden, valid, seed=seed))


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share must be in .* \(got 1\.5\)"):
        regions(torch.zeros(1, 2, 2, dtype=torch.int64), share=1.5)
