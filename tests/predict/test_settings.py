"""Whatever changes a map is a setting of its folder, so that no folder mixes two."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from s5mars.classes import Taxonomy
from s5mars.data.resolution import Resolution
from s5mars.predict.predictor import Predictor
from s5mars.predict.settings import settings_of

TAXONOMY = Taxonomy.of_names("site", ("soil", "rock"))


def settings(*, weight: float = 0.0, **changes: Any) -> dict[str, object]:
    network = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        network.weight.fill_(weight)
        network.bias.zero_()  # type: ignore[union-attr]
    predictor = Predictor(network, TAXONOMY, **changes)
    return settings_of(predictor, write=["labels"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model", {"weight": 1.0}),
        ("window", {"window": 64}),
        ("overlap", {"overlap": 0.5}),
        ("temperature", {"temperature": 2.0}),
        ("resolution", {"resolution": Resolution.parse("1/2")}),
        ("tta", {"tta": True}),
        ("abstain", {"abstain": 0.5}),
        ("class_biases", {"class_biases": (0.0, 1.0)}),
    ],
)
def test_each_is_recorded(name: str, changes: dict[str, Any]) -> None:
    before, after = settings(), settings(**changes)
    assert [key for key in after if before.get(key) != after[key]] == [name]


def test_equal_numbers_and_kinds_are_equal_settings() -> None:
    """Of whichever type: a folder that was begun in Python is continued by the command."""
    network = nn.Conv2d(3, 2, 1)
    given = (
        {"window": np.int64(64), "overlap": 0, "abstain": np.float32(1), "temperature": 2},
        {"window": 64, "overlap": 0.0, "abstain": 1.0, "temperature": 2.0},
    )
    one, other = (
        json.dumps(settings_of(Predictor(network, TAXONOMY, **words), write=write))
        for words, write in zip(
            given, (["overlay", "labels", "labels"], ["labels", "overlay"]), strict=True
        )
    )
    assert one == other
