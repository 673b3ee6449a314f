"""What phases cost, in figures alone: exactly what `compile` finds, without its verifier, floor, paths and reports."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Protocol

from ..base.diagnostics import Collector
from ..base.frozen import record
from ..base.traced import Untraceable
from ..cost import chunks
from ..cost.footprint import Memory
from ..cost.price import price
from ..cost.records import Costs
from ..cost.schedule.even import period_s
from ..ir.graph import Graph
from ..plan.result import PhaseResult
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .analyse import check, of_size, phase_tokens, whole_memory
from .kept import Expansions, Figures, Layout, Numbers, Ranges, layout_key, lowered_at, lowering
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


class Look(Protocol):
    """Who sees what an estimate is made of: the lowered graph, then each of its passes with their costs."""

    def at_graph(self, graph: Graph, unit: Unit) -> None: ...

    def at_costs(self, graph: Graph, costs: Costs) -> None: ...


FRESH = 2
"""How often a layout is lowered for its sizes alone, before it is traced for all: tracing takes as long as four of these."""


class Estimates:
    """Estimates phases of one spec, whether or not the spec has them. Its phases count where they are on the same GPUs as the
    estimated one and of another name: experts may be cut alike then."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.expansions = Expansions()
        self.layouts: dict[tuple[object, ...], tuple[int, Ranges[Layout] | None]] = {}
        self.drafter: Estimates | None = None

    def __call__(self, phase: Phase, look: Look | None = None) -> Estimate:
        """Raises SpecError where the phase does not compile. `look`: sees the graph, which is lowered for it, and what it costs."""
        if phase.strategy.best and not phase.strategy.ids:
            from .place_best import best

            phase = best(self.spec, phase)
        unit = Unit(self.spec, phase, Collector())
        passes_s, memory, graph = self._passes(unit) if look is None else self._fresh(unit, look)
        per_step = 1.0 if phase.parts or not graph.generates else phase.tokens_per_step
        if phase.drafter != "none":
            passes_s, memory = self._drafts(unit, graph, memory, passes_s)
        throughput = phase_tokens(phase) / passes_s if passes_s else 0.0
        return Estimate(unit, passes_s / per_step, throughput, per_step, memory)

    def _passes(self, unit: Unit) -> tuple[float, Memory, Graph]:
        """Seconds of all passes of a phase, what it stores, and its lowered graph (at whatever sizes)."""
        try:
            return self._kept(unit)
        except (Untraceable, ZeroDivisionError):
            return _compiled(unit, unverified(unit))

    def _fresh(self, unit: Unit, look: Look) -> tuple[float, Memory, Graph]:
        """The same of a graph that is lowered for the phase alone, seen by somebody."""
        try:
            template, numbers = self.expansions.at(unit)
            graph = lowered_at(unit, template, numbers)
        except (Untraceable, ZeroDivisionError):
            graph = unverified(unit)
        look.at_graph(graph, unit)
        return _compiled(unit, graph, look)

    def _kept(self, unit: Unit) -> tuple[float, Memory, Graph]:
        """By what is kept. Raises Untraceable, SpecError."""
        template, numbers = self.expansions.at(unit)
        key = (id(template), *layout_key(unit.phase))
        seen, ranges = self.layouts.get(key, (0, None))
        if seen < FRESH or ranges is None:
            if seen == FRESH:
                raise Untraceable("it was tried")
            if seen == FRESH - 1:
                ranges = Ranges(lambda sizes: lowering(unit, template, sizes))
            self.layouts[key] = seen + 1, ranges
            graph = lowered_at(unit, template, numbers)
            return _compiled(unit, graph)
        try:
            _, layout = ranges.at(numbers)
            return self._at(unit.phase, layout, numbers)
        except Untraceable:
            if not ranges.found or not ranges.found[0][1].prices.found:
                self.layouts[key] = FRESH, None
            raise

    def _at(self, phase: Phase, layout: Layout, numbers: Numbers) -> tuple[float, Memory, Graph]:
        passes_s = 0.0
        whole: Figures | None = None
        for size in chunks.sizes(phase):
            own = numbers
            if size.tokens != phase.tokens or size.context != phase.context:
                own = layout.resized(phase, size, numbers)
            found = layout.figures(own, phase)
            passes_s += size.count * layout.period_s(found)
            if own is numbers:
                whole = found
        if whole is None:
            whole = layout.figures(numbers, phase)
        return passes_s, layout.memory(numbers, whole), layout.template.graph

    def _drafts(self, unit: Unit, graph: Graph, memory: Memory, passes_s: float) -> tuple[float, Memory]:
        """Seconds of a step and its memory, with what drafts tokens for it."""
        from .drafts import draft_units, drafter_model, memory_with

        if self.drafter is None:
            self.drafter = Estimates(replace(self.spec, model=drafter_model(self.spec.model), phases=()))
        model = self.drafter.spec.model
        first = True
        for count, own in draft_units(unit, graph, model):
            drafts_s, stored, draft = self.drafter._passes(own)
            passes_s += count * drafts_s
            if first:
                memory, _ = memory_with(memory, graph, unit, draft, stored.stages[-1])
                first = False
        return passes_s, memory


def _compiled(unit: Unit, graph: Graph, look: Look | None = None) -> tuple[float, Memory, Graph]:
    """Of a graph lowered for the phase alone."""
    check(graph, unit)
    phase, passes_s = unit.phase, 0.0
    costs: Costs | None = None
    for size in chunks.sizes(phase):
        own = of_size(graph, phase, size)
        found = price(own, unit)
        if look is not None:
            look.at_costs(own, found)
        passes_s += size.count * period_s(own, found)
        if size.tokens == phase.tokens and size.context == phase.context:
            costs = found
    memory = whole_memory(graph, unit, price(graph, unit) if costs is None else costs)
    return passes_s, memory, graph
