"""What phases cost, in figures alone: exactly what `compile` finds, without its verifier, floor, paths and reports."""

from __future__ import annotations

from functools import cached_property

from ..base.diagnostics import Collector
from ..base.frozen import record
from ..cost import chunks
from ..cost.footprint import Memory
from ..cost.price import price
from ..cost.records import Costs
from ..cost.schedule.scheduler import schedule
from ..ir.graph import Graph
from ..plan.result import PhaseResult
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .analyse import check, of_size, phase_tokens, whole_memory
from .lower import unverified


@record(slots=False)
class Estimate:
    """Figures of a phase, bit for bit those of its compiled result. `time_s`: ttft of a prefill, tpot of a decode, seconds of a mixed
    step. `unit`: what was estimated."""

    unit: Unit
    time_s: float
    throughput_tok_s: float
    tokens_per_step: float
    memory: Memory

    @property
    def phase(self) -> Phase:
        return self.unit.phase

    @property
    def peak_B(self) -> float:
        """Bytes on the fullest GPU."""
        return self.memory.worst.peak_B

    @property
    def fits(self) -> bool:
        """Whether the phase alone fits; what it shares GPUs with is not looked at."""
        return self.memory.fits

    @property
    def gpus(self) -> int:
        return len(self.phase.gpus)

    @cached_property
    def result(self) -> PhaseResult:
        """The phase compiled: costs, schedule, path. Costs as much as compiling it."""
        from .compile import compile_phase

        return compile_phase(Unit(self.unit.spec, self.phase, Collector()))


class Estimates:
    """Estimates phases of one spec, whether or not the spec has them: only its hardware, model and workload count."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __call__(self, phase: Phase) -> Estimate:
        """Raises SpecError where the phase does not compile."""
        if phase.strategy.best and not phase.strategy.ids:
            from .place_best import best

            phase = best(self.spec, phase)
        unit = Unit(self.spec, phase, Collector())
        graph = self._lowered(unit)
        check(graph, unit)
        passes_s = 0.0
        costs: Costs | None = None
        for size in chunks.sizes(phase):
            own = of_size(graph, phase, size)
            found = price(own, unit)
            passes_s += size.count * schedule(own, found).period_s
            if size.tokens == phase.tokens and size.context == phase.context:
                costs = found
        memory = whole_memory(graph, unit, price(graph, unit) if costs is None else costs)
        per_step = 1.0 if phase.parts or not graph.generates else phase.tokens_per_step
        if phase.drafter != "none":
            drafts_s, memory = self._drafts(unit, graph, memory, passes_s)
            passes_s = drafts_s
        throughput = phase_tokens(phase) / passes_s if passes_s else 0.0
        return Estimate(unit, passes_s / per_step, throughput, per_step, memory)

    def _drafts(self, unit: Unit, graph: Graph, memory: Memory, passes_s: float) -> tuple[float, Memory]:
        """Seconds of a step and its memory, with what drafts tokens for it."""
        from .drafts import draft_units, memory_with

        first = True
        for count, own in draft_units(unit, graph):
            draft = self._lowered(own)
            costs = price(draft, own)
            passes_s += count * schedule(draft, costs).period_s
            if first:
                memory, _ = memory_with(memory, graph, unit, draft, own, costs)
                first = False
        return passes_s, memory

    def _lowered(self, unit: Unit) -> Graph:
        return unverified(unit)
