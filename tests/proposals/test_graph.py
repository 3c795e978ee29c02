from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from s5mars.products.no_data import no_data
from s5mars.proposals.graph import GraphSettings, _fill, _overlaps, _stabilities, graph_proposals

SIZE = 200
DISCS = [(60, 70, 22), (140, 130, 30)]  # row, column, radius


def disc(row, column, radius, size=SIZE):
    rows, columns = np.mgrid[:size, :size]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def picture(*, noise=3.0):
    """Two discs on a gradient, with noise."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(90, 130, SIZE)
    image = np.stack([ramp[:, None] + ramp[None] * 0.2 - k * 10 for k in range(3)], axis=2)
    image[disc(*DISCS[0])] = (60, 55, 50)
    image[disc(*DISCS[1])] = (190, 180, 160)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_both_discs_are_found():
    found = graph_proposals(picture())

    for circle in DISCS:
        best = max(found, key=lambda p: iou(p.mask, disc(*circle)))
        assert iou(best.mask, disc(*circle)) > 0.9
        assert best.predicted_iou > 0.8


def test_masks_scale_up_in_place():
    large = np.asarray(Image.fromarray(picture()).resize((900, 700), Image.Resampling.BICUBIC))
    rows, columns = np.mgrid[:700, :900]
    for row, column, radius in DISCS:
        truth = ((rows + 0.5) / 3.5 - row - 0.5) ** 2 + (
            (columns + 0.5) / 4.5 - column - 0.5
        ) ** 2 <= radius**2
        assert max(iou(p.mask, truth) for p in graph_proposals(large)) > 0.9


def test_no_proposal_holds_an_invalid_pixel():
    image = picture()
    image[:, :90] = 0  # through the first disc
    valid = np.ones((SIZE, SIZE), bool)
    valid[:, :90] = False

    found = graph_proposals(image, valid=valid)

    assert found
    assert not any((p.mask & ~valid).any() for p in found)
    assert max(iou(p.mask, disc(*DISCS[1])) for p in found) > 0.9
    assert graph_proposals(image, valid=np.zeros_like(valid)) == []


def test_background_that_holds_most_of_the_border_is_not_an_object():
    found = graph_proposals(picture(noise=0.0))
    rim = np.ones((SIZE, SIZE), bool)
    rim[1:-1, 1:-1] = False

    assert all((p.mask & rim).sum() <= 0.55 * rim.sum() for p in found)
    assert all(p.area <= 0.6 * SIZE**2 for p in found)


def test_a_band_of_sky_reaches_the_frame():
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[:50] = (200, 180, 150)
    sky = np.zeros((SIZE, SIZE), bool)
    sky[:50] = True

    assert max(iou(p.mask, sky) for p in graph_proposals(image)) > 0.95


def test_the_list_is_sorted_and_without_doubles():
    found = graph_proposals(picture(noise=12.0))

    confidences = [p.predicted_iou for p in found]
    assert confidences == sorted(confidences, reverse=True)
    assert all(0 <= c <= 1 for c in confidences)
    masks = [p.mask for p in found]
    # 0.9 at the working resolution; scaling small masks up moves it a little.
    assert all(iou(a, b) < 0.93 for k, a in enumerate(masks) for b in masks[:k])


def test_small_regions_are_left_out_and_the_list_is_cut():
    settings = GraphSettings(minimum_area=0.03)
    assert all(p.area > 0.027 * SIZE**2 for p in graph_proposals(picture(), settings=settings))
    assert len(graph_proposals(picture(noise=20.0), settings=GraphSettings(limit=3))) == 3


def test_equal_input_gives_an_equal_list():
    assert graph_proposals(picture()) == graph_proposals(picture())


def test_contrast_and_brightness_hardly_matter():
    dark = (picture(noise=1.0) * 0.25).astype(np.uint8)
    for circle in DISCS:
        assert max(iou(p.mask, disc(*circle)) for p in graph_proposals(dark)) > 0.85


def test_a_flat_image_has_no_objects():
    assert graph_proposals(np.full((64, 64, 3), 120, np.uint8)) == []


def test_overlaps_by_hand():
    a = np.array([[0, 0, 1, 1]])
    b = np.array([[0, 1, 1, 1]])
    np.testing.assert_allclose(_overlaps(a, b), [[1 / 2, 1 / 4], [0, 2 / 3]])


def test_stability_is_the_mean_over_the_scales_beside():
    fine = np.array([[0, 1, 2, 2]])
    middle = np.array([[0, 0, 1, 1]])
    coarse = np.array([[0, 0, 0, 0]])

    stabilities = _stabilities([fine, middle, coarse])

    np.testing.assert_allclose(stabilities[0], [0.5, 0.5, 1.0])
    np.testing.assert_allclose(stabilities[1], [(0.5 + 0.5) / 2, (1.0 + 0.5) / 2])
    np.testing.assert_allclose(stabilities[2], [0.5])


def test_small_holes_are_filled_and_large_ones_kept():
    mask = np.ones((30, 30), bool)
    mask[5:7, 5:7] = False
    mask[12:24, 12:24] = False
    mask[0, 10:20] = False  # a notch is no hole

    expected = mask.copy()
    expected[5:7, 5:7] = True
    np.testing.assert_array_equal(_fill(mask, 0.05), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"scales": (100.0,)},
        {"scales": (200.0, 100.0)},
        {"working_side": 4},
        {"limit": 0},
        {"minimum_area": 0.7},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match=r"need|must"):
        replace(GraphSettings(), **fields)


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        graph_proposals(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="valid"):
        graph_proposals(picture(), valid=np.ones((8, 8), bool))


def test_real_tiles_have_objects_and_no_black_border(real_data):
    files = sorted((real_data / "marsscapes512" / "images").iterdir())[::80]
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"))
        border = no_data(image)
        found = graph_proposals(image, valid=~border)
        assert len(found) > 5
        assert not any((p.mask & border).any() for p in found)
