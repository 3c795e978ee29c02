"""The engine for many processes or machines: Ray Data, with models as actors.

A worker reads products, predicts them with its copy of the network and encodes the maps, exactly as
the local engine does; it returns finished files, which are small. Only the calling process writes,
so there is one lock and one manifest for the whole cluster, and workers need access to the archive
but not to the output folder. Ray restarts a worker that dies and repeats its batch; a batch that
kills every worker is given up, and the others continue.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from s5mars.files import numbered, printable
from s5mars.parallel.cluster import connected
from s5mars.predict.local import local_engine
from s5mars.predict.predictor import Predictor
from s5mars.predict.product_maps import Maps, MapSettings
from s5mars.predict.reading import Failed, Readers
from s5mars.predict.sources import Source

BATCH = 8
"""Number of products in a batch, which are repeated if a worker dies."""

RETRIES = 2
"""How often a batch is retried after its worker died, before its products count as failed."""

_SCHEMA = pa.schema(
    [
        ("path", pa.binary()),  # as the system has it, which need not be UTF-8
        ("name", pa.string()),
        ("reason", pa.string()),  # null: done
        ("facts", pa.string()),  # JSON
        ("files", pa.list_(pa.string())),
        ("contents", pa.list_(pa.large_binary())),
    ]
)


def ray_engine(
    predictor: Predictor,
    sources: Sequence[Source],
    settings: MapSettings,
    *,
    workers: int,
    address: str | None = None,
) -> Generator[Maps | Failed, None, None]:
    """Yield the result of each product, in order of completion.

    Args:
        predictor: copied to every worker; on accelerators, each worker uses one.
        sources: the products, at paths that are valid on every worker.
        address: address of a cluster, or ``"auto"`` for the running one; None starts Ray on this
            machine, unless this process is already connected.

    Raises:
        UserError: if Ray is not installed, or there is no cluster at the address.
    """
    if not sources:
        return
    with connected(address, workers=workers) as ray:
        yield from _results(ray, predictor, sources, settings, workers=workers)


class Worker:
    """A model in its own process; Ray creates and calls it."""

    def __init__(self, predictor: Any, settings: MapSettings) -> None:
        """Fetch the model; ``predictor`` is Ray's reference to it."""
        import ray

        self.predictor: Predictor = ray.get(predictor)
        self.settings = settings
        self.read = Readers(most=1)  # its process ends with this one

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Predict a batch: a table of paths and names in, a table of finished files out."""
        sources = [_source(row) for row in batch.to_pylist()]
        results = local_engine(self.predictor, sources, self.settings, workers=1, read=self.read)
        return pa.Table.from_pylist([_packed(result) for result in results], schema=_SCHEMA)


def _results(
    ray: Any,
    predictor: Predictor,
    sources: Sequence[Source],
    settings: MapSettings,
    *,
    workers: int,
) -> Iterator[Maps | Failed]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A batch that fails for good must not stop the others.
    context.max_errored_blocks = -1
    paths, names = [os.fsencode(s.path) for s in sources], [s.name for s in sources]
    table = pa.table({"path": paths, "name": names})
    # Ray repeats a whole block when a worker dies, so a block is a batch.
    blocks = [table.slice(start, BATCH) for start in range(0, len(table), BATCH)]
    products = ray.data.from_arrow(blocks)
    accelerator = predictor.device.type != "cpu"
    with warnings.catch_warnings():
        # Ray 2.60 deprecates every way to limit retries without an alternative.
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        maps = products.map_batches(
            Worker,
            batch_size=None,
            batch_format="pyarrow",
            # One batch each: batches queued behind a fatal one would count its deaths, too.
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=workers, max_tasks_in_flight_per_actor=1
            ),
            num_cpus=1,
            num_gpus=1 if accelerator else 0,
            ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": RETRIES},
            fn_constructor_args=(ray.put(predictor), settings),
        )
    missing = {source.name: source for source in sources}
    for batch in maps.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        for row in batch.to_pylist():
            result = _unpacked(row)
            del missing[result.source.name]
            yield result
    if len(missing) == len(sources):
        raise numbered(
            errno.ECONNRESET,
            "all Ray workers died before they returned a result; see the logs of Ray",
        )
    for source in missing.values():
        reason = f"{source.path}: the worker died {RETRIES + 1} times during this batch"
        yield Failed(source, reason)


def _packed(result: Maps | Failed) -> dict[str, object]:
    source = result.source
    row: dict[str, object] = {"path": os.fsencode(source.path), "name": source.name}
    if isinstance(result, Failed):
        return row | {"reason": printable(result.reason)}
    return row | {
        "facts": json.dumps(result.facts),
        "files": list(result.files),
        "contents": list(result.files.values()),
    }


def _source(row: dict[str, Any]) -> Source:
    return Source(Path(os.fsdecode(row["path"])), row["name"])


def _unpacked(row: dict[str, Any]) -> Maps | Failed:
    source = _source(row)
    if row["reason"] is not None:
        return Failed(source, row["reason"])
    files = dict(zip(row["files"], row["contents"], strict=True))
    return Maps(source, files, json.loads(row["facts"]))
