"""step_judge: one plan of a training phase costed as `compile` does it, and judged: memory, requirements.

What a layout costs does not depend on the order of its cells, so schedules of one layout share its cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...base.diagnostics import Collector
from ...base.frozen import record
from ...base.pipeline_schedules import SCHEDULES
from ...cost.training import whole_sides
from ...pipeline.lower import unverified
from ...pipeline.place_best import best
from ...pipeline.step_cut import balanced_step
from ...pipeline.train import CostedCells, costed_cells, schedule_of, step_of, training_of, training_step
from ...plan.step_totals import busiest, step_collectives
from ...plan.subject import Subject, training_metrics
from ...plan.trained import TrainingResult
from ...spec.phase import Phase
from ...spec.spec import Spec
from ...spec.unit import Unit
from .exact import STEP_METRICS, Costed, Judge, Plan, Told, asks

MOST_KEPT = 32
"""Layouts whose cells are kept: a graph each."""


@record(slots=False)
class StepEstimate:
    """Figures of a training step. `figures`: its metrics by name, in SI units; `slow_B`: bytes that the busiest GPU of a pipeline sends over the
    outermost links in a step."""

    unit: Unit
    figures: Mapping[str, float]
    capacity_B: float
    slow_B: float

    @property
    def time_s(self) -> float:
        return self.figures["step_time"]

    @property
    def throughput_tok_s(self) -> float:
        return self.figures["throughput"]

    @property
    def gpus(self) -> int:
        return len(self.unit.phase.gpus)

    @property
    def peak_B(self) -> float:
        return self.figures["memory.peak"]

    @property
    def fits(self) -> bool:
        return self.figures["memory.fraction"] <= 1.0

    @property
    def mfu(self) -> float:
        return self.figures["mfu"]

    @cached_property
    def result(self) -> TrainingResult:
        """The step compiled. Costs as much as compiling it."""
        return training_step(Unit(self.unit.spec, self.unit.phase, Collector()))


@dataclass
class StepJudge(Judge):
    """Of a training phase. `others`: results of phases of inference; further training phases are compiled where a requirement asks them."""

    trained: frozenset[str] = frozenset()
    kept: OrderedDict[Hashable, tuple[Phase, CostedCells]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {self.name, *self.others, *self.trained}
        self.requirements = tuple(r for r in self.spec.requirements if asks(r, self.spec) <= known)

    def plan(self, phase: Phase, seen: Told | None = None) -> Plan:
        found = super().plan(phase, seen)
        if found.estimate is not None:
            vars(found.estimate).pop("result", None)  # a graph for each of many plans would fill the memory
        return found

    @cached_property
    def steps(self) -> Mapping[str, TrainingResult]:
        """Of further training phases that leave nothing open."""
        own = (p for p in self.spec.trainings if p.name in self.trained)
        return {
            p.name: training_step(Unit(self.spec, best(self.spec, balanced_step(self.spec, p)), Collector()))
            for p in own
        }

    def costed(self, phase: Phase, seen: Told | None = None) -> Costed:
        """Raises SpecError, VerifyError where the phase does not compile."""
        unit = Unit(self.spec, phase, Collector())
        schedule = schedule_of(unit, training_of(unit))
        result = step_of(unit, schedule, self.cells(phase))
        alone = Subject(self._spec(phase), {}, (0.0, 0.0), (), self.name, trainings={self.name: result})
        figures = {name: q.value for name, q in training_metrics(alone).items()}
        slowest = unit.spec.hardware.tiers[-1].name
        slow_B = sum(call.total.level_B.get(slowest, 0.0) for call in step_collectives(result, busiest(result)))
        found = StepEstimate(unit, figures, result.worst.capacity_B, slow_B)
        vars(found)["result"] = result  # for requirements
        return found

    def cells(self, phase: Phase) -> CostedCells:
        """Of the layout of a phase. Raises SpecError."""
        assert phase.training is not None
        ends = "V" if SCHEDULES[phase.training.schedule].ends_meet else ""  # which a table of both ends depends on
        plain = replace(
            phase, training=replace(phase.training, schedule=ends, virtual=0, overlap="", exchange_overlap=""), spans={}
        )
        key = plain.strategy, plain.training, plain.gpus, plain.sequences, plain.hardware, plain.precision
        known = self.kept.get(key)
        if known is not None and known[0] == plain:
            self.kept.move_to_end(key)
            return known[1]
        unit = Unit(self.spec, phase, Collector())
        found = costed_cells(unit, whole_sides.checked(unverified(unit), unit))
        self.kept[key] = plain, found
        while len(self.kept) > MOST_KEPT:
            self.kept.popitem(last=False)
        return found

    def metric(self, name: str, plan: Plan) -> float | None:
        estimate = plan.costed
        assert isinstance(estimate, StepEstimate) and name in STEP_METRICS
        return estimate.figures.get(name)

    def shares(self, phase: Phase) -> bool:
        """Memory of phases that train is not added to that of others."""
        return False

    def subject(self, plan: Plan) -> Subject:
        from ...pipeline import pools
        from ...pipeline.parameters import count_parameters

        result = plan.costed.result
        if self.params is None:
            self.params = count_parameters(result.graph)
        results = {**self.steps, self.name: result}
        spec, shared = self._spec(plan.phase), pools.run(self.others)
        return Subject(spec, self.others, self.params, shared, self.name, trainings=results)

    def _spec(self, phase: Phase) -> Spec:
        trainings = tuple(phase if p.name == self.name else p for p in self.spec.trainings)
        return replace(self.spec, trainings=trainings)
