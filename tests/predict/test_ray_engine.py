"""Ray: the same files as the local engine's, also when a worker is killed."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

import crashing
from s5mars.parallel.cluster import import_ray
from s5mars.predict import ray_engine
from s5mars.predict.archive import predict_images
from s5mars.predict.manifest import Counts
from s5mars.predict.predictor import Predictor, Segmentation
from s5mars.predict.product_maps import MapSettings
from s5mars.predict.reading import Failed, Picture, Read, read_product
from s5mars.predict.sources import find_sources
from s5mars.proposals import build
from s5mars.proposals.build import build_store
from s5mars.types import Sample

from . import standin
from .folders import archive, contents, save
from .standin import THREE, Brightness


class Deadly(Predictor):
    """Kills its own process once; a file says that it was done."""

    def __init__(self, mark: Path) -> None:
        super().__init__(Brightness(), THREE)
        self.mark = mark

    def segment(self, image: Picture) -> Segmentation:
        assert isinstance(image, Read)
        if image.image.shape[1] == 50 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(image)


@pytest.fixture(scope="module")
def small_ray(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Ray on loopback, with one processor and little memory."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    ray = import_ray(loopback=True)
    for module in (standin, crashing, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)  # workers do not see the tests
    ray.init(
        num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    assert ray.util.get_node_ip_address() == "127.0.0.1"
    yield ray
    ray.shutdown()
    # It has taken the handlers of fatal signals: a later crash would print no traceback.
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        faulthandler.disable()
        faulthandler.enable(os.dup(2))


def test_ray_writes_what_the_local_engine_writes_and_survives_a_kill(
    tmp_path: Path, small_ray: ModuleType
) -> None:
    products = archive(tmp_path / "in", products=20)
    write = ["labels", "overlay", "rle"]
    predict_images(
        Predictor(Brightness(), THREE), [products], out=tmp_path / "local", write=write,
        skip_bad=True,
    )  # fmt: skip
    mark = tmp_path / "killed"
    summary = predict_images(
        Deadly(mark), [products], out=tmp_path / "ray", write=write, engine="ray", workers=1,
        skip_bad=True,
    )  # fmt: skip
    assert mark.exists()
    assert summary.counts == Counts(done=20, failed=1, to_do=0)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_ray_finds_the_objects_that_one_process_finds_and_survives_a_kill(
    tmp_path: Path, small_ray: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(str(k), save(tmp_path / f"{k}.png", grey=40 * k)) for k in range(5)]
    settings = {"shard_images": 2}
    build_store(samples, tmp_path / "one", **settings)
    monkeypatch.setattr(build, "_start", crashing.start_fragile_proposer)
    (tmp_path / "3.kills").write_bytes(b"x")
    build_store(samples, tmp_path / "ray", engine="ray", **settings)
    assert not (tmp_path / "3.kills").read_bytes()
    shards = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "ray")]
    assert shards[0] == shards[1] and len(shards[0]) == 3
    with pytest.raises(ValueError, match=r"at most 2, the number of cores in Ray's cluster .got 3"):
        build_store(samples, tmp_path / "many", engine="ray", workers=3, **settings)


class HalfRay:
    """Stands in for ray and ray.data; answers for the first batch only, as Ray does where every
    worker that takes the second one dies."""

    def __init__(self) -> None:
        self.data = self
        self.DataContext = self

    def get_current(self) -> HalfRay:
        return self

    def ActorPoolStrategy(self, **_: object) -> None:
        return None

    def put(self, value: object) -> object:
        return value

    def from_arrow(self, blocks: list[pa.Table]) -> HalfRay:
        self.blocks = blocks
        return self

    def map_batches(self, work: type, *, fn_constructor_args: tuple, **_: object) -> HalfRay:
        self.worker = work.__new__(work)
        self.worker.predictor, self.worker.settings = fn_constructor_args
        self.worker.read = read_product
        return self

    def iter_batches(self, **_: object) -> Iterator[pa.Table]:
        yield self.worker(self.blocks[0])


def test_a_batch_that_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    sources = find_sources([archive(tmp_path / "in", products=11)], out=tmp_path / "maps")
    predictor, settings = Predictor(Brightness(), THREE), MapSettings(THREE, ("labels",))
    results = list(ray_engine._results(HalfRay(), predictor, sources, settings, workers=1))
    assert [result.source for result in results] == sources
    died = [r for r in results if isinstance(r, Failed) and "the worker died 3 times" in r.reason]
    assert len(sources) == 12 and [r.source for r in died] == sources[ray_engine.BATCH :]


def test_names_of_files_need_not_be_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xfcnen")
    save(folder / "a.png")
    (folder / "b.png").touch()
    sources = find_sources([folder], out=tmp_path / "maps")
    predictor, settings = Predictor(Brightness(), THREE), MapSettings(THREE, ("labels",))
    done, bad = ray_engine._results(HalfRay(), predictor, sources, settings, workers=1)
    assert [done.source, bad.source] == sources
    assert isinstance(bad, Failed) and "d%FCnen/b.png is empty" in bad.reason


def test_without_ray_the_way_to_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    products = archive(tmp_path / "in", products=3)
    with pytest.raises(
        ValueError, match=r"ray is not installed: run `pip install 's5mars\[ray\]'`"
    ):
        predict_images(
            Predictor(Brightness(), THREE), [products], out=tmp_path / "maps", engine="ray"
        )
    with pytest.raises(ValueError, match="requires --engine ray"):
        predict_images(
            Predictor(Brightness(), THREE), [products], out=tmp_path / "maps", address="auto"
        )
