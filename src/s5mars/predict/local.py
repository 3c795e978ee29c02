"""The engine of one machine: products are read ahead and maps made behind, in threads.

Decoding, compressing and the network let go of Python's lock, so threads are enough, and the
network, which uses every core by itself, runs in the caller's thread alone: one image after the
other, in order, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from s5mars.predict.ahead import ahead
from s5mars.predict.predictor import Predictor
from s5mars.predict.product_maps import Failed, Maps, Wish, make_maps, read_product, segment
from s5mars.predict.sources import Source


def local_engine(
    predictor: Predictor, sources: Iterable[Source], wish: Wish, *, workers: int
) -> Iterator[Maps | Failed]:
    """What becomes of each product, in their order.

    Args:
        predictor: see ``s5mars.load``.
        sources: the products.
        wish: what to make.
        workers: threads that read, and as many that make maps; so many of each wait at most.
    """
    read = ahead(read_product, sources, workers=workers)
    answers = (segment(predictor, product) for product in read)
    yield from ahead(partial(make_maps, wish=wish), answers, workers=workers)
