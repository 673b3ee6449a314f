"""Servings of a model, a GPU or an engine that no fitted constant saw, and the choice of layouts among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import host, ranking
from .servings import Case, Outcome
from .statistics import error_table

LEFT_OUT: dict[str, Callable[[Case], str]] = {
    "GPU": lambda c: c.serving.where[0],
    "model": lambda c: c.serving.where[1],
    "engine": lambda c: c.serving.where[2],
}


@dataclass(frozen=True, slots=True)
class Unseen:
    """`ratios` by figure, what was left out, and engine; series of layouts with a choice and without one, models left out."""

    ratios: Mapping[str, Sequence[float]]
    ranked: Sequence[ranking.Ranked] = ()
    unsaid: Sequence[ranking.Series] = ()


def of(cases: Sequence[Case], engines: Sequence[str], series: Sequence[ranking.Series]) -> Unseen:
    """Each group left out in turn; then the choice of layouts with the model left out."""
    groups: dict[str, list[float]] = {}
    by_model: list[Outcome] = []
    for what, group in LEFT_OUT.items():
        outs = host.left_out([c for c in cases if not c.serving.static_batch], engines, group)
        by_model = outs if what == "model" else by_model
        for o in outs:
            if o.case.without_doubt and o.serving.metric in ("tpot", "ttft"):
                for engine in ("all", o.serving.where[2]):
                    groups.setdefault(name_of(o.serving.metric, what, engine), []).append(o.ratio)
    return Unseen(groups, *ranking.rank(series, by_model)) if series else Unseen(groups)


def name_of(metric: str, what: str, engine: str) -> str:
    """A row's name."""
    return f"{metric.upper()}, without the {what}, {engine}"


def section(found: Unseen) -> str:
    """Errors by engine, and the layouts."""
    parts = [error_table("figure, left out, engine", found.ratios)]
    if found.ranked or found.unsaid:
        parts += ["### Choice of layouts", ranking.section(found.ranked, found.unsaid)]
        parts.append(ranking.details(found.ranked, found.unsaid))
    return "\n\n".join(parts)
