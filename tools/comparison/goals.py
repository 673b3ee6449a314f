"""What was to be reached, and what is: the first table of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from . import kernel_page, ranking, unseen
from .open_page import ABOVE, Simulated
from .servings import Outcome
from .statistics import Errors, table

TPOT = {"all": (0.09, 0.13), "trtllm": (0.08, None)}
"""Engine -> median and mean of TPOT, the model left out."""
SIMULATED = {"e2e": (0.08, None), "ttft": (0.22, None)}
"""Figure -> median and mean, the model left out."""
TUNED = {"tpot": (0.09, None), "e2e": (0.08, None), "ttft": (0.18, 0.30)}
"""The same of rows whose deployment was not in the fit, though its model, GPU and engine were."""
SATURATED = 0.10
"""Median of finite saturated runs."""
INSIDE = 0.80
"""Share of MLPerf's runs inside their limits at their own rate."""
RIGHT = {"all series": 34, "models that cannot speculate": 9}
REGRET = 0.03
RECORD = 0.10
"""Of rates of one phase whose record is complete (`high`)."""
Row = tuple[str, str, str, str]


def section(
    found: unseen.Unseen, outcomes: Sequence[Outcome], offered: Sequence[Simulated], parts: Sequence[kernel_page.Part]
) -> str:
    """Figure, goal, reached, and whether it is."""
    body = [
        *_kernels(parts), *_tpot(found), *_simulated(found, outcomes), *_layouts(found), *_records(outcomes), *_offered(offered),
    ]  # fmt: skip
    return table(("figure", "goal", "reached", "met"), body)


def _row(name: str, reached: float, most: float) -> Row:
    return name, f"<= {most:.0%}", f"{reached:.1%}", "yes" if reached <= most else "no"


def _kernels(parts: Sequence[kernel_page.Part]) -> Iterator[Row]:
    """The middle part of each engine, by rows."""
    for engine in sorted({part.engine for part in parts} - {"common"}):
        each = [part for part in parts if part.engine == engine]
        shapes = [(part.unseen, part.rows) for part in each if part.unseen is not None]
        for name, values, most in (
            ("median", [(p.median, p.rows) for p in each], kernel_page.MEDIAN),
            ("p90", [(p.p90, p.rows) for p in each], kernel_page.P90),
            ("median of unseen shapes", shapes, kernel_page.UNSEEN),
        ):
            if values:
                yield _row(f"kernels of {engine}, {name}", kernel_page.middle(values), most)


def _tpot(found: unseen.Unseen) -> Iterator[Row]:
    for engine, (median, mean) in TPOT.items():
        errors = Errors.of(found.ratios.get(unseen.name_of("tpot", "model", engine), ()))
        if errors is None:
            continue
        yield _row(f"TPOT without the model, {engine}, median", errors.median, median)
        if mean is not None:
            yield _row(f"TPOT without the model, {engine}, mean", errors.mean, mean)


def _simulated(found: unseen.Unseen, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Figures of simulated servings."""
    for metric, goal in SIMULATED.items():
        name = f"{metric.upper()} without the model, all"
        yield from _errors(name, found.ratios.get(unseen.name_of(metric, "model", "all"), ()), goal)
    for metric, goal in TUNED.items():
        name = f"{metric.upper()} where model, GPU and engine were fitted on"
        yield from _errors(name, unseen.interpolated(outcomes, metric), goal)
    rates = [o.ratio for o in outcomes if o.serving.saturated]
    yield from _errors("throughput of finite saturated runs", rates, (SATURATED, None))


def _errors(name: str, ratios: Sequence[float], goal: tuple[float, float | None]) -> Iterator[Row]:
    errors = Errors.of(ratios)
    if errors is None:
        return
    median, mean = goal
    yield _row(f"{name}, median", errors.median, median)
    if mean is not None:
        yield _row(f"{name}, mean", errors.mean, mean)


def _layouts(found: unseen.Unseen) -> Iterator[Row]:
    ranked, unsaid = found.ranked, found.unsaid
    for name, least in RIGHT.items():
        every = name == "all series"
        chosen = [r for r in ranked if every or not r.series.drafts]
        n = len(chosen) + sum(every or not s.drafts for s in unsaid)
        if not n:
            continue
        right = sum(r.right for r in chosen)
        low, high = ranking.wilson(right, n)
        reached = f"{right} of {n} (95 % interval {low:.0%} to {high:.0%})"
        yield f"best layout found, {name}", f">= {least}", reached, "yes" if right >= least else "no"
    if ranked:
        regret = [r.regret for r in ranked]
        low, high = ranking.bootstrap(regret)
        name, goal, mean, met = _row("mean regret of the layout chosen", fmean(regret), REGRET)
        yield name, goal, f"{mean} (95 % interval {low:.1%} to {high:.1%})", met
    equal = [r for r in ranked if ranking.OTHER_GPUS not in r.series.doubts]
    if len(equal) < len(ranked):
        n = len(equal) + sum(ranking.OTHER_GPUS not in s.doubts for s in unsaid)
        yield "the same, as many GPUs in truth", "printed", _share(equal, n), ""
    if found.ranked_as_run:
        n = len(found.ranked_as_run) + len(found.unsaid_as_run)
        yield "best layout found, layouts as they ran, one version", "printed", _share(found.ranked_as_run, n), ""


def _share(ranked: Sequence[ranking.Ranked], n: int) -> str:
    """How many are right, and the mean regret."""
    return f"{sum(r.right for r in ranked)} of {n}, regret {fmean(r.regret for r in ranked):.1%}"


def _records(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    for o in outcomes:
        if o.serving.metric in ("input_rate", "decode_rate") and o.serving.confidence == "high":
            yield _row(f"{o.serving.id}, rate", abs(o.value / o.serving.value - 1), RECORD)


def _offered(found: Sequence[Simulated]) -> Iterator[Row]:
    """Runs with limits, and runs that fell behind."""
    limited = [one for one in found if one.offered.limits_s is not None]
    if limited:
        n, inside, breaks = len(limited), sum(one.inside for one in limited), sum(one.breaks for one in limited)
        met = "yes" if inside >= INSIDE * n else "no"
        yield (
            "MLPerf Server inside its limits at its own rate",
            f">= {INSIDE:.0%}",
            f"{inside} of {n} ({inside / n:.0%})",
            met,
        )
        yield (
            f"MLPerf Server outside them at {ABOVE:g} times the rate",
            "printed",
            f"{breaks} of {n} ({breaks / n:.0%})",
            "",
        )
    said = [one for one in found if one.offered.overloaded is not None and one.offered.limits_s is None]
    if said:
        right = sum(one.overloaded == one.offered.overloaded for one in said)
        n = len(said)
        yield (
            "runs at a rate called overloaded, or not, as they were",
            "all",
            f"{right} of {n}",
            "yes" if right == n else "no",
        )
