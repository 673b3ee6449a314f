"""The answer of a plan, which every output begins with: does it hold, what limits it, and its three figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...base.frozen import record
from ...base.syntax import ast
from ...base.units import BYTES, show
from ...lang.values.evaluate import names_in
from ...plan.plan import CompiledPlan
from ...plan.pools import Pool, heading, listed, text
from ...plan.require import Verdict, owners
from ...spec.metrics.known_metrics import of_phase, of_serving, of_training
from ...spec.metrics.metric import Metric

if TYPE_CHECKING:
    from ...plan.result import PhaseResult
    from ...plan.trained import TrainingResult

PASSED, FAILED, DOES_NOT_FIT = "passed", "FAILED", "DOES NOT FIT"
OF_A_SERVING = ("ttft.p99", "tpot.p99", "goodput")
"""The figures of what its users see."""
OF_A_PHASE = ("ttft", "tpot", "step_time", "throughput_per_gpu", "cost_per_token", "memory.fraction", "utilization")
"""In the order in which they are shown where the spec asks for none of them."""
OF_A_TRAINING = ("step_time", "throughput_per_gpu", "mfu", "bubble", "memory.fraction", "cost_per_token")
"""The same of a phase that trains."""
MOST = 3
NAMES = {"ttft": "TTFT", "tpot": "TPOT", "gpu": "GPU", "mfu": "MFU", "hfu": "HFU"}
"""Words of a metric's name that are written otherwise."""


@record
class Figure:
    """One of the three. `required`: what the spec asks of it (`<= 10 s`), nothing where it asks for nothing; `holds`: whether it has that."""

    name: str
    value: str
    required: str = ""
    holds: bool = True


@record
class Answer:
    """`verdict`: one line; `limits`: what limits the plan, a sentence each: the requirement or the memory, then what the time of a phase
    is spent on; `requirements`: those that fail first, the furthest from what is required before the others."""

    state: str
    verdict: str
    limits: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    requirements: tuple[Verdict, ...] = ()

    @property
    def failing(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.requirements if not v.passed)


def verdict(plan: CompiledPlan) -> str:
    """One line."""
    if plan.fits:
        return f"{state(plan)}: {plan.verdict}"
    worst = fullest(plan)
    names = worst.phases if isinstance(worst, Pool) else (worst.name,)
    need = worst if isinstance(worst, Pool) else worst.worst
    needs = f"{show(need.peak_B, BYTES)} of {show(need.capacity_B, BYTES)} per GPU, {show(need.peak_B - need.capacity_B, BYTES)} too much"
    return f"{DOES_NOT_FIT}: {listed(names)} need{'s' if len(names) == 1 else ''} {needs}"


def fullest(plan: CompiledPlan) -> Pool | TrainingResult:
    """The GPUs that hold most of what they may, or the phase that trains whose GPUs do."""
    every: list[Pool | TrainingResult] = [*plan.pools, *plan.trainings.values()]
    return max(every, key=lambda held: held.fraction)


def state(plan: CompiledPlan) -> str:
    return DOES_NOT_FIT if not plan.fits else PASSED if plan.passed else FAILED


def answer(plan: CompiledPlan) -> Answer:
    """Of a compiled plan."""
    return Answer(state(plan), verdict(plan), tuple(_limits(plan)), tuple(_figures(plan)), ordered(plan))


def ordered(plan: CompiledPlan) -> tuple[Verdict, ...]:
    """Its requirements: those that fail first, the furthest from what is required before the others."""
    return tuple(sorted(plan.requirements, key=lambda v: (v.passed, 0.0 if v.passed else -v.distance)))


# -- what limits it --------------------------------------------------------------------------------


def _limits(plan: CompiledPlan) -> Iterator[str]:
    binding = _binding(plan)
    phases = [*plan.phases, *plan.trainings]
    if not plan.fits:
        yield from (_too_much(plan),)
    elif binding is not None:
        yield requirement_text(binding)
        phases = [name for name in phases if name in _phases_of(plan, binding)] or phases
    for name in phases[:MOST]:
        yield _trained(plan.trainings[name]) if name in plan.trainings else resource_text(plan, plan.phases[name])


def _trained(result: TrainingResult) -> str:
    from .training_words import limit_text

    return f"{result.name}: {limit_text(result)}"


def _binding(plan: CompiledPlan) -> Verdict | None:
    """The limit that is missed by most; if all hold, the one with the least room. Where none is a limit, what is furthest from alike."""
    failing = [v for v in plan.requirements if not v.passed]
    limits = [v for v in failing or plan.requirements if v.is_limit]
    if failing:
        return max(limits or failing, key=lambda v: v.distance)
    return min(limits, key=lambda v: v.distance, default=None)


def _phases_of(plan: CompiledPlan, one: Verdict) -> set[str]:
    """Phases that a requirement is on, those of a serving included."""
    named = owners(one.requirement)
    for serve in plan.spec.serves:
        if serve.name in named:
            named |= {str(name) for name in (serve.prefill, serve.decode, serve.mixed) if name is not None}
    return named


def requirement_text(one: Verdict) -> str:
    """`least room: "first token", 9.2 s <= 10 s, 800 ms under (-8.0%)`"""
    what = "least room" if one.passed else "missed by most"
    by = f", {one.by}" if one.by else ""
    return f'{what}: "{one.requirement.label}", {one.sides}{by}'


def _too_much(plan: CompiledPlan) -> str:
    """`memory of stage 3 of prefill on 8 GPUs: +20.4%; weights 80 GB + ...`"""
    worst = fullest(plan)
    if not isinstance(worst, Pool):
        from .training_words import misfit_text

        return misfit_text(worst)
    return f"memory of {_stage(plan, worst.phases)}{heading(worst)} (+{worst.fraction - 1:.1%}): {text(worst)}"


def _stage(plan: CompiledPlan, phases: tuple[str, ...]) -> str:
    """`stage 3 of ` of a single phase that has several."""
    result = plan.phases[phases[0]]
    seats = result.seats
    return f"{seats[result.memory.worst.stage].name} of " if len(phases) == 1 and len(seats) > 1 else ""


def resource_text(plan: CompiledPlan, result: PhaseResult) -> str:
    """`decode: 87% of its time waits for memory bandwidth (97% of it attend); 1.44 times its floor`"""
    from .findings import waits_for

    (bound, share), *_ = [*result.bound_by.items(), ("", 0.0)]
    mine = [step for step in result.path if step.bound == bound]
    if not mine:
        return f"{result.name}: nothing takes time"
    kinds: dict[str, float] = {}
    for step in mine:
        kinds[step.kind] = kinds.get(step.kind, 0.0) + step.time_s
    kind, most_s = max(kinds.items(), key=lambda pair: pair[1])
    part = most_s / sum(kinds.values())
    led = "" if kind == bound else f" ({'all' if part > 0.995 else f'{part:.0%}'} of it {kind})"
    floor = f"; {result.time_s / result.floor_s:.3g} times its floor" if result.floor_s else ""
    return f"{result.name}: {share:.0%} of its time waits for {waits_for(bound)}{led}{floor}"


# -- three figures -----------------------------------------------------------------------------------


def _figures(plan: CompiledPlan) -> Iterator[Figure]:
    """Of the serving that users see, if one was simulated; else of the phases, what the spec asks for before all else."""
    if plan.servings:
        named = [name for v in plan.requirements for name in owners(v.requirement) if name in plan.servings]
        name = next(iter([*named, *plan.servings]))
        wanted = [(name, m) for key in OF_A_SERVING for m in of_serving() if m.name == key]
        several = len(plan.servings) > 1
    else:
        known = {m.name: m for m in of_phase()}
        generating = sorted(plan.phases.values(), key=lambda result: not result.graph.generates)
        asked = {node.text for v in plan.requirements for node in names_in(v.requirement.test)}
        wanted = [(result.name, known[key]) for key in OF_A_PHASE for result in generating]
        trained = {m.name: m for m in of_training()}
        wanted += [(name, trained[key]) for key in OF_A_TRAINING for name in plan.trainings]
        wanted.sort(key=lambda one: f"{one[0]}.{one[1].name}" not in asked)
        several = len(plan.phases) + len(plan.trainings) > 1
    found = (_figure(plan, owner, metric, several) for owner, metric in wanted)
    kept = [one for one in found if one is not None]
    yield from kept[:MOST]


def _figure(plan: CompiledPlan, owner: str, metric: Metric, several: bool) -> Figure | None:
    value = metric.how(plan.subject(owner))
    if value is None or value != value:
        return None
    own = [v for v in plan.requirements if _asks(v, f"{owner}.{metric.name}")]
    required = " and ".join(f"{v.requirement.test.op} {v.shown(v.bound)}" for v in own)
    name = f"{owner} {title(metric.name)}" if several else title(metric.name)
    return Figure(name, metric.shown(value), required, all(v.passed for v in own))


def _asks(one: Verdict, name: str) -> bool:
    """Whether a requirement compares this very metric with something."""
    left = one.requirement.test.left
    return isinstance(left, ast.Name) and left.text == name


def title(name: str) -> str:
    """A metric's name as a heading: `TTFT p99`, `throughput per GPU`."""
    return " ".join(NAMES.get(word, word) for word in name.replace("_", ".").split("."))
