"""What was to be reached, and what is: the first table of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from . import kernel_page, ranking, unseen
from .servings import Outcome
from .statistics import Errors, table

TPOT = {"all": (0.09, 0.13), "trtllm": (0.08, None)}
"""Engine -> median and mean of TPOT, the model left out."""
RIGHT = {"all series": 34, "models that cannot speculate": 9}
REGRET = 0.03
RECORD = 0.10
"""Of rates of one phase whose record is complete (`high`)."""
Row = tuple[str, str, str, str]


def section(found: unseen.Unseen, outcomes: Sequence[Outcome], parts: Sequence[kernel_page.Part]) -> str:
    """Figure, goal, reached, and whether it is."""
    body = [*_kernels(parts), *_tpot(found), *_layouts(found.ranked, found.unsaid), *_records(outcomes)]
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


def _layouts(ranked: Sequence[ranking.Ranked], unsaid: Sequence[ranking.Series]) -> Iterator[Row]:
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


def _records(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    for o in outcomes:
        if o.serving.metric in ("input_rate", "decode_rate") and o.serving.confidence == "high":
            yield _row(f"{o.serving.id}, rate", abs(o.predicted.value / o.serving.value - 1), RECORD)
