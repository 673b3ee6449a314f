"""What phases cost, in figures alone: exactly what `compile` finds, without its verifier, floor, paths and reports."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

from ..base.diagnostics import Collector
from ..base.frozen import record, replace
from ..cost import chunks
from ..cost.footprint import Memory
from ..cost.kept_costs import KeptCosts
from ..cost.price import price
from ..cost.records import Costs
from ..cost.schedule.period import period_s
from ..ir.graph import Graph
from ..plan.result import PhaseResult
from ..plan.result import passes_s as all_passes_s
from ..spec.model import Precision
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .analyse import check, of_size, phase_tokens, whole_memory
from .analyse import price as priced
from .kept import LOST, Figures, Layout, Layouts, Numbers


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
    def capacity_B(self) -> float:
        """Bytes that a GPU has for it."""
        return self.memory.capacity_B

    @property
    def fits(self) -> bool:
        """Whether the phase alone fits; what it shares GPUs with is not looked at."""
        return self.memory.fits

    @property
    def gpus(self) -> int:
        return len(self.phase.gpus)

    @property
    def mfu(self) -> float:
        """Of training steps alone."""
        return float("nan")

    @property
    def slow_B(self) -> float:
        """Bytes that a GPU sends over the outermost links in a pass."""
        slowest = self.unit.spec.hardware.tiers[-1].name
        return sum(call.level_B.get(slowest, 0.0) for call in self.result.collectives)

    @cached_property
    def result(self) -> PhaseResult:
        """The phase compiled: costs, schedule, path. Costs as much as compiling it."""
        from .compile import compile_phase

        return compile_phase(Unit(self.unit.spec, self.phase, Collector()))


class Look(Protocol):
    """Who sees what an estimate is made of: the lowered graph, then each of its passes with their costs."""

    def at_graph(self, graph: Graph, unit: Unit) -> None: ...

    def at_costs(self, graph: Graph, costs: Costs) -> None: ...


class Estimates:
    """Estimates phases of one spec, whether or not the spec has them. Its phases count where they are on the same GPUs as the
    estimated one and of another name: experts may be cut alike then."""

    def __init__(self, spec: Spec, layouts: Layouts | None = None) -> None:
        """`layouts`: of a spec whose hardware, model and constants are the same."""
        self.spec = spec
        self.layouts = Layouts() if layouts is None else layouts
        self.drafters: dict[tuple[Precision | None, str], Estimates] = {}  # by dtypes of the phase, and another model

    def __call__(self, phase: Phase, look: Look | None = None) -> Estimate:
        """Raises SpecError where the phase does not compile. `look`: sees the graph, which is lowered for it, and what it costs."""
        if phase.strategy.balanced and phase.strategy.layers_per_stage is None:
            from .stage_cut import balanced_phase

            phase = balanced_phase(self.spec, phase)
        if phase.strategy.best and not phase.strategy.ids:
            from .place_best import best

            phase = best(self.spec, phase)
        unit = Unit(self.spec, phase, Collector())
        passes_s, memory, graph = self._passes(unit) if look is None else self._fresh(unit, look)
        if phase.chunks_overlap or phase.exits:
            passes_s = all_passes_s(priced(self.layouts.lowered(unit), unit))
        per_step = 1.0 if phase.parts or not graph.generates else phase.tokens_per_step
        if phase.drafter != "none":
            passes_s, memory = self._drafts(unit, graph, memory, passes_s)
        throughput = phase_tokens(phase) / passes_s if passes_s else 0.0
        return Estimate(unit, passes_s / per_step, throughput, per_step, memory)

    def _passes(self, unit: Unit) -> tuple[float, Memory, Graph]:
        """Seconds of all passes of a phase, what it stores, and its lowered graph (at whatever sizes)."""
        try:
            found = self.layouts.of(unit)
            if found is not None:
                return _at(unit.phase, *found)
        except LOST:
            self.layouts.lose(unit)
        return _compiled(unit, *self.layouts.lowered_and_kept(unit))

    def _fresh(self, unit: Unit, look: Look) -> tuple[float, Memory, Graph]:
        """The same of a graph that is lowered for the phase alone, seen by somebody."""
        graph, kept = self.layouts.lowered_and_kept(unit)
        look.at_graph(graph, unit)
        return _compiled(unit, graph, kept, look)

    def _drafts(self, unit: Unit, graph: Graph, memory: Memory, passes_s: float) -> tuple[float, Memory]:
        """Seconds of a step and its memory, with what drafts tokens for it."""
        from .drafts import draft_units, drafter_of, memory_with

        other = unit.phase.draft_model
        key = unit.phase.precision, "" if other is None else other.name
        drafter = self.drafters.get(key)
        if drafter is None:
            drafter = Estimates(replace(self.spec, model=drafter_of(unit), phases=()))
            self.drafters[key] = drafter
        model = drafter.spec.model
        first = True
        for count, own in draft_units(unit, graph, model):
            drafts_s, stored, draft = drafter._passes(own)
            passes_s += count * drafts_s
            if first:
                memory, _ = memory_with(memory, graph, unit, draft, stored.stages[-1])
                first = False
        return passes_s, memory


def _at(phase: Phase, layout: Layout, numbers: Numbers) -> tuple[float, Memory, Graph]:
    """Of a kept layout, at the sizes of a phase. Raises Untraceable."""
    passes_s = 0.0
    whole: Figures | None = None
    for size, own in layout.passes(phase, numbers):
        found = layout.figures(own, phase)
        passes_s += size.count * layout.step_s(found)
        whole = found if own is numbers else whole
    if whole is None:
        whole = layout.figures(numbers, phase)
    return passes_s, layout.memory(numbers, whole), layout.template.graph


def _compiled(
    unit: Unit, graph: Graph, kept: KeptCosts | None, look: Look | None = None
) -> tuple[float, Memory, Graph]:
    """Of a graph lowered for the phase alone."""
    check(graph, unit)
    phase, passes_s = unit.phase, 0.0
    costs: Costs | None = None
    for size in chunks.sizes(phase):
        own = of_size(graph, phase, size)
        found = price(own, unit, kept=kept)
        if look is not None:
            look.at_costs(own, found)
        passes_s += size.count * period_s(own, found)
        if chunks.is_whole(size, phase):
            costs = found
    memory = whole_memory(graph, unit, price(graph, unit, kept=kept) if costs is None else costs)
    return passes_s, memory, graph
