"""A simulated serving as plain data: what `dagc serve --json` and `dagc compile --json` say of it."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any

from ..plan.plan import CompiledPlan
from ..plan.subject import result_metrics
from ..serving import gaps
from ..serving.knee import Knee, Point, load_kind
from ..serving.result import ServeResult


def serving_object(plan: CompiledPlan, result: ServeResult, knee: Knee | None = None) -> dict[str, Any]:
    """What came of a serving, SI units; its schema is the part `serving` of `plan.schema.json`."""
    arrivals = result.arrivals
    kind, load = load_kind(arrivals)
    out: dict[str, Any] = {
        "arrivals": arrivals.kind,
        "load": {"of": kind, "amount": load or None, "offered_per_s": _number(result.offered_per_s)},
        "verdict": result.verdict,
        "metrics": result_metrics(plan.subject(), result),
        "counts": dict(result.outcome.counts),
        "growth": asdict(result.growth),
        "limits": asdict(result.limits),
        "met_each": dict(result.met_each),
        "roles": [asdict(role) for role in result.roles],
        "itl_resolution": gaps.RESOLUTION,
        "prices_error": result.prices_error,
    }
    if knee is not None:
        out["knee"] = knee_object(plan, knee)
    return out


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def knee_object(plan: CompiledPlan, knee: Knee) -> dict[str, Any]:
    """The highest load that keeps everything, the next one, and all that were simulated."""
    return {
        "at": None if knee.at is None else knee.at.load,
        "above": None if knee.above is None else knee.above.load,
        "points": [_point(plan, point) for point in knee.points],
    }


def _point(plan: CompiledPlan, point: Point) -> dict[str, Any]:
    found = point.result
    metrics = result_metrics(plan.subject(), found)
    return {"load": point.load, "broken": list(point.broken), "verdict": found.verdict, "metrics": metrics}
