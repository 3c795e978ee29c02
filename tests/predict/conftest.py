"""Archives that are read in the process of the tests."""

from __future__ import annotations

import pytest

from s5mars.predict import archive
from s5mars.predict.reading import Failed, Read, read_product
from s5mars.predict.sources import Source


class _Readers:
    def __init__(self, *, most: int) -> None:
        self.most = most

    def __call__(self, source: Source) -> Read | Failed:
        return read_product(source)

    def close(self) -> None:
        pass


@pytest.fixture
def readers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading starts no processes: each run would import for half a second in every one."""
    monkeypatch.setattr(archive, "Readers", _Readers)
