"""Figures of a compiled plan by their names in requirements, as people read them."""

from __future__ import annotations

from ..base.frozen import replace
from ..base.units import BYTES, parameters, show
from ..plan.plan import CompiledPlan
from ..plan.subject import Subject
from ..spec.metrics.known_metrics import TABLE
from ..spec.metrics.metric import HARDWARE, MODEL, PHASE, SERVE, TRAIN, WORKLOAD
from .checked import PhaseFacts


def phase_facts(plan: CompiledPlan, name: str, facts: PhaseFacts) -> PhaseFacts:
    """Of a phase, with its figures."""
    if name in plan.trainings:
        return _training_facts(plan, name, facts)
    if name not in plan.phases:
        return facts
    figures = _of(PHASE, plan.subject(name))
    result = plan.phases[name]
    time = result.phase_kind.metric
    # Beside the capacity stands all that a GPU holds, other phases' part with it.
    memory = f"{figures['memory.peak']} of {show(plan.subject(name).memory.capacity_B, BYTES)} per GPU"
    return replace(facts, cost=f"{time} {figures.get(time, '')}, {memory}", figures=figures)


def _training_facts(plan: CompiledPlan, name: str, facts: PhaseFacts) -> PhaseFacts:
    figures, worst = _of(TRAIN, plan.subject(name)), plan.trainings[name].worst
    memory = f"{show(worst.peak_B, BYTES)} of {show(worst.capacity_B, BYTES)} per GPU"
    cost = f"step_time {figures['step_time']}, mfu {figures['mfu']}, {memory}"
    return replace(facts, cost=cost, figures=figures)


def figures_of(plan: CompiledPlan) -> dict[str, str]:
    """Of servings, pools, the model and the workload, under their full names."""
    found: dict[str, str] = {}
    for serving in plan.servings:
        found |= {f"{serving}.{name}": text for name, text in _of(SERVE, plan.subject(serving)).items()}
    several = len(plan.spec.pools) > 1
    for pool in plan.spec.pools:
        owner = pool if several else HARDWARE
        found |= {f"{owner}.{name}": text for name, text in _of(HARDWARE, plan.subject(pool)).items()}
    for owner in (MODEL, WORKLOAD):
        found |= {f"{owner}.{name}": text for name, text in _of(owner, plan.subject()).items()}
    return found


def params_of(plan: CompiledPlan) -> str:
    """`235.1B parameters, 22.2B active`."""
    total, active = plan.params
    return f"{parameters(total)} parameters" + (f", {parameters(active)} active" if active < total else "")


def _of(owner: str, subject: Subject) -> dict[str, str]:
    values = ((m, m.how(subject)) for m in TABLE if m.owner == owner)
    return {metric.name: metric.shown(value) for metric, value in values if value is not None}
