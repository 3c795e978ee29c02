"""Windows cover, blend to one, and blocks give what accumulating the whole image gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s5mars.predict.inference import SMALLEST_SIDE
from s5mars.predict.tiling import Grid, blended

sides = st.integers(1, 200)
windows = st.integers(SMALLEST_SIDE, 120)
overlaps = st.floats(0, 0.9)


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )


def position_wise(windows: Tensor) -> Tensor:
    """Probabilities that depend on the pixel alone, as a 1×1 convolution gives them."""
    x = windows.float() / 255
    return torch.stack([x[:, 0], 2 * x[:, 1] - x[:, 2], 1 - x.mean(1)], 1).mul(3).softmax(1)


def place_wise(windows: Tensor) -> Tensor:
    """Probabilities that depend on the place in the window: seams would show."""
    b, _, h, w = windows.shape
    y = torch.linspace(-1, 1, h)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w)[None, :].expand(h, w)
    bright = windows.float().mean((1, 2, 3)) / 255
    logits = torch.stack([y, x, y * x], 0)[None] * (1 + bright[:, None, None, None])
    return logits.expand(b, -1, -1, -1).softmax(1)


def whole(network: object, image: np.ndarray, **settings: object) -> np.ndarray:
    covered = np.zeros(image.shape[:2], int)
    total: np.ndarray | None = None
    for rows, columns, block in blended(
        network, image, **{"overlap": 0.25, "batch": 1, **settings}
    ):
        if total is None:
            total = np.full((len(block), *image.shape[:2]), np.nan, np.float32)
        total[:, rows, columns] = block.numpy()
        covered[rows, columns] += 1
    assert (covered == 1).all()
    assert total is not None
    return total


@given(sides, windows, overlaps)
@settings(deadline=None)
def test_windows_cover_from_border_to_border_with_the_overlap_asked_for(
    length: int, window: int, overlap: float
) -> None:
    axis = Grid.over(length, 1, window=window, overlap=overlap).rows
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.window == length
    gaps = np.diff(axis.starts)
    assert (gaps >= 1).all()
    assert (gaps <= max(1, axis.window * (1 - overlap) + 1)).all()
    assert (axis.window == length) == (length <= window)


@given(sides, windows, overlaps)
@settings(deadline=None)
def test_weights_are_positive_and_sum_to_one_everywhere(
    length: int, window: int, overlap: float
) -> None:
    axis = Grid.over(1, length, window=window, overlap=overlap).columns
    assert (axis.weights > 0).all()
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        total[start : start + axis.window] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_weights_change_smoothly_along_the_image() -> None:
    axis = Grid.over(3000, 1, window=512, overlap=0.25).rows
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        inside = [start > 0, start + 512 < 3000]  # at the image's own border there is no seam
        assert not inside[0] or weights[0] < 0.01
        assert not inside[1] or weights[-1] < 0.01
        assert np.abs(np.diff(weights)).max() < 0.03


@given(sides, sides, windows, overlaps, st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_a_position_wise_model_does_not_see_the_tiles(
    height: int, width: int, window: int, overlap: float, batch: int
) -> None:
    overlap = min(overlap, 0.7)
    image = image_of(height, width)
    expected = position_wise(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    tiled = whole(position_wise, image, window=window, overlap=overlap, batch=batch)
    assert tiled.shape == expected.shape
    np.testing.assert_allclose(tiled, expected, atol=1e-6)


def test_a_constant_model_gives_a_constant() -> None:
    def constant(windows: Tensor) -> Tensor:
        answer = torch.tensor([0.1, 0.2, 0.7])[None, :, None, None]
        return answer.expand(len(windows), 3, *windows.shape[2:])

    tiled = whole(constant, image_of(150, 130), window=48)
    expected = np.broadcast_to([[[0.1]], [[0.2]], [[0.7]]], tiled.shape)
    np.testing.assert_allclose(tiled, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(150, 170), (97, 40), (40, 97), (300, 64), (65, 65)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_blocks_equal_accumulating_the_whole_image(shape: tuple[int, int], overlap: float) -> None:
    image = image_of(*shape)
    grid = Grid.over(*shape, window=64, overlap=overlap)
    h, w = grid.rows.window, grid.columns.window
    total, weights = np.zeros((3, *shape)), np.zeros(shape)
    for top, left in grid.corners:
        part = torch.from_numpy(image[top : top + h, left : left + w]).permute(2, 0, 1)[None]
        profile = np.outer(
            np.sin(np.pi * (np.arange(h) + 0.5) / h) ** 2,
            np.sin(np.pi * (np.arange(w) + 0.5) / w) ** 2,
        )
        total[:, top : top + h, left : left + w] += place_wise(part)[0].numpy() * profile
        weights[top : top + h, left : left + w] += profile
    tiled = whole(place_wise, image, window=64, overlap=overlap)
    np.testing.assert_allclose(tiled, total / weights, atol=1e-5)
    np.testing.assert_allclose(tiled.sum(0), 1, atol=1e-5)


def test_the_batch_of_windows_changes_nothing() -> None:
    image = image_of(170, 150)
    one = whole(place_wise, image, window=48, batch=1)
    for batch in (2, 3, 100):
        assert np.array_equal(one, whole(place_wise, image, window=48, batch=batch))


def test_an_image_that_fits_is_one_forward_of_its_own_size() -> None:
    seen = []

    def network(windows: Tensor) -> Tensor:
        seen.append(tuple(windows.shape))
        assert windows.dtype == torch.uint8
        return position_wise(windows)

    whole(network, image_of(60, 90), window=90)
    assert seen == [(1, 3, 60, 90)]


@pytest.mark.parametrize("shape", [(1, 1), (5, 100), (100, 5), (31, 31), (20, 300)])
def test_small_images_are_padded_for_the_model_and_cropped_again(shape: tuple[int, int]) -> None:
    def network(windows: Tensor) -> Tensor:
        assert min(windows.shape[2:]) >= SMALLEST_SIDE
        return position_wise(windows)

    image = image_of(*shape)
    expected = position_wise(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    np.testing.assert_allclose(whole(network, image, window=128), expected, atol=1e-6)


def test_memory_is_one_window_and_not_the_image() -> None:
    sizes = []
    image = image_of(2000, 300)
    for _, _, block in blended(position_wise, image, window=64, overlap=0.25, batch=4):
        sizes.append(block.untyped_storage().nbytes())
    assert len(sizes) > 30 * 5
    assert max(sizes) == 3 * 64 * 64 * 4


def test_a_panorama_has_no_seams() -> None:
    """A network that contradicts itself between windows: the steps stay small where they meet."""
    image = np.zeros((300, 1200, 3), np.uint8)
    image[:, 600:] = 40  # so that windows differ
    calls = [0]

    def moody(windows: Tensor) -> Tensor:
        calls[0] += 1
        sure = 0.9 if calls[0] % 2 else 0.1
        answer = torch.tensor([sure, 1 - sure])[None, :, None, None]
        return answer.expand(len(windows), 2, *windows.shape[2:])

    blended_map = whole(moody, image, window=128, overlap=0.25)
    assert blended_map.min() < 0.2 and blended_map.max() > 0.8
    steps = [np.abs(np.diff(blended_map, axis=axis)).max() for axis in (1, 2)]
    assert max(steps) < 0.06  # 0.8 lies between the two answers


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
def test_a_constant_network_gives_a_constant_panorama(overlap: float) -> None:
    def constant(windows: Tensor) -> Tensor:
        answer = torch.tensor([0.3, 0.7])[None, :, None, None]
        return answer.expand(len(windows), 2, *windows.shape[2:])

    found = whole(constant, image_of(90, 1500), window=64, overlap=overlap, batch=3)
    np.testing.assert_allclose(found[1], 0.7, atol=2e-6)
