"""Detect images outside the domain of a model, whose maps are unreliable.

Three rules are exact: grey or colour, the camera that a product names, and the shape of the image
if a model resizes every image to the same side. The fourth rule compares features, because most
files have no metadata: the encoder's features at stride 4, averaged over the image, are a point,
and the training images are a cloud of such points. Its density is modelled as a Gaussian whose
covariance is that of probabilistic principal components (Tipping and Bishop, JRSS B 1999): the
largest directions as measured, and one variance for all others, which keeps it invertible with
fewer images than channels. The distance of an image is the Mahalanobis distance (for classifiers:
Lee et al., NeurIPS 2018). The limit is a quantile of distances of training images that were left
out of the fit.

Early features represent camera, sharpness and noise, which differ between archives; docs/models.md
compares them with later ones. They do not represent unusual content: an upside-down frame of the
same camera is not marked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.data.resolution import Resolution
from s5mars.products.info import ProductInfo
from s5mars.products.no_data import LEVEL

Floats = NDArray[np.float32]

COMPONENTS = 64
"""Largest number of principal components."""

QUANTILE = 0.99
"""Share of the training images, left out of the fit, that are within the limit."""

FOLDS = 5
"""Parts that are left out in turn. They are runs of consecutive images, because neighbouring frames
show the same place, and would make the limit too tight."""

FEWEST = 20
"""Minimum number of training images for a comparison of features."""

GREY_LEVEL = 3.0
"""Largest mean difference between the channels of a pixel, of 255, in a grey image: JPEG stores
grey exactly, and a colour image of Mars differs by twenty and more."""

SAME_KIND = 0.99
"""Share of the training images above which all count as grey, or as of known cameras."""

SHAPE_FACTOR = 2.0
"""Maximum elongation of an image relative to that of the training images, at a fixed side."""

_SAMPLE = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """Whether an image is like the training images of a model."""

    reasons: tuple[str, ...] = ()  # why not, in a few words each; empty for a known image
    distance: float | None = None  # of its features, 1 at the limit; None if not compared

    @property
    def outside(self) -> bool:
        """Whether the image is out of domain."""
        return bool(self.reasons)


@dataclass(frozen=True)
class FeatureCloud:
    """A Gaussian of image features: C channels, K components."""

    mean: Floats  # (C,)
    components: Floats  # (K, C), orthonormal
    variances: Floats  # (K + 1,): of each component, and of every other direction
    limit: float  # largest distance of a known image

    def distances(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Mahalanobis distance of each row of (N, C) features."""
        centred = np.asarray(features, np.float64) - self.mean
        along = centred @ self.components.T.astype(np.float64)
        rest = np.maximum((centred**2).sum(1) - (along**2).sum(1), 0)
        squared = (along**2 / self.variances[:-1]).sum(1) + rest / self.variances[-1]
        distances: NDArray[np.float64] = np.sqrt(squared)
        return distances

    @classmethod
    def fit(cls, features: NDArray[Any]) -> FeatureCloud:
        """Fit to (N, C) features of N >= ``FEWEST`` images, with neighbouring frames in rows."""
        features = np.asarray(features, np.float64)
        held = np.concatenate(
            [
                _gaussian(np.delete(features, part, axis=0)).distances(features[part])
                for part in np.array_split(np.arange(len(features)), FOLDS)
            ]
        )
        limit = float(np.quantile(held, QUANTILE, method="higher"))
        return replace(_gaussian(features), limit=max(limit, 1e-6))


@dataclass(frozen=True)
class Domain:
    """Record of the training images of a model."""

    images: int  # number of images that this was measured on
    colour: float  # fraction of them in colour
    cameras: Mapping[str, int]  # camera → number of images; not all images name theirs
    sides: tuple[int, int]  # smallest and largest longer side in pixels
    shape: float  # largest ratio of the longer to the shorter side
    network: str = "student"  # whose features were measured
    features: FeatureCloud | None = None

    def judge(
        self, image: NDArray[np.uint8], features: Floats | None, *, resolution: Resolution
    ) -> Verdict:
        """Compare an image with the training images.

        Args:
            image: (H, W, 3) uint8 RGB.
            features: (C,) mean of the encoder's features over the image, if available.
            resolution: resolution of the model.
        """
        reasons = []
        kind = "colour" if is_colour(image) else "grey"
        if self.kind not in (kind, "grey and colour"):
            reasons.append(f"{kind} image")
        ratio = shape_of(image.shape[1], image.shape[0])
        if resolution.side is not None and ratio > SHAPE_FACTOR * self.shape:
            reasons.append("elongated shape")
        distance = None
        if self.features is not None and features is not None:
            distance = float(self.features.distances(features[None])[0] / self.features.limit)
            if not distance <= 1:
                reasons.append("unusual features")
        return Verdict(tuple(reasons), distance)

    def with_camera(self, verdict: Verdict, info: Mapping[str, Any] | ProductInfo) -> Verdict:
        """Add the verdict on the camera of a product."""
        camera = camera_of(info)
        known = sum(self.cameras.values()) >= SAME_KIND * self.images
        if camera is None or not known or camera in self.cameras:
            return verdict
        return replace(verdict, reasons=(f"camera {camera}", *verdict.reasons))

    @property
    def kind(self) -> str:
        """Kind of the training images: ``grey``, ``colour``, or both."""
        if self.colour <= 1 - SAME_KIND:
            return "grey"
        return "colour" if self.colour >= SAME_KIND else "grey and colour"

    @property
    def about(self) -> str:
        """The training images in a few words."""
        low, high = self.sides
        size = f"{low} pixels" if low == high else f"{low} to {high} pixels"
        cameras = f" of {', '.join(sorted(self.cameras))}" if self.cameras else ""
        return f"{self.kind} images{cameras}, {size}"

    def rule(self, resolution: Resolution) -> str:
        """Describe the rules of ``judge`` and ``with_camera`` in one sentence."""
        parts = []
        if self.kind != "grey and colour":
            parts.append(f"it is not {self.kind}")
        if sum(self.cameras.values()) >= SAME_KIND * self.images:
            cameras = ", ".join(sorted(self.cameras))
            parts.append(f"its label or file name names a camera other than {cameras}")
        if resolution.side is not None:
            parts.append(f"it is more elongated than {SHAPE_FACTOR * self.shape:.3g}:1")
        if self.features is not None:
            parts.append(
                "its features are farther from those of the training images than the features of "
                f"{100 * QUANTILE:.0f} % of these are"
            )
        *others, last = parts or [""]
        before = f"{', if '.join(others)}, or if " if others else ""
        return f"An image is out of domain if {before}{last}." if parts else ""

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {
            "images": self.images,
            "colour": self.colour,
            "cameras": dict(self.cameras),
            "sides": list(self.sides),
            "shape": self.shape,
            "network": self.network,
            "limit": None if self.features is None else self.features.limit,
        }

    def arrays(self) -> dict[str, Floats]:
        """The arrays of the feature cloud, by name."""
        cloud = self.features
        if cloud is None:
            return {}
        return {"mean": cloud.mean, "components": cloud.components, "variances": cloud.variances}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Domain:
        """Restore from ``to_dict`` and ``arrays``; without arrays features are not compared.

        Raises:
            KeyError, TypeError, ValueError: if they are damaged.
        """
        cloud = None
        if arrays and facts["limit"] is not None:
            mean, components, variances = (
                arrays[name] for name in ("mean", "components", "variances")
            )
            if (
                components.shape != (len(variances) - 1, len(mean))
                or not all(np.isfinite(each).all() for each in (mean, components, variances))
                or not (variances > 0).all()
            ):
                raise ValueError("the features of its training images do not fit together")
            cloud = FeatureCloud(mean, components, variances, _positive(facts["limit"]))
        low, high = facts["sides"]
        return cls(
            images=int(facts["images"]),
            colour=float(facts["colour"]),
            cameras={str(name): int(number) for name, number in facts["cameras"].items()},
            sides=(int(low), int(high)),
            shape=_positive(facts["shape"]),
            network=str(facts["network"]),
            features=cloud,
        )


def is_colour(image: NDArray[np.uint8]) -> bool:
    """Whether an (H, W, 3) image is in colour, from evenly spaced pixels that are not black."""
    pixels = image.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // _SAMPLE)]
    brightest = pixels.max(1)
    spread = (brightest - pixels.min(1))[brightest > LEVEL]
    return bool(len(spread)) and float(spread.mean()) > GREY_LEVEL


def shape_of(width: int, height: int) -> float:
    """Ratio of the longer to the shorter side."""
    return max(width, height) / min(width, height)


def camera_of(info: Mapping[str, Any] | ProductInfo) -> str | None:
    """``MSL Navcam`` for either eye, or None if the product does not name its camera."""
    row = info.row() if isinstance(info, ProductInfo) else info
    camera = row.get("camera")
    if not camera:
        return None
    name = str(camera).removesuffix(" Left").removesuffix(" Right")
    return " ".join(filter(None, (str(row.get("mission") or ""), name)))


def _gaussian(features: NDArray[np.float64]) -> FeatureCloud:
    mean = features.mean(0)
    _, singular, directions = np.linalg.svd(features - mean, full_matrices=False)
    variances = singular**2 / max(1, len(features) - 1)
    # Half of the rank at most: the smallest measured variances are far too small.
    kept = min(COMPONENTS, len(features) // 2, features.shape[1] - 1)
    rest = variances[kept:].sum() / (features.shape[1] - kept)
    # A channel that is the same in all images would make any difference infinite.
    least = max(float(variances[0]) * 1e-6, 1e-12)
    found = np.maximum([*variances[:kept], rest], least)
    return FeatureCloud(
        mean.astype(np.float32), directions[:kept].astype(np.float32),
        found.astype(np.float32), limit=1.0,
    )  # fmt: skip


def _positive(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not 0 < number < math.inf:
        raise ValueError(f"{value} is not a positive number")
    return number


def count_cameras(infos: Sequence[ProductInfo]) -> dict[str, int]:
    """Number of products of each camera; those that do not name theirs are left out."""
    return dict(sorted(Counter(filter(None, map(camera_of, infos))).items()))
