"""The engine of one machine: products are read ahead and maps made behind.

Products are read in processes of their own (``s5mars.predict.reading``), because what reads them
may crash. Maps are made in threads: compressing and the network let go of Python's lock, and the
network, which uses every core by itself, runs in the caller's thread alone: one image after the
other, in order, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Protocol

from s5mars.parallel.ahead import ahead
from s5mars.predict.predictor import Predictor, Segmentation
from s5mars.predict.product_maps import Maps, Wish, make_maps, segment
from s5mars.predict.reading import Failed, Read, Reader
from s5mars.predict.sources import Source
from s5mars.products.decode import head_size
from s5mars.products.files import IMAGE_ENDINGS

LARGE = 4096 * 4096
"""Pixels of a panorama, about: from here on a product and its maps take hundreds of megabytes."""


class Journal(Protocol):
    """Who wants to know which products are in hand, should this process die."""

    def begin_reading(self, name: str) -> None:
        """A product is about to be read."""

    def end_reading(self, name: str) -> None:
        """It was read, or that failed."""


def local_engine(
    predictor: Predictor,
    sources: Iterable[Source],
    wish: Wish,
    *,
    workers: int,
    read: Reader,
    journal: Journal | None = None,
) -> Generator[Maps | Failed, None, None]:
    """What becomes of each product, in their order.

    Args:
        predictor: see ``s5mars.load``.
        sources: the products.
        wish: what to make.
        workers: threads that call ``read``, and as many that make maps; so many of each wait at
            most. Of products above ``LARGE`` pixels, one at a time is in memory.
        read: decodes a product; ``Readers`` with as many processes.
        journal: is told what is being read, in the caller's thread.
    """
    began = _begun(sources, journal)
    with closing(ahead(read, began, workers=workers, alone=_is_large_file)) as products:
        answers = (segment(predictor, product) for product in _ended(products, journal))
        make = partial(make_maps, wish=wish)
        with closing(ahead(make, answers, workers=workers, alone=_is_large_answer)) as maps:
            yield from maps


def _begun(sources: Iterable[Source], journal: Journal | None) -> Iterator[Source]:
    for source in sources:
        if journal is not None:
            journal.begin_reading(source.name)
        yield source


def _ended(products: Iterable[Read | Failed], journal: Journal | None) -> Iterator[Read | Failed]:
    for product in products:
        if journal is not None:
            journal.end_reading(product.source.name)
        yield product


def _is_large_file(source: Source) -> bool:
    try:
        if source.path.suffix.lower() in IMAGE_ENDINGS:
            (width, height), _ = head_size(source.path)
            return width * height > LARGE
        return source.path.stat().st_size > LARGE  # a byte a pixel, or more
    except Exception:
        return False  # what is wrong with it is said where it is read


def _is_large_answer(answer: tuple[Read, Segmentation] | Failed) -> bool:
    return not isinstance(answer, Failed) and answer[1].labels.size > LARGE
