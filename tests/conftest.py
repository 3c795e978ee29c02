"""Shared fixtures. Real rover images are optional: tests that need them skip with a reason."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

# Tiny tensors gain nothing from a second thread, and while one waits for another it burns time.
os.environ["OMP_NUM_THREADS"] = "1"
# Each full collection walks over all modules; by default they take a sixteenth of the time.
gc.set_threshold(20_000, 20, 20)
# A first call on a busy machine takes seconds; time is no property that these tests are about.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real rover images: $S5MARS_REAL_DATA."""
    given = os.environ.get("S5MARS_REAL_DATA")
    if not given:
        pytest.skip("no real images: S5MARS_REAL_DATA is not set")
    folder = Path(given)
    if not folder.is_dir():
        pytest.skip(f"no real images: S5MARS_REAL_DATA is {folder}, which is no folder")
    return folder


@pytest.fixture(scope="module")  # while it is open, no other event loop can run
def browser() -> Iterator[Any]:
    """A headless chromium; tests that need it skip with a reason where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        installed = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(installed).exists():
            pytest.skip("no chromium: apt-get install chromium, or playwright install chromium")
        started = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def boxed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny untrained network with the name of the installed model."""
    from boxed import write_model

    return write_model(tmp_path_factory.mktemp("box") / "navcam")


@pytest.fixture
def navcam(boxed_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny untrained network is installed as ``navcam``, and nothing else; its folder."""
    from s5mars.models import box

    monkeypatch.setattr(box, "BOX", boxed_model.parent)
    return boxed_model


@pytest.fixture
def cells_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """``s5mars compare`` trains in this process: see ``cells.py``."""
    from cells import train_cells_here

    train_cells_here(monkeypatch)


@pytest.fixture(scope="session")
def fake_data() -> ModuleType:
    """The functions of ``tests/fakedata.py``, which write tiny data sets of every layout."""
    spec = importlib.util.spec_from_file_location("fakedata", Path(__file__).parent / "fakedata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
