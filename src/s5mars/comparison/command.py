"""The ``compare`` command: plan a comparison from its options, and run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s5mars.comparison import runner
from s5mars.comparison.general import GeneralWeights
from s5mars.comparison.plan import Request
from s5mars.comparison.results import Comparison


def compare(
    *,
    passed_on: Sequence[str] = (),
    sam_weights: str | None = None,
    clip_weights: str | None = None,
    san_weights: str | None = None,
    **request: Any,
) -> Comparison:
    """Train and score the missing cells of a comparison.

    Args:
        passed_on: arguments of ``s5mars train``, for every cell.
        sam_weights: folder or hub id of SAM.
        clip_weights: folder or hub id of CLIP.
        san_weights: the authors' checkpoint of the side adapter.
        **request: other fields of ``Request``.

    Raises:
        UserError, MissingFileError: as ``runner.compare``.
    """
    weights = GeneralWeights(sam=sam_weights, clip=clip_weights, san=san_weights)
    return runner.compare(Request(arguments=passed_on, weights=weights, **request))
