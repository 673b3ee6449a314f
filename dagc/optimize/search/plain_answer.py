"""plain_answer: an answer in plain values, for reports, pictures and files."""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf

from ...base.units import BYTES, SCALAR
from ...calib.accuracy import PRICED, kernels_of, phase_errors
from ...plan.searched import Error, Findings, Measure, PhasePlan, PlanFound, Refusal, Space
from .answer import Answer, Ranked, Searched
from .exact import Plan
from .objectives import TIMES, Objective
from .space import Rejected, Word


def word(value: Word | range) -> str:
    """A value as a spec writes it."""
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def words(values: Mapping[str, Word | range]) -> dict[str, str]:
    return {path: word(value) for path, value in values.items()}


def findings(answer: Answer, spec: str) -> Findings:
    """`spec`: what people call it."""
    errors = _errors(answer.best, served=any(o.phase not in (*answer.searched, "all") for o in answer.objectives))
    return Findings(
        spec,
        tuple(Measure(o.name, o.phase, o.better, o.dim) for o in answer.objectives),
        _plans(answer, max((one.median for one in errors), default=0.0)),
        tuple(_space(name, one) for name, one in answer.searched.items()),
        answer.complete,
        finite(answer.gap),
        answer.seconds,
        answer.interrupted,
        None if answer.joined is None else (answer.joined.tried, answer.joined.refused),
        errors,
    )


def phase_plan(name: str, values: Mapping[str, Word | range], plan: Plan) -> PhasePlan:
    estimate, phase = plan.the_estimate, plan.phase
    return PhasePlan(
        name, words(values), estimate.gpus, phase.sequences, float(estimate.time_s), TIMES[phase.kind],
        float(estimate.throughput_tok_s), float(estimate.peak_B), float(estimate.memory.capacity_B),
    )  # fmt: skip


def _plans(answer: Answer, error: float) -> tuple[PlanFound, ...]:
    """Of a front, none is behind another."""
    out = []
    for one in answer.ranked:
        phases = tuple(phase_plan(name, one.values.get(name, {}), plan) for name, plan in one.plans.items())
        servings = {name: words(values) for name, values in one.values.items() if name not in one.plans}
        lost = behind(answer.objectives[0], one, answer.ranked[0]) if len(answer.ranked) else 0.0
        equal = bool(error) and _judged_by_time(answer.objectives[0]) and lost <= error
        out.append(
            PlanFound(one.figures, phases, one.gpus, one.slow_B, lost, equal, dict(one.picked), servings, one.text)
        )
    return tuple(out)


def behind(objective: Objective, one: Ranked, best: Ranked) -> float:
    """Share by which a plan is worse than the best, in the first objective."""
    return gain(objective, one.figures[0], best.figures[0])


def gain(objective: Objective | Measure, before: float, after: float) -> float:
    """By how much a figure gets better, as a share: of a time by how much more work fits into it."""
    if before == after:
        return 0.0
    if objective.better == "higher":
        return after / before - 1 if before else float("inf")
    return before / after - 1 if after else float("inf")


def _judged_by_time(objective: Objective) -> bool:
    """Whether a figure follows from an estimated time, so that it has its error."""
    return objective.dim not in (SCALAR, BYTES)


def _errors(best: Ranked | None, *, served: bool) -> tuple[Error, ...]:
    """Of the phases of the best plan, where such phases were measured. Figures of servings have errors of their own."""
    out: list[Error] = []
    for name, plan in (best.plans if best is not None and not served else {}).items():
        result = plan.the_estimate.result
        kernels = kernels_of(result.measured[0], result.substituted)
        known = phase_errors(kernels).get(result.phase_kind.name)
        if known is not None:
            out.append(Error(name, known.median, known.cases, PRICED[kernels]))
    return tuple(out)


def finite(gap: float | None) -> float | None:
    return None if gap is None or isinf(gap) else gap


def _space(name: str, one: Searched) -> Space:
    own = one.certificate
    return Space(
        name, own.size, tuple(map(_refusal, own.rejected)), own.equal, own.costed, own.compiled, own.bounded, own.left, finite(own.gap),
        own.complete, tuple(phase_plan(one.name, found.values, found.plan) for found in one.outcome.found),
        {d.path: len(d.values) for d in one.domains}, tuple((near.rule, near.words, words(near.values)) for near in one.near),
    )  # fmt: skip


def _refusal(one: Rejected) -> Refusal:
    """The example in the choices that the rule asks; where it asks none that are open, in all."""
    asked = {path: value for path, value in one.example.items() if path in one.asks}
    return Refusal(one.rule, one.about, one.code, one.count, words(asked or one.example), bool(one.asks))
