"""The engine for one machine: reading and encoding run in parallel with the network.

Products are read in separate processes (``s5mars.predict.reading``), because a decoder may crash.
Maps are encoded in threads, because compression and the network release Python's lock. The network
itself uses all cores; it runs in the caller's thread, one image at a time and in order, for any
number of workers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial

from s5mars.parallel.ahead import ahead
from s5mars.predict.manifest import Manifest
from s5mars.predict.predictor import Predictor
from s5mars.predict.product_maps import Maps, MapSettings, make_maps, segment
from s5mars.predict.reading import Failed, Read, Reader
from s5mars.predict.segmentation import Segmentation
from s5mars.predict.sources import Source
from s5mars.products.decode import head_size
from s5mars.products.files import IMAGE_ENDINGS

LARGE = 4096 * 4096
"""Pixels above which a product and its maps take hundreds of megabytes."""


def local_engine(
    predictor: Predictor,
    sources: Iterable[Source],
    settings: MapSettings,
    *,
    workers: int,
    read: Reader,
    journal: Manifest | None = None,
) -> Generator[Maps | Failed, None, None]:
    """Yield the result of each product, in order.

    Args:
        predictor: see ``s5mars.load``.
        workers: number of threads that call ``read`` and of threads that make maps; at most as
            many results wait. Only one product above ``LARGE`` pixels is in memory at a time.
        read: decodes a product; usually ``Readers`` with as many processes.
        journal: records what is being read; called in the caller's thread.
    """
    began = _begun(sources, journal)
    with closing(ahead(read, began, workers=workers, alone=_is_large_file)) as products:
        # Not a generator expression, whose variable would keep a product while the next is read.
        segmentations = map(partial(segment, predictor), _ended(products, journal))
        make = partial(make_maps, settings=settings)
        with closing(ahead(make, segmentations, workers=workers, alone=_is_large_result)) as maps:
            yield from maps


def _begun(sources: Iterable[Source], journal: Manifest | None) -> Iterator[Source]:
    for source in sources:
        if journal is not None:
            journal.begin_reading(source.name)
        yield source


def _ended(products: Iterable[Read | Failed], journal: Manifest | None) -> Iterator[Read | Failed]:
    for product in products:
        if journal is not None:
            journal.end_reading(product.source.name)
        yield product
        del product  # it may be large, and the next one is read before this name is used again


def _is_large_file(source: Source) -> bool:
    try:
        if source.path.suffix.lower() in IMAGE_ENDINGS:
            (width, height), _ = head_size(source.path)
            return width * height > LARGE
        return source.path.stat().st_size > LARGE  # a byte a pixel, or more
    except Exception:
        return False  # reading reports what is wrong


def _is_large_result(segmented: tuple[Read, Segmentation] | Failed) -> bool:
    return not isinstance(segmented, Failed) and segmented[1].labels.size > LARGE
