"""The record of the training images that a run adds to its best weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s5mars.training import domain
from s5mars.training.domain import record_domain
from s5mars.training.streams import Streams
from s5mars.types import Sample


def test_the_images_are_described_in_one_order_in_every_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of images with equal names those in the middle are chosen, which a set would shuffle."""
    pool = tuple(Sample(f"sol{i}/front", Path(f"sol{i}/front.png")) for i in range(50))
    streams = Streams(labelled=pool[:2], pool=pool, selection=(), areas=None)
    described: list[Path] = []

    def describe(predictor: Any, paths: list[Path], *, network: str) -> None:
        described.extend(paths)

    monkeypatch.setattr(domain, "load_model", lambda run: SimpleNamespace(network="student"))
    monkeypatch.setattr(domain, "Predictor", SimpleNamespace(of=lambda loaded, inference: None))
    monkeypatch.setattr(domain, "describe_images", describe)
    monkeypatch.setattr(domain, "write_domain", lambda run, found: None)
    record_domain(Path("run"), streams, accelerator="cpu")
    assert described == [sample.image for sample in pool]
