"""plain_answer: an answer in plain values, for reports, pictures and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf

from ...base.units import BYTES, SCALAR
from ...calib.accuracy import PRICED, kernels_of, phase_errors
from ...plan.searched import Error, Findings, Joined, Measure, PhasePlan, PlanFound, Refusal, Space
from .answer import Answer, Searched
from .answer import Joined as AnswerJoined
from .exact import Plan
from .objectives import TIMES, TOGETHER, Objective
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
    errors = _errors(answer)
    return Findings(
        spec,
        tuple(Measure(o.name, o.phase, o.better, o.dim) for o in answer.objectives),
        _plans(answer, errors),
        tuple(_space(name, one) for name, one in answer.searched.items()),
        answer.complete,
        finite(answer.gap),
        answer.seconds,
        answer.interrupted,
        None if answer.joined is None else _joined(answer.joined),
        errors,
        front=answer.front,
    )


def phase_plan(name: str, values: Mapping[str, Word | range], plan: Plan) -> PhasePlan:
    estimate, phase = plan.costed, plan.phase
    return PhasePlan(
        name, words(values), estimate.gpus, phase.sequences, float(estimate.time_s), TIMES[phase.kind],
        float(estimate.throughput_tok_s), float(estimate.peak_B), float(estimate.capacity_B), None if phase.training is None else float(estimate.mfu),
    )  # fmt: skip


def _plans(answer: Answer, errors: Sequence[Error]) -> tuple[PlanFound, ...]:
    """Of a front, none is behind another."""
    out = []
    for one in answer.ranked:
        phases = tuple(phase_plan(name, one.values.get(name, {}), plan) for name, plan in one.plans.items())
        servings = {name: words(values) for name, values in one.values.items() if name not in one.plans}
        best = answer.ranked[0]
        lost = gain(answer.objectives[0], one.figures[0], best.figures[0])
        equal = all(
            _within(o, was, now, errors)
            for o, was, now in zip(answer.objectives, one.figures, best.figures, strict=True)
        )
        out.append(
            PlanFound(one.figures, phases, one.gpus, one.slow_B, lost, equal, dict(one.picked), servings, one.text)
        )
    return tuple(out)


def _within(objective: Objective, was: float, now: float, errors: Sequence[Error]) -> bool:
    """Whether two figures differ by less than what is known of the error of the time that they follow from."""
    known = max((e.median for e in errors if objective.phase in (e.phase, TOGETHER)), default=0.0)
    if not known or objective.dim in (SCALAR, BYTES):
        return was == now
    return max(gain(objective, was, now), gain(objective, now, was)) <= known


def gain(objective: Objective, before: float, after: float) -> float:
    """By how much a figure gets better, as a share: of a time by how much more work fits into it."""
    if before == after:
        return 0.0
    if objective.better == "higher":
        return after / before - 1 if before else float("inf")
    return before / after - 1 if after else float("inf")


def _errors(answer: Answer) -> tuple[Error, ...]:
    """Of the phases of the best plan, where such phases were measured; of prefill and decode together, of that which limits. Figures of
    servings have errors of their own."""
    best, owners = answer.best, {o.phase for o in answer.objectives}
    if answer.errors:
        return answer.errors
    if best is None or not owners <= {*best.plans, TOGETHER}:
        return ()
    plans = dict(best.plans)
    if TOGETHER in owners:
        limit = min(plans, key=lambda name: _requests(plans[name]))
        plans = {limit: plans[limit]}
    found = ((name, _error(name, plan)) for name, plan in plans.items() if {name, TOGETHER} & owners)
    return tuple(one for _, one in found if one is not None)


def _requests(plan: Plan) -> float:
    """Requests a second that a phase keeps up with."""
    estimate, phase = plan.the_estimate, plan.phase
    tokens = phase.new_tokens if phase.takes_prompts else estimate.unit.spec.workload.output
    return float(estimate.throughput_tok_s) / tokens


def _error(name: str, plan: Plan) -> Error | None:
    if plan.phase.training is not None:
        return None  # their times are not measured
    result = plan.the_estimate.result
    kernels = kernels_of(result.measured[0], result.substituted)
    known = phase_errors(kernels).get(result.phase_kind.name)
    return None if known is None else Error(name, known.median, known.cases, PRICED[kernels])


def finite(gap: float | None) -> float | None:
    return None if gap is None or isinf(gap) else gap


def _space(name: str, one: Searched) -> Space:
    own = one.certificate
    return Space(
        name, own.size, tuple(map(_refusal, own.rejected)), own.equal, own.costed, own.compiled, own.bounded, own.left, finite(own.gap),
        own.complete, tuple(phase_plan(one.name, found.values, found.plan) for found in one.outcome.found),
        {d.path: len(d.values) for d in one.domains}, tuple((near.rule, near.words, words(near.values)) for near in one.near),
    )  # fmt: skip


def _joined(one: AnswerJoined) -> Joined:
    near = tuple((near.rule, near.words, words(near.values)) for near in one.near)
    return Joined(one.tried, one.refused, one.left, dict(one.reasons), near)


def _refusal(one: Rejected) -> Refusal:
    """The example in the choices that the rule asks; where it asks none that are open, in all."""
    asked = {path: value for path, value in one.example.items() if path in one.asks}
    return Refusal(one.rule, one.about, one.code, one.count, words(asked or one.example), bool(one.asks))
