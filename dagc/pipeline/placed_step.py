"""A phase that trains and is to be placed: what its step costs on any GPUs."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from itertools import pairwise

from ..cost.records import Costs
from ..cost.schedule.training.cell_orders import PipelineSchedule
from ..ir.graph import Graph
from ..ir.op import UPDATE
from ..plan.step_totals import edge_between
from ..spec.phase import Phase
from ..spec.spec import Spec
from .place_trial import Trial
from .train import costed_cells, schedule_of, step_of, training_of


class PlacedStep(Trial):
    """Times are those of a whole step."""

    @cached_property
    def schedule(self) -> PipelineSchedule:
        return schedule_of(self.unit, training_of(self.unit))

    def _cost(self, graph: Graph) -> tuple[float, Costs]:
        unit = self.unit_on(graph.the_mesh.the_gpus.ids)
        result = step_of(unit, self.schedule, costed_cells(unit, graph, self.kept))
        return result.time_s, result.costs

    def level_B(self, graph: Graph, costs: Costs) -> tuple[float, ...]:
        """In a step, activations and gradients between stages too."""
        layers: Counter[str] = Counter()
        for stage in graph.stages:
            layers.update(dict(stage.layers))
        passes, sent_B = graph.microbatches * graph.lanes, Counter[str]()
        for segment in graph.segments:
            for op in segment.ops:
                if op.is_collective:
                    calls = layers[segment.name] * (1 if op.cell == UPDATE else passes)
                    for level, size_B in costs.ops[segment.name, op.name].level_B.items():
                        sent_B[level] += calls * size_B  # type: ignore[assignment]
        for route in self.schedule.routes:
            for k, (here, there) in enumerate(pairwise(route.seats)):
                both = [edge_between(costs, here, there, k, back=back) for back in (False, True)]
                size_B = sum(edge.payload_B for edge in both)
                sent_B[both[0].level] += size_B * passes / len(self.schedule.routes)  # type: ignore[assignment]
        return tuple(float(sent_B[tier.name]) for tier in self.unit.spec.hardware.tiers)


def trial_of(spec: Spec, phase: Phase) -> Trial:
    return Trial(spec, phase) if phase.training is None else PlacedStep(spec, phase)
