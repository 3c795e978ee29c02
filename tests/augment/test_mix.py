"""Pastes and geometry: image and targets move together, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s5mars.augment.geometric import object_transforms, rectangles, warp
from s5mars.augment.mix import paste, select
from s5mars.augment.sam_mix import MINIMUM_PIXELS, SamMix
from s5mars.classes import IGNORE
from s5mars.types import Targets, View
from tiny import rngs

SIZE, CLASSES = 32, 4


def view(seed: int, *, batch: int = 3) -> View:
    """Pixels and targets that tell where they come from: image channel 0 is the label."""
    random = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (batch, SIZE, SIZE), generator=random)
    probability = torch.rand(batch, CLASSES, SIZE, SIZE, generator=random).softmax(1)
    image = torch.rand(batch, 3, SIZE, SIZE, generator=random)
    image[:, 0] = label / 10
    return View(image, Targets(probability, label, torch.ones(batch, SIZE, SIZE, dtype=torch.bool)))


def disc(batch: int = 3, *, x: float = 20, y: float = 12, radius: float = 6) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return inside.expand(batch, SIZE, SIZE).clone()


@given(st.integers(0, 100))
def test_paste_takes_everything_from_one_side(seed: int) -> None:
    a, b = view(seed), view(seed + 1)
    region = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) < 0.5
    mixed = paste(region, a, b)
    for i in range(3):
        for source, where in ((a, region[i]), (b, ~region[i])):
            assert torch.equal(mixed.image[i, :, where], source.image[i, :, where])
            assert torch.equal(mixed.targets.label[i][where], source.targets.label[i][where])
            assert torch.equal(
                mixed.targets.probability[i, :, where], source.targets.probability[i, :, where]
            )
    assert torch.equal(paste(torch.zeros_like(region), a, b).image, b.image)


def test_identity_transform_is_the_identity() -> None:
    source, region = view(0), disc()
    theta = object_transforms(region, rngs(0, 3), rotation=0, flip=0, rescale=(1.0, 1.0))
    moved, where = warp(source, region, theta=theta)
    torch.testing.assert_close(moved.image, source.image, atol=1e-4, rtol=0)
    assert torch.equal(moved.targets.label, source.targets.label)
    assert torch.equal(where, region)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_objects_keep_their_place_under_autocast(dtype: torch.dtype) -> None:
    """Half precision has 256 levels between -1 and 1, so that pixels would move by up to one."""
    labels = (torch.arange(512) // 4 % CLASSES).expand(1, 4, 512).contiguous()
    image = torch.rand(1, 3, 4, 512, generator=torch.Generator().manual_seed(0))
    probability = torch.full((1, CLASSES, 4, 512), 1 / CLASSES)
    source = View(image, Targets(probability, labels, torch.ones_like(labels, dtype=torch.bool)))
    region = torch.zeros(1, 4, 512, dtype=torch.bool)
    region[:, 1:3, 330:501] = True
    settings = {"rotation": 20.0, "flip": 0.5, "rescale": (0.8, 1.2)}
    expected = object_transforms(region, rngs(1, 1), **settings)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=dtype):
        theta = object_transforms(region, rngs(1, 1), rotation=0, flip=0, rescale=(1.0, 1.0))
        moved, where = warp(source, region, theta=theta)
        assert torch.equal(object_transforms(region, rngs(1, 1), **settings), expected)  # type: ignore[arg-type]
    assert torch.equal(moved.targets.label, labels) and torch.equal(where, region)
    torch.testing.assert_close(moved.image, image, atol=1e-3, rtol=0)


def test_flip_mirrors_about_the_objects_own_centre() -> None:
    source, region = view(1), torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    region[:, 4:10, 6:12] = True
    theta = object_transforms(region, rngs(0, 3), rotation=0, flip=1, rescale=(1.0, 1.0))
    moved, where = warp(source, region, theta=theta)
    assert torch.equal(where, region)
    assert torch.equal(
        moved.targets.label[:, 4:10, 6:12], source.targets.label[:, 4:10, 6:12].flip(2)
    )


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_rescaling_changes_the_area_and_keeps_the_centre(factor: float) -> None:
    region = disc(1)
    theta = object_transforms(region, rngs(0, 1), rotation=0, flip=0, rescale=(factor, factor))
    _, where = warp(view(2, batch=1), region, theta=theta)
    assert where.sum() == pytest.approx(factor**2 * int(region.sum()), rel=0.15)
    rows, columns = torch.nonzero(where[0], as_tuple=True)
    assert columns.double().mean() == pytest.approx(20, abs=0.6)
    assert rows.double().mean() == pytest.approx(12, abs=0.6)


def test_transforms_turn_and_rescale_pixels_without_shearing_them() -> None:
    """In an image that is not square, too."""
    region = torch.zeros(400, 24, 60, dtype=torch.bool)
    region[:, 4:9, 30:50] = True
    theta = object_transforms(region, rngs(0, 400), rotation=40, flip=0.5, rescale=(0.25, 4.0))
    half = torch.tensor([30.0, 12.0])  # pixels in a unit of the normalised coordinates: x, y
    linear = half[:, None] * theta[:, :, :2] / half  # from output to input
    factor = linear.det().abs().rsqrt()
    square = torch.eye(2) / factor.square()[:, None, None]
    torch.testing.assert_close(linear @ linear.mT, square, atol=1e-4, rtol=1e-4)
    degrees = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 1, 1]))
    assert -40.01 < degrees.min() < -38 and 38 < degrees.max() < 40.01
    assert 0.25 < factor.min() < 0.27 and 3.8 < factor.max() < 4.001
    # Log-uniformly: as many objects shrink as grow.
    assert float((factor < 1).double().mean()) == pytest.approx(0.5, abs=0.08)
    assert float((linear.det() < 0).double().mean()) == pytest.approx(0.5, abs=0.08)


def test_colours_do_not_fade_at_the_border_of_the_donor() -> None:
    flat = torch.ones(3, SIZE, SIZE)
    targets = Targets(flat[:, None].expand(-1, CLASSES, -1, -1) / CLASSES, flat.long(), flat > 0)
    theta = object_transforms(disc(), rngs(0, 3), rotation=20, flip=0, rescale=(0.6, 0.6))
    moved, _ = warp(View(flat[:, None].expand(-1, 3, -1, -1), targets), disc(), theta=theta)
    valid = moved.targets.valid
    assert 0 < valid.double().mean() < 1
    torch.testing.assert_close(moved.image[:, 0][valid], torch.ones(int(valid.sum())))
    torch.testing.assert_close(
        moved.targets.probability.sum(1)[valid], torch.ones(int(valid.sum()))
    )


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_labels_follow_their_pixels_through_any_transform(seed: int) -> None:
    source = view(seed)
    # Blocks of 8 pixels, so that bilinear pixels away from block edges equal nearest ones.
    label = source.targets.label[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    image = source.image.clone()
    image[:, 0] = label / 10
    source = View(image, Targets(source.targets.probability, label, source.targets.valid))
    theta = object_transforms(disc(), rngs(seed, 3), rotation=30, flip=0.5, rescale=(0.7, 1.4))
    moved, _ = warp(source, disc(), theta=theta)
    known = moved.targets.label != IGNORE
    agrees = (moved.image[:, 0] * 10 - moved.targets.label).abs() < 0.05
    assert agrees[known].double().mean() > 0.6  # all but the pixels between two blocks
    assert torch.equal(known, moved.targets.valid)


def test_what_comes_from_outside_is_ignored() -> None:
    theta = object_transforms(disc(), rngs(0, 3), rotation=0, flip=0, rescale=(0.5, 0.5))
    moved, where = warp(view(3), torch.ones(3, SIZE, SIZE, dtype=torch.bool), theta=theta)
    assert not moved.targets.valid[:, 0, 0].any()
    assert (moved.targets.label[:, 0, 0] == IGNORE).all()
    assert not where[:, 0, 0].any()


def test_rectangles_have_the_side_of_their_lambda() -> None:
    region = rectangles((64, 64), rngs(3, 400))
    # E[1 - λ] = 1/2 for Beta(4, 4); clipping at the border only makes them smaller.
    share = region.double().mean().item()
    assert 0.2 < share < 0.5
    for one in region[:20]:
        rows, columns = one.any(1), one.any(0)
        assert torch.equal(one, rows[:, None] & columns[None, :])


def sam_mix(objects: torch.Tensor, **kwargs: object) -> tuple[View, View, View]:
    pool, donors = view(10), view(20)
    mix = SamMix(**kwargs)  # type: ignore[arg-type]
    return mix(pool, donors, objects, rngs(1, 3)), pool, donors


def test_the_object_keeps_its_position() -> None:
    still = {"rotation": 0.0, "flip": 0.0, "rescale": (1.0, 1.0)}
    mixed, pool, donors = sam_mix(disc(radius=7), **still)
    region = disc(radius=7)
    changed = (mixed.image != pool.image).any(1)
    assert torch.equal(changed, region)
    for i in range(3):
        sources = [
            torch.allclose(mixed.image[i, :, region[i]], donors.image[j, :, region[i]], atol=1e-5)
            for j in range(3)
        ]
        assert sum(sources) == 1


def test_a_small_object_is_replaced_by_a_rectangle() -> None:
    small = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    small[:, 0, : MINIMUM_PIXELS // 10] = True
    mixed, pool, _donors = sam_mix(small)
    rectangle, _, _ = sam_mix(small, source="rectangles")
    assert torch.equal(mixed.image, rectangle.image)
    assert not torch.equal(mixed.image, pool.image)


@pytest.mark.parametrize("pixels", [99, 100])
def test_an_object_needs_a_hundred_valid_pixels(pixels: int) -> None:
    """As in the released code; pixels without data, which are not pasted, do not count."""
    pool, donors = view(10), view(20)
    region = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    region[:, 8:20, 10:22] = True
    valid = torch.ones_like(region)
    valid[region] = (torch.arange(144) < pixels).repeat(3)
    donors = View(donors.image, Targets(donors.targets.probability, donors.targets.label, valid))
    mix = SamMix(rotation=0.0, flip=0.0, rescale=(1.0, 1.0))
    mixed = mix(pool, donors, region, rngs(1, 3))
    rectangle = SamMix(source="rectangles")(pool, donors, None, rngs(1, 3))
    assert torch.equal(mixed.image, rectangle.image) == (pixels < 100)
    if pixels == 100:
        assert torch.equal((mixed.image != pool.image).any(1), region & valid)


def test_invalid_pixels_are_not_pasted() -> None:
    pool, donors = view(10), view(20)
    valid = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    targets = Targets(donors.targets.probability, donors.targets.label, valid)
    for source in ("objects", "rectangles", "classmix", "dacs"):
        mixed = SamMix(source=source)(  # type: ignore[arg-type]
            pool, View(donors.image, targets), disc(), rngs(0, 3)
        )
        assert torch.equal(mixed.image, pool.image)
        assert mixed.targets.valid.all()


def test_a_pool_larger_than_the_donors() -> None:
    mixed = SamMix()(view(1, batch=5), view(2, batch=2), disc(2), rngs(0, 5))
    assert mixed.image.shape[0] == 5


def test_select_moves_all_targets() -> None:
    source = view(0)
    chosen = select(source, torch.tensor([2, 0]))
    assert np.array_equal(chosen.targets.label[0], source.targets.label[2])
    assert torch.equal(chosen.targets.probability[1], source.targets.probability[0])


def sources_of(mixed: View, pool: View, donors: View, i: int) -> tuple[torch.Tensor, set[int]]:
    """Where image i changed, and the donors that every changed pixel could come from."""
    changed = (mixed.image[i] != pool.image[i]).any(0)
    same = [
        torch.equal(mixed.image[i, :, changed], donors.image[j, :, changed])
        for j in range(len(donors.image))
    ]
    return changed, {j for j, equal in enumerate(same) if equal}


def test_dacs_pastes_true_classes_of_the_donor_and_no_unlabelled_pixel() -> None:
    pool, donors = view(10), view(20)
    hidden = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.5
    label = donors.targets.label.masked_fill(hidden, IGNORE)
    sparse = View(donors.image, Targets(donors.targets.probability, label, donors.targets.valid))
    mixed = SamMix(source="dacs")(pool, sparse, None, rngs(0, 3))
    for i in range(3):
        changed, candidates = sources_of(mixed, pool, donors, i)
        (j,) = candidates
        classes = set(label[j][changed].tolist())
        assert len(classes) == CLASSES // 2 and IGNORE not in classes
        whole = torch.stack([label[j] == c for c in classes]).any(0)
        assert torch.equal(changed, whole)
        assert torch.equal(mixed.targets.label[i][changed], label[j][changed])


def test_classmix_pastes_predicted_classes_whatever_the_true_ones_are() -> None:
    pool, weak = view(10), view(20)
    mixed = SamMix(source="classmix")(pool, weak, None, rngs(0, 3))
    predicted = weak.targets.probability.argmax(1)
    for i in range(3):
        changed, candidates = sources_of(mixed, pool, weak, i)
        (j,) = candidates
        classes = set(predicted[j][changed].tolist())
        assert len(classes) == CLASSES // 2
        assert torch.equal(changed, torch.stack([predicted[j] == c for c in classes]).any(0))
        assert torch.equal(mixed.targets.label[i][changed], weak.targets.label[j][changed])


def test_an_image_without_true_labels_has_nothing_for_dacs() -> None:
    pool, donors = view(10), view(20)
    unknown = torch.full_like(donors.targets.label, IGNORE)
    blank = View(donors.image, Targets(donors.targets.probability, unknown, donors.targets.valid))
    mixed = SamMix(source="dacs")(pool, blank, None, rngs(0, 3))
    assert torch.equal(mixed.image, pool.image)


@pytest.mark.parametrize(
    ("source", "donors"),
    [("objects", "labelled"), ("rectangles", "labelled"), ("dacs", "labelled"),
     ("classmix", "pool"), ("none", "none")],
)  # fmt: skip
def test_whose_images_are_cut(source: str, donors: str) -> None:
    assert SamMix(source=source).donors == donors  # type: ignore[arg-type]
