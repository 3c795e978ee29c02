"""Show the calibration of a run: reliability diagram and risk-coverage curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.evaluation.calibrate import at_threshold
from s5mars.report.curves import Drawing, drawing, present
from s5mars.report.figures import Curve
from s5mars.text.numbers import score

_SHOWN_THRESHOLD = 0.6


def drawings(calibration: Mapping[str, Any]) -> list[Drawing]:
    """Draw reliability before and after calibration, and the risk-coverage curve after it."""
    before, after = calibration["before"], calibration["after"]
    ideal = Curve("perfect", [0, 100], [0, 100], series=7, dash=2)
    curve = after["risk_coverage"]
    return present(
        drawing(
            "Reliability",
            [
                Curve("before", *_bins(before), series=1, dash=1),
                Curve("calibrated", *_bins(after), series=0),
                ideal,
            ],
            name="reliability",
            unit="% correct",
            limits=(0.0, 100.0),
            along="confidence, %",
            caption=f"Accuracy of the pixels in each of {calibration['bins']} bins of confidence; "
            "empty bins are omitted.",
        ),
        drawing(
            "Risk and coverage",
            [Curve("wrong pixels", _percent(curve["coverage"]), _percent(curve["risk"]))],
            name="risk",
            unit="% wrong",
            along="most confident pixels kept, %",
            caption="Share of wrong pixels among those kept when the least confident are dropped.",
        ),
    )


def sentence(calibration: Mapping[str, Any]) -> str:
    """Describe the calibration in sentences."""
    before, after, on = calibration["before"], calibration["after"], calibration["fitted_on"]
    left, risk = at_threshold(after, _SHOWN_THRESHOLD)
    kept = (
        ""
        if risk is None
        else f" {score(100 * left, digits=1)} % of the pixels have a confidence of at least "
        f"{_SHOWN_THRESHOLD:g}; {score(100 * risk)} % of them are wrong (of all pixels: "
        f"{score(100 * after['risk_coverage']['risk'][-1])} %)."
    )
    return (
        f"Logits are divided by the temperature {score(calibration['temperature'], digits=3)}, "
        f"fitted on {on['pixels']:,} labelled pixels of the {on['split']} split; predicted classes "
        f"do not change. Expected calibration error ({calibration['bins']} bins of equal width): "
        f"{score(100 * before['ece'])} % before, {score(100 * after['ece'])} % after; area under "
        f"the risk-coverage curve: {score(after['aurc'], digits=4)}.{kept} All values are measured "
        "on the pixels that the temperature was fitted on."
    )


def _bins(measured: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    bins = measured["bins"]
    known = [i for i, value in enumerate(bins["confidence"]) if value is not None]
    return (
        _percent([bins["confidence"][i] for i in known]),
        _percent([bins["accuracy"][i] for i in known]),
    )


def _percent(values: list[float]) -> list[float]:
    return [100 * value for value in values]
