"""Measure the training images of a model for ``models.domain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from s5mars.data.read import image_size
from s5mars.errors import DamagedFileError, UserError
from s5mars.models.domain import (
    FEWEST,
    Domain,
    FeatureCloud,
    count_cameras,
    is_colour,
    shape_of,
)
from s5mars.predict.predictor import Predictor
from s5mars.predict.spacing import evenly_spaced
from s5mars.products import open_product

IMAGES = 400
"""Largest number of images that are measured; more did not change which ones are marked."""

PIXELS = 50_000_000
"""Largest number of pixels that the network sees for this: less than a minute of one core with a
light encoder."""


def describe_images(predictor: Predictor, paths: Sequence[Path], *, network: str) -> Domain:
    """Measure evenly spaced images in the order of their names.

    Args:
        network: whose features these are, ``teacher`` or ``student``.

    Raises:
        UserError: if no image can be read.
    """
    chosen = _within_limits(predictor, sorted(paths, key=lambda path: path.name))
    features, infos, sizes, colours = [], [], [], []
    what = "describe training images"
    for path in tqdm(chosen, unit="image", desc=what, disable=None, leave=False):
        try:
            product = open_product(path)
        except DamagedFileError:
            continue  # training skipped it, too
        infos.append(product.info)
        sizes.append((product.image.shape[1], product.image.shape[0]))
        colours.append(is_colour(product.image))
        if predictor.gives_features:
            features.append(predictor.features(product.image))
    if not sizes:
        raise UserError("no training image can be read")
    longer = [max(size) for size in sizes]
    return Domain(
        images=len(sizes),
        colour=float(np.mean(colours)),
        cameras=count_cameras(infos),
        sides=(min(longer), max(longer)),
        shape=max(shape_of(*size) for size in sizes),
        network=network,
        features=FeatureCloud.fit(np.stack(features)) if len(features) >= FEWEST else None,
    )


def _within_limits(predictor: Predictor, paths: Sequence[Path]) -> list[Path]:
    """As many evenly spaced paths as ``IMAGES`` and ``PIXELS`` allow."""
    few = evenly_spaced(paths, IMAGES)
    pixels = 0
    for path in few:
        try:
            width, height = predictor.resolution.size(*image_size(path))
        except UserError:
            continue
        pixels += width * height
    return evenly_spaced(few, max(FEWEST, int(len(few) * min(1, PIXELS / max(1, pixels)))))
