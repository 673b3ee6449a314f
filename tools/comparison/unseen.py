"""Servings of a model, a GPU or an engine that no fitted constant saw, and the choice of layouts among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import host, ranking
from .servings import Case, Outcome
from .statistics import error_table

LEFT_OUT: dict[str, Callable[[Case], str]] = {
    "GPU": lambda c: c.serving.where[0],
    "model": lambda c: c.serving.where[1],
    "engine": lambda c: c.serving.where[2],
}


def section(cases: Sequence[Case], engines: Sequence[str], series: Sequence[ranking.Series]) -> str:
    """Errors with each group left out in turn, by engine; then the choice of layouts with the model left out."""
    groups: dict[str, list[float]] = {}
    by_model: list[Outcome] = []
    for what, group in LEFT_OUT.items():
        outs = host.left_out([c for c in cases if not c.serving.static_batch], engines, group)
        by_model = outs if what == "model" else by_model
        for o in outs:
            if o.case.without_doubt and o.serving.metric in ("tpot", "ttft"):
                figure = o.serving.metric.upper()
                groups.setdefault(f"{figure}, without the {what}, all", []).append(o.ratio)
                groups.setdefault(f"{figure}, without the {what}, {o.serving.where[2]}", []).append(o.ratio)
    parts = [error_table("figure, left out, engine", groups)]
    if series:
        ranked, unsaid = ranking.rank(series, by_model)
        parts += ["### Choice of layouts", ranking.section(ranked, unsaid), ranking.details(ranked, unsaid)]
    return "\n\n".join(parts)
