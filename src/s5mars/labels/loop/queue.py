"""Which image to paint next, and why.

Each image gets three numbers in 0..1, whose weighted sum ranks it:

- uncertainty: one minus the head's confidence, averaged over the image, as a share of the largest;
- diversity: 1/(1 + painted images of its sol); without sols, the distance of its mean features to
  those of the nearest painted image, as a share of the largest distance;
- rare classes: the share of the image that the head gives to each class, times the rarity of the
  class, which is 1 without a painted pixel and 0 for the class with the most; 0 without paint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

WEIGHTS = {"uncertainty": 1.0, "diversity": 0.5, "rare": 0.5}

SURE = 0.6
"""A place with less confidence counts as uncertain in the reason."""

_OLD_SOL = 0.5


@dataclass(frozen=True)
class Candidate:
    """What the ranking knows of an image that is not painted yet."""

    name: str
    sol: int | None
    summary: NDArray[np.float32] | None  # (C,) mean features; None: not computed yet
    probabilities: NDArray[np.float32] | None  # (P, K) at some places; None: no head yet


@dataclass(frozen=True)
class Ranked:
    """A place in the queue."""

    name: str
    score: float
    reason: str  # a phrase for the page


def rank(
    candidates: Sequence[Candidate],
    *,
    painted_sols: Mapping[int, int],
    painted_summaries: Sequence[NDArray[np.float32]],
    painted_pixels: NDArray[np.int64],
    classes: Sequence[str],
) -> list[Ranked]:
    """The images in the order in which they teach most; equal ones in the order given.

    Args:
        painted_sols: number of painted images of each sol.
        painted_summaries: mean features of the painted images.
        painted_pixels: (K,) painted pixels of each class.
    """
    uncertainty = _shares([_uncertainty(c) for c in candidates])
    distances = _shares(_distances(candidates, painted_summaries))
    most = int(painted_pixels.max(initial=0))
    rarity = 1 - painted_pixels / most if most else np.zeros(len(classes))
    ranked = []
    for candidate, unsure, distance in zip(candidates, uncertainty, distances, strict=True):
        known_sol = candidate.sol is not None
        images = painted_sols.get(candidate.sol, 0) if candidate.sol is not None else 0
        diversity = 1 / (1 + images) if known_sol else distance
        rare, rarest = 0.0, None
        if candidate.probabilities is not None:
            expected = candidate.probabilities.mean(0) * rarity
            rare, rarest = float(expected.sum()), int(expected.argmax())
        parts = {"uncertainty": unsure, "diversity": diversity, "rare": rare}
        score = sum(WEIGHTS[name] * value for name, value in parts.items())
        reasons = _reasons(candidate, parts, images, rarest, painted_pixels, classes)
        ranked.append(Ranked(candidate.name, score, reasons))
    return sorted(ranked, key=lambda each: -each.score)


def _reasons(
    candidate: Candidate,
    parts: Mapping[str, float],
    images: int,
    rarest: int | None,
    painted_pixels: NDArray[np.int64],
    classes: Sequence[str],
) -> str:
    said = []
    if candidate.probabilities is not None and parts["uncertainty"] > 0:
        unsure = float((candidate.probabilities.max(1) < SURE).mean())
        if unsure >= 0.05:
            said.append((parts["uncertainty"], f"uncertain on {unsure:.0%} of the image"))
    if candidate.sol is not None and parts["diversity"] >= _OLD_SOL:
        which = "first" if images == 0 else "second"
        said.append((0.5 * parts["diversity"], f"{which} image of sol {candidate.sol}"))
    elif candidate.sol is None and parts["diversity"] >= _OLD_SOL and candidate.summary is not None:
        said.append((0.5 * parts["diversity"], "unlike the painted images"))
    if rarest is not None and candidate.probabilities is not None and parts["rare"] >= 0.2:
        share = painted_pixels[rarest] / max(1, int(painted_pixels.sum()))
        how = f"{share:.1%} of the paint" if share else "not painted yet"
        said.append((0.5 * parts["rare"], f"may show {classes[rarest]} ({how})"))
    said.sort(key=lambda reason: -reason[0])
    return "; ".join(text for _, text in said[:2]) or "next in order"


def _uncertainty(candidate: Candidate) -> float:
    if candidate.probabilities is None:
        return 0.0
    return float(1 - candidate.probabilities.max(1).mean())


def _distances(
    candidates: Sequence[Candidate], painted: Sequence[NDArray[np.float32]]
) -> list[float]:
    known = [c.summary for c in candidates if c.summary is not None]
    if not painted or not known:
        return [0.0] * len(candidates)
    nearest = iter(cdist(np.stack(known), np.stack(painted)).min(1).tolist())
    return [next(nearest) if c.summary is not None else 0.0 for c in candidates]


def _shares(values: Sequence[float]) -> list[float]:
    largest = max(values, default=0.0)
    return [value / largest if largest > 0 else 0.0 for value in values]
