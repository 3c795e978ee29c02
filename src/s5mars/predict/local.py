"""The engine of one machine: products are read ahead and maps made behind, in threads.

Decoding, compressing and the network let go of Python's lock, so threads are enough, and the
network, which uses every core by itself, runs in the caller's thread alone: one image after the
other, in order, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from s5mars.data.read import image_size
from s5mars.predict.ahead import ahead
from s5mars.predict.predictor import Predictor, Segmentation
from s5mars.predict.product_maps import Failed, Maps, Read, Wish, make_maps, read_product, segment
from s5mars.predict.sources import Source
from s5mars.products.files import PDS_ENDINGS

LARGE = 4096 * 4096
"""Pixels of a panorama, about: from here on a product and its maps take hundreds of megabytes."""


def local_engine(
    predictor: Predictor, sources: Iterable[Source], wish: Wish, *, workers: int
) -> Iterator[Maps | Failed]:
    """What becomes of each product, in their order.

    Args:
        predictor: see ``s5mars.load``.
        sources: the products.
        wish: what to make.
        workers: threads that read, and as many that make maps; so many of each wait at most.
            Of products above ``LARGE`` pixels, one at a time is in memory.
    """
    read = ahead(read_product, sources, workers=workers, alone=_is_large_file)
    answers = (segment(predictor, product) for product in read)
    make = partial(make_maps, wish=wish)
    yield from ahead(make, answers, workers=workers, alone=_is_large_answer)


def _is_large_file(source: Source) -> bool:
    try:
        if source.path.suffix.lower() in PDS_ENDINGS:
            return source.path.stat().st_size > LARGE  # a byte a pixel, or more
        width, height = image_size(source.path)
        return width * height > LARGE
    except (OSError, ValueError):
        return False  # what is wrong with it is said where it is read


def _is_large_answer(answer: tuple[Read, Segmentation] | Failed) -> bool:
    return not isinstance(answer, Failed) and answer[1].labels.size > LARGE
