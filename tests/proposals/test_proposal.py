from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from s5mars.proposals.proposal import proposal_from_mask

MASKS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@settings(deadline=None, max_examples=100)
@given(mask=MASKS, confidence=st.floats(0, 1))
def test_a_mask_survives_run_length_coding(mask, confidence):
    proposal = proposal_from_mask(mask, predicted_iou=confidence, stability=0.5, proposer="x")

    np.testing.assert_array_equal(proposal.mask, mask)
    assert proposal.area == mask.sum()
    assert proposal.size == mask.shape
    assert proposal.predicted_iou == confidence


@settings(deadline=None, max_examples=100)
@given(mask=MASKS.filter(np.any))
def test_the_box_is_tight(mask):
    proposal = proposal_from_mask(mask, predicted_iou=1, stability=1, proposer="x")

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert proposal.box == expected
