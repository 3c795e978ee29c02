"""What an image loses to dropout depends on the image and the step, not on its neighbours."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from s5mars.models.dropout import ChannelDropout, drawing, drop_channels
from s5mars.types import Progress
from tiny import progress_at

PROGRESS = progress_at(seed=3, step=7, total=20)
FEATURES = torch.ones(8, 400, 2, 3)  # two streams of four images


def dropped(progress: Progress, size: int, rows: list[int]) -> torch.Tensor:
    with drawing(progress, size):
        first = drop_channels(FEATURES[rows], 0.25)
        second = drop_channels(FEATURES[rows], 0.25)
    assert not torch.equal(first, second)
    return second


def test_two_processes_drop_what_one_does() -> None:
    whole = dropped(PROGRESS, 4, list(range(8)))
    for first in (0, 2):
        rows = [first, first + 1, first + 4, first + 5]
        part = dropped(dataclasses.replace(PROGRESS, first=first), 2, rows)
        assert torch.equal(part, whole[rows])


def test_whole_channels_go_at_their_rate_and_the_others_grow() -> None:
    whole = dropped(PROGRESS, 4, list(range(8)))
    assert set(whole.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (whole == whole[:, :, :1, :1]).all()
    assert float((whole == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert len({tuple(row.tolist()) for row in whole[:, :, 0, 0]}) == 8
    other = dropped(dataclasses.replace(PROGRESS, step=8), 4, list(range(8)))
    assert not torch.equal(whole, other)


def test_the_layer_rests_in_evaluation_and_is_torchs_own_without_a_step() -> None:
    layer = ChannelDropout(0.25)
    assert (layer(FEATURES) == 0).any()
    assert torch.equal(layer.eval()(FEATURES), FEATURES)
