"""Servings of a model, a GPU or an engine that no fitted constant saw, and the choice of layouts among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import host, prose, ranking
from .host import Linear
from .run_degrees import Twins
from .runs import Runs
from .servings import Case, Outcome, outcomes, requests
from .statistics import error_table

LEFT_OUT: dict[str, Callable[[Case], str]] = {
    "GPU": lambda c: c.serving.where[0],
    "model": lambda c: c.serving.where[1],
    "engine": lambda c: c.serving.where[2],
}


@dataclass(frozen=True, slots=True)
class Unseen:
    """`ratios` by figure, what was left out, and engine; series of layouts with a choice and without one, models left out: as the
    rows label them, and as they ran."""

    ratios: Mapping[str, Sequence[float]]
    ranked: Sequence[ranking.Ranked] = ()
    unsaid: Sequence[ranking.Series] = ()
    ranked_as_run: Sequence[ranking.Ranked] = ()
    unsaid_as_run: Sequence[ranking.Series] = ()


def of(
    rows: Sequence[Linear],
    doubtful: Sequence[Case],
    engines: Sequence[str],
    series: tuple[Sequence[ranking.Series], Sequence[ranking.Series]],
    runs: Runs,
) -> Unseen:
    """Each group left out in turn; then the choice of layouts with the model left out. `doubtful`: cases that no constant is fitted on,
    simulated for the choice alone. `series`: as labelled, and as run."""
    groups: dict[str, list[float]] = {}
    by_model: list[Outcome] = []
    for what, group in LEFT_OUT.items():
        outs = host.left_out(rows, engines, group)
        by_model = outs if what == "model" else by_model
        for metric, o, ratio in figures(outs):
            for engine in ("all", o.serving.where[2]):
                groups.setdefault(name_of(metric, what, engine), []).append(ratio)
    labelled, as_run = series
    if not labelled:
        return Unseen(groups)
    constants = host.without(rows, engines, LEFT_OUT["model"])
    every = host.rounded(host.fit(rows, engines))
    for model in sorted({LEFT_OUT["model"](c) for c in doubtful}):
        chosen = [c for c in doubtful if LEFT_OUT["model"](c) == model and c.serving.metric == "tpot"]
        by_model += outcomes(chosen, constants.get(model, every), runs)
    return Unseen(groups, *ranking.rank(labelled, by_model), *ranking.rank(as_run, by_model))


def figures(found: Sequence[Outcome]) -> list[tuple[str, Outcome, float]]:
    """(figure, outcome, estimate / measured): TPOT and TTFT of every row, and E2E of rows with both."""
    own = [(o.serving.metric, o, o.ratio) for o in found if o.serving.metric in ("tpot", "ttft")]
    return [*own, *(("e2e", o, ratio) for o, ratio in requests(found))]


def interpolated(found: Sequence[Outcome], metric: str) -> list[float]:
    """Ratios of rows of the half that nothing was fitted on, whose model, GPU and engine are in the other half."""
    sure = [o for o in found if o.case.without_doubt and not o.serving.saturated and not o.serving.static_batch]
    fitted = {o.serving.where for o in sure if o.half == "tune"}
    return [r for m, o, r in figures(sure) if m == metric and o.half == "check" and o.serving.where in fitted]


def name_of(metric: str, what: str, engine: str) -> str:
    """A row's name."""
    return f"{metric.upper()}, without the {what}, {engine}"


def section(found: Unseen, listed: Twins) -> str:
    """Errors by engine, and the layouts."""
    parts = [error_table("figure, left out, engine", found.ratios)]
    if found.ranked or found.unsaid:
        parts += ["### Choice of layouts", prose.LABELS.format(rows=listed.rows, twice=listed.twice)]
        parts += [ranking.section(found.ranked, found.unsaid), ranking.details(found.ranked, found.unsaid)]
    if found.ranked_as_run or found.unsaid_as_run:
        parts += ["### Choice of layouts as they ran", prose.AS_RUN]
        parts.append(ranking.section(found.ranked_as_run, found.unsaid_as_run))
        parts.append(ranking.details(found.ranked_as_run, found.unsaid_as_run))
    return "\n\n".join(parts)
