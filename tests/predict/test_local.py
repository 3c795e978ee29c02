"""The engine for one machine keeps as little in memory as it says."""

from __future__ import annotations

import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from s5mars.predict import local
from s5mars.predict.local import local_engine
from s5mars.predict.predictor import Predictor
from s5mars.predict.product_maps import MapSettings
from s5mars.predict.reading import Read
from s5mars.predict.sources import Source

from .standin import THREE, Brightness


def test_a_large_product_is_gone_before_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "LARGE", 0)
    monkeypatch.setattr(local, "_is_large_file", lambda source: True)
    read: list[weakref.ref[np.ndarray]] = []
    left: list[int] = []

    def reader(source: Source) -> Read:
        end = time.monotonic() + 1  # the thread that made the maps lets go of them a moment later
        while any(image() is not None for image in read) and time.monotonic() < end:
            time.sleep(0.01)
        left.append(sum(image() is not None for image in read))
        image = np.zeros((40, 50, 3), np.uint8)
        read.append(weakref.ref(image))
        return Read(source, image, np.zeros((40, 50), bool))

    sources = [Source(Path(f"/archive/{name}.png"), name) for name in "abc"]
    predictor, settings = Predictor(Brightness(), THREE), MapSettings(THREE, ("labels",))
    found = local_engine(predictor, sources, settings, workers=2, read=reader)
    assert [result.source.name for result in found] == ["a", "b", "c"]
    assert left == [0, 0, 0]
