"""The requirements of a spec judged on a measured run: met, failed, undecided, not measured, or of the plan alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product

from ...base.diagnostics import Collector
from ...base.frozen import record
from ...base.syntax import ast
from ...base.units import SCALAR, Dim, Quantity, show
from ...lang.values.evaluate import compare, names_in
from ...plan.plan import CompiledPlan
from ...plan.require import Verdict, is_share
from ...plan.subject import all_metrics
from ...spec.metrics.known_metrics import metric, of_serving
from ...spec.metrics.metric import PHASE, SERVE, Metric, percent
from ...spec.model import AttrValue
from ...spec.requirement import Requirement
from .figures import Figure
from .named import Measured

MET, FAILED, UNDECIDED, NOT_MEASURED, OF_THE_PLAN = "met", "FAILED", "undecided", "not measured", "of the plan"
MOST_OPEN = 8
"""Figures of one requirement that are known between bounds alone."""


@record
class Judged:
    """`value`, `bound`: left and right side of the run, None where it shows nothing; `low`, `high`: between which the left one is; `planned`: the
    plan's own verdict, if it has one; `why`: what is missing, why it is open, or what else is to be known."""

    requirement: Requirement
    verdict: str
    value: float | None
    bound: float | None
    low: float | None
    high: float | None
    dim: Dim
    share: bool
    planned: Verdict | None
    why: tuple[str, ...] = ()

    def shown(self, value: float) -> str:
        return percent(value) if self.share else show(value, self.dim)


def judged(plan: CompiledPlan, found: Measured) -> tuple[Judged, ...]:
    """In the spec's order."""
    given = all_metrics(plan.subject())
    verdicts = {id(v.requirement): v for v in plan.requirements}
    serves = frozenset(serve.name for serve in plan.spec.serves)
    return tuple(_one(r, found.figures, given, serves, verdicts.get(id(r))) for r in plan.spec.requirements)


def meant(name: str, serves: Collection[str]) -> Metric | None:
    """What is known of a name: of a serving's where a serving is its owner."""
    owner, _, rest = name.partition(".")
    return next((m for m in of_serving() if m.name == rest), None) if owner in serves else metric(name)


def shown_by_runs(known: Metric | None) -> bool:
    """Is it something that a run shows, and no fact of the spec or of how the plan is laid out?"""
    if known is None:
        return False
    return (bool(known.better) or known.is_result or known.owner == SERVE) and not known.settled


def _one(
    requirement: Requirement,
    figures: Mapping[str, Figure],
    given: Mapping[str, Quantity],
    serves: Collection[str],
    planned: Verdict | None,
) -> Judged:
    test = requirement.test
    names = list(dict.fromkeys(name.text for name in names_in(test)))
    seen = [name for name in names if name in figures]
    missing = [
        name for name in names if name not in figures and (shown_by_runs(meant(name, serves)) or name not in given)
    ]
    missing = [name for name in missing if not _is_call(name)]

    def bare(verdict: str, *why: str) -> Judged:
        share, dim = (planned.share, planned.dim) if planned else (False, SCALAR)
        return Judged(requirement, verdict, None, None, None, None, dim, share, planned, why)

    if not seen and not missing:
        return bare(OF_THE_PLAN)
    if missing:
        return bare(NOT_MEASURED, *(f"`{name}`{_because(meant(name, serves))}" for name in missing))
    open_ = [name for name in seen if not figures[name].is_exact]
    if len(open_) > MOST_OPEN:
        return bare(UNDECIDED, f"{len(open_)} of its figures are known between bounds alone")
    at = _compared(test, {name: figures[name].value for name in seen}, given)
    if at is None:
        return bare(NOT_MEASURED, "it cannot be computed from what was measured")
    left, right, passed = at
    verdicts, lefts, sides = [passed], [left.value], [_side(left, right)]
    for ends in product(*((figures[name].low, figures[name].high) for name in open_)):
        values = {name: figures[name].value for name in seen} | dict(zip(open_, ends, strict=True))
        corner = _compared(test, values, given)
        if corner is None:  # beyond the last bucket
            corner = _compared(test, {k: min(v, 1e300) for k, v in values.items()}, given)
        if corner is not None:
            verdicts.append(corner[2])
            lefts.append(corner[0].value)
            sides.append(_side(corner[0], corner[1]))
    crossing = test.op in ("~", "==") and len(set(sides)) > 1 and open_
    verdict = UNDECIDED if len(set(verdicts)) > 1 or crossing else MET if passed else FAILED
    why = [f"`{name}` is between {_shown(name, figures[name])}" for name in open_] if verdict == UNDECIDED else []
    why += [f"`{name}`: {figures[name].note}" for name in seen if figures[name].note]
    dim = left.dim if left.dim != SCALAR else right.dim
    share = dim == SCALAR and is_share(test)
    return Judged(
        requirement, verdict, left.value, right.value, min(lefts), max(lefts), dim, share, planned, tuple(why)
    )


def _shown(name: str, figure: Figure) -> str:
    known = metric(name)
    of = known.shown if known else str
    return f"{of(figure.low)} and {of(figure.high)}" if figure.high < float("inf") else f"{of(figure.low)} and anything"


def _side(left: Quantity, right: Quantity) -> int:
    return (left.value > right.value) - (left.value < right.value)


def _is_call(name: str) -> bool:
    """Does the name mean a GPU id: `decode.gpu(dp = 1)`?"""
    return name.endswith(".gpu")


def _because(known: Metric | None) -> str:
    """What would measure it, where that is not plain."""
    if known is None:
        return " was not compiled"
    found = BECAUSE.get((known.owner, known.name), BECAUSE.get((known.owner, known.name.partition(".")[0])))
    return found or (" is of the phase alone, which these files do not show" if known.owner == PHASE else "")


BECAUSE = {
    ("PHASE", "tpot"): ": times of requests, in metrics of the server or a client's results",
    ("PHASE", "ttft"): " is of one whole batch: what requests see is `ttft` of a serving",
    ("SERVE", "throughput"): ": two scrapes, before and after the run, and `--window` seconds between them",
    ("SERVE", "rate"): ": two scrapes, before and after the run, and `--window` seconds between them",
    ("SERVE", "prompt_throughput"): ": two scrapes, before and after the run, and `--window` seconds between them",
    **dict.fromkeys(
        (("SERVE", "ttft"), ("SERVE", "e2e")),
        ": metrics of the server; of prefill and decode apart, a client's results or a frontend's metrics",
    ),
    **dict.fromkeys(
        (("SERVE", "goodput"), ("SERVE", "met")), ": requests one by one, with all times that have a limit"
    ),
    ("SERVE", "kv_fill"): ": three scrapes or more while requests come",
    (
        "SERVE",
        "utilization",
    ): ": nvidia-smi --query-gpu=timestamp,index,utilization.gpu --format=csv -l 1, or dcgm-exporter",
    (
        "SERVE",
        "gpu_imbalance",
    ): ": nvidia-smi --query-gpu=timestamp,index,utilization.gpu --format=csv -l 1, or dcgm-exporter",
    ("PHASE", "imbalance"): ": the engine's own balance of experts, in its log or metrics",
    ("hardware", "memory"): ": nvidia-smi --query-gpu=index,memory.used,memory.total --format=csv, or dcgm-exporter",
    ("SERVE", "imbalance"): ": metrics of two or more data-parallel ranks, before and after the run",
    ("PHASE", "memory.peak"): ": memory.used of nvidia-smi, or dcgm-exporter",
    ("PHASE", "memory.fraction"): ": memory.used of nvidia-smi, or dcgm-exporter",
    ("PHASE", "memory"): ": the engine's log, or a snapshot of torch's allocator",
}


def _compared(
    test: ast.Comparison, values: Mapping[str, float], given: Mapping[str, Quantity]
) -> tuple[Quantity, Quantity, bool] | None:
    def at(node: ast.Name | ast.CallExpr) -> AttrValue | None:
        if isinstance(node, ast.CallExpr):
            return None
        if node.text in values:
            known = metric(node.text)
            return Quantity(values[node.text], known.dim if known else SCALAR)
        return given.get(node.text)

    return compare(test, at, Collector())
