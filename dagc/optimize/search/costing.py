"""costing: what a search asks of a phase by its kind: who judges its plans, and what bounds learn from one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ...base.diagnostics import Collector
from ...base.frozen import record, replace
from ...lang.open_spec import OpenSpec
from ...pipeline.estimates import Estimate
from ...plan.result import PhaseResult
from ...spec.phase import Phase
from ...spec.unit import Unit
from .bound_pieces import Learnt, pieces_of
from .exact import Allowed, Costed, Judge, Plan
from .glance import glanced, own_ops
from .step_judge import StepEstimate, StepJudge
from .step_pieces import StepLearnt, step_pieces

Told = Learnt | StepLearnt
"""What bounds learn from a plan."""


@record
class Costing:
    """`glance`: what bounds learn from a plan before all of it is compiled; None where it is not legal. `seen`: a plan costed, with what they
    learn from it. `packed`, `unpacked`: a plan's figures on their way between processes, without the spec."""

    judge: type[Judge]
    glance: Callable[[Any, Phase], Told | None]
    seen: Callable[[Any, Phase], tuple[Plan, Told | None]]
    packed: Callable[[Any], tuple[Any, ...]]
    unpacked: Callable[[Unit, tuple[Any, ...]], Costed]


def _seen(judge: Judge, phase: Phase) -> tuple[Plan, Told | None]:
    learnt: list[Learnt] = []
    own = own_ops(judge, Unit(judge.spec, phase, Collector()))
    plan = judge.plan(phase, lambda graph, costs: learnt.append(pieces_of(graph, costs, own)))
    return plan, learnt[0] if learnt else None


def _step_seen(judge: StepJudge, phase: Phase) -> tuple[Plan, Told | None]:
    return judge.plan(phase), step_pieces(judge, phase)  # whose cells are kept by now


SERVED = Costing(
    Judge,
    glanced,
    _seen,
    lambda found: (found.time_s, found.throughput_tok_s, found.tokens_per_step, found.memory),
    lambda unit, figures: Estimate(unit, *figures),
)
TRAINED = Costing(
    StepJudge,
    step_pieces,
    _step_seen,
    lambda found: (found.figures, found.capacity_B, found.slow_B),
    lambda unit, figures: StepEstimate(unit, *figures),
)


def costing(phase: Phase) -> Costing:
    return SERVED if phase.training is None else TRAINED


def judge_of(
    spec: OpenSpec,
    name: str,
    others: Mapping[str, PhaseResult],
    alone: Collection[str],
    allowed: Allowed | None = None,
) -> Judge:
    """Of a phase of an open spec. `alone`: the phases that are there at all. Phases that are open too are no neighbours: what they will
    be is not known."""
    whole = spec.spec
    own = replace(whole, phases=tuple(p for p in whole.phases if p.name in alone))
    unknown = frozenset(p.name for p in whole.phases) - {name, *others}
    kind = costing(whole.phase(name)).judge
    if kind is Judge:
        return Judge(own, name, others, unknown=unknown, allowed=allowed)
    trained = frozenset(p.name for p in whole.trainings if p.name != name and not spec.of(p.name))
    return StepJudge(own, name, others, unknown=unknown, allowed=allowed, trained=trained)
