"""What phases that differ in sizes alone share: one expanded model graph, one lowered graph, one line of arithmetic for costs.

The passes and the prices are run on traced sizes (`dagc/base/traced.py`), once for each range of sizes in which they go the same
way; so at other sizes of that range they would find the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ..base.diagnostics import SpecError
from ..base.frozen import field, mutable, record, replace
from ..base.source import Span
from ..base.traced import Function, Tape, Traced, TracedArray, Untraceable
from ..cost import chunks
from ..cost.chunks import PassSize
from ..cost.footprint import Memory, StageMemory
from ..cost.fused_blocks import launches
from ..cost.kept_costs import KeptCosts
from ..cost.memory import stage_memory
from ..cost.price import price
from ..cost.records import NO_TRANSFER, Costs, OpCost
from ..cost.schedule.even import EvenSchedule, Times
from ..cost.schedule.layer_program import Program
from ..cost.schedule.uneven import UnevenSchedule
from ..ir.graph import Graph
from ..ir.routed_dims import stem
from ..plan.result import CollectiveTotal
from ..spec.batching import Batching
from ..spec.factors import neighbours
from ..spec.phase import Part, Phase
from ..spec.unit import Unit
from .analyse import check, graph_flops, of_size
from .lower import passes_of, stop, unverified
from .phase_sizes import OF_LAYOUT

T = TypeVar("T")
Numbers = tuple[Any, ...]
"""Floats, or traced ones."""

MOST_RANGES = 64
"""Ranges of sizes that are kept of one graph."""


# -- the sizes of a phase ------------------------------------------------------------------------


def numbers_of(phase: Phase) -> Numbers:
    """Sequences, new tokens and context of every part."""
    parts: tuple[Any, ...] = phase.parts or (phase,)
    return tuple(float(getattr(part, name)) for name in ("sequences", "tokens", "context") for part in parts)


def with_numbers(phase: Phase, numbers: Numbers) -> Phase:
    """The phase with other ones."""
    count = len(phase.parts) or 1
    sequences, tokens, context = (numbers[k * count : (k + 1) * count] for k in range(3))
    if not phase.parts:
        return replace(phase, sequences=sequences[0], tokens=tokens[0], context=context[0])
    rows = zip(phase.parts, sequences, tokens, context, strict=True)
    parts = tuple(Part(part.scope, *each) for part, *each in rows)
    return replace(phase, parts=parts, sequences=sum(sequences), tokens=tokens[0], context=context[0])


def rooms_of(phase: Phase) -> Numbers:
    """As `numbers_of`, with the places for sequences in the stead of sequences."""
    batching = phase.batching
    rooms = [room for room, _ in batching.parts] or [batching]
    numbers = numbers_of(phase)
    return (*(float(room.part) for room in rooms), *numbers[len(rooms) :])


# -- ranges --------------------------------------------------------------------------------------


@mutable
class Ranges(Generic[T]):
    """Lines for one question, each right in a range of sizes, the last one that was right first. `trace`: makes the line around
    some numbers, and what else is the same in its range."""

    trace: Callable[[Numbers], tuple[Function, T]]
    found: list[tuple[Function, T]] = field(default_factory=list)

    def at(self, numbers: Numbers) -> tuple[Numbers, T]:
        """The results at some numbers. Raises Untraceable."""
        for k, (line, own) in enumerate(self.found):
            try:
                results = line(*numbers)
            except Untraceable:  # all ranks were equal where it was traced, and are not here
                results = None
            if results is not None:
                if k:
                    self.found.insert(0, self.found.pop(k))
                return results, own
        try:
            made = self.trace(numbers)
        except (SpecError, Untraceable):
            raise
        except Exception as error:  # code that takes numbers alone
            raise Untraceable(f"{type(error).__name__}: {error}") from error
        results = made[0](*numbers)
        assert results is not None, "a line is right where it was traced"
        self.found.insert(0, made)
        del self.found[MOST_RANGES:]
        return results, made[1]


# -- graphs --------------------------------------------------------------------------------------

Slots = tuple[tuple[int, str, int], ...]
"""(segment, dimension, number) of each size that follows from the phase's."""


@record(slots=False)
class Template:
    """A graph whose sizes in `slots` are filled in. `spans`: the statement of each (segment, op) of a model graph; `costs`: of ops of graphs
    that are lowered of it."""

    graph: Graph
    slots: Slots
    spans: Mapping[tuple[str, str], Span] = field(default_factory=dict, compare=False, repr=False)
    costs: KeptCosts = field(default_factory=KeptCosts, compare=False, repr=False)

    def sizes(self, numbers: Numbers) -> list[dict[str, Any]]:
        """Of each segment."""
        own: list[dict[str, Any]] = [dict(segment.sizes) for segment in self.graph.segments]
        for at, dim, k in self.slots:
            own[at][dim] = numbers[k]
        return own

    def at(self, numbers: Numbers) -> Graph:
        segments = (s.with_sizes(sizes) for s, sizes in zip(self.graph.segments, self.sizes(numbers), strict=True))
        return replace(self.graph, segments=tuple(segments))

    def numbers(self, graph: Graph) -> Numbers:
        """Those of a graph of the same template."""
        found = {k: graph.segments[at].sizes[dim] for at, dim, k in self.slots}
        return tuple(found[k] for k in range(len(found)))


class Expansions:
    """Model graphs of one spec: those of phases whose strategies differ are the same."""

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], Ranges[Template]] = {}

    def at(self, unit: Unit) -> tuple[Template, Numbers]:
        """The graph of a phase, and the numbers that are its sizes. Raises Untraceable, SpecError."""
        phase = unit.phase
        if phase.exits:
            raise Untraceable("rows that are left are whole ones")
        scopes = tuple(part.scope for part in phase.parts)
        packed = phase.batching.ranks if phase.is_packed else 0
        key = phase.name, phase.kind, phase.precision, scopes, phase.strategy.redundant, packed, phase.tree, phase.fuse
        ranges = self.known.get(key)
        if ranges is None:
            ranges = self.known[key] = Ranges(lambda numbers: expansion(unit, numbers))
        numbers, template = ranges.at(rooms_of(phase))
        return template, numbers


def expansion(unit: Unit, rooms: Numbers) -> tuple[Function, Template]:
    """The model graph of a phase with places for some numbers of sequences, traced. Raises Untraceable, SpecError."""
    from ..lang.expand import expand

    tape, count = Tape(), len(unit.phase.parts) or 1
    numbers = tuple(tape.given(each) for each in rooms)
    batching, traced = unit.phase.batching, with_numbers(unit.phase, numbers)
    alone = [(_of_places(places), 0) for places in numbers[:count]]
    every = replace(batching, parts=tuple(alone)) if unit.phase.is_packed else alone[0][0]
    graph = expand.run(replace(unit, phase=traced), every)
    found: dict[str, int] = {}
    slots: list[tuple[int, str, int]] = []
    results: list[Traced] = []
    for at, segment in enumerate(graph.segments):
        for dim, size in segment.sizes.items():
            if isinstance(size, Traced):
                if size.name not in found:
                    found[size.name] = len(results)
                    results.append(size)
                slots.append((at, dim, found[size.name]))
    return tape.function(results), Template(graph, tuple(slots), dict(unit.spans))


def _of_places(places: Any) -> Batching:
    """One rank has all places."""
    return Batching(places, places, 1, 1, 1)


# -- costs ---------------------------------------------------------------------------------------


class Figures(NamedTuple):
    """What a pass costs: times of all ops, of sends from each stage to the next and of tokens back, of all launches, and the
    first three at datasheet peaks; local inputs of collectives, of sends; what of ops is a launch; load of the busiest expert rank over the mean; kernels that a GPU launches; experts that are
    read. Times of ops are arrays where ranks differ."""

    times_s: Numbers
    floors_s: Numbers
    payloads_B: Numbers
    sends_s: Numbers
    send_floors_s: Numbers
    sent_B: Numbers
    launches_s: Numbers
    return_s: float
    return_floor_s: float
    launched_s: float
    imbalance: float
    kernels: float
    distinct_experts: float


class Layout:
    """A lowered graph of phases that differ in sizes alone. `unit`: one of them, with these sizes of the graph. Raises Untraceable."""

    def __init__(self, unit: Unit, template: Template, sizes: Numbers) -> None:
        self.unit, self.template, self.sizes = unit, template, sizes
        graph = template.graph
        self.keys = [(s.name, op.name) for s in graph.segments for op in s.ops]
        self.calls = [(s.name, op.name) for s in graph.segments for op in s.ops if op.is_collective]
        places = {key: k for k, key in enumerate(self.keys)}
        self.schedule, self.uneven = EvenSchedule(graph, places), UnevenSchedule(graph, places)
        self.prices: Ranges[None] = Ranges(self._priced)
        self.memories: Ranges[None] = Ranges(self._memory)
        self.work: Ranges[None] = Ranges(self._work)
        self.priced = 0
        self.programs: dict[str, Program] = {}
        self.calls_made: tuple[CollectiveTotal, ...] | None = None  # once somebody counts them
        if graph.the_mesh.apart is not None:
            raise Untraceable("its experts have GPUs of their own")
        if not self.schedule.known:
            raise Untraceable("its micro-batches are too many")

    def figures(self, sizes: Numbers, phase: Phase) -> Figures:
        """Of a pass with these sizes of the graph. Raises Untraceable."""
        results, _ = self.prices.at((*sizes, *numbers_of(phase)))
        return self._figures(results)

    def _figures(self, results: Numbers) -> Figures:
        ops, sends = len(self.keys), len(self.template.graph.stages) - 1
        counts = (ops, ops, len(self.calls), sends, sends, sends, ops)
        each = iter(results)
        parts: list[Any] = [tuple(islice(each, count)) for count in counts]
        return Figures(*parts, *each)

    def passes(self, phase: Phase, sizes: Numbers) -> Iterator[tuple[PassSize, Numbers]]:
        """The passes of a phase, each with its sizes of the graph; `sizes`: of a whole one. Raises Untraceable."""
        for size in chunks.sizes(phase):
            if chunks.is_whole(size, phase):
                yield size, sizes
            else:
                graph = of_size(self.template.at(sizes), phase, size)
                if any(stem(dim) == "chosen" for segment in graph.segments for dim in segment.sizes):
                    raise Untraceable("each pass chooses among its own tokens")
                yield size, self.template.numbers(graph)

    def times_s(self, found: Figures) -> Times:
        host_s, times = self.unit.phase.host_s, found.times_s
        return self._schedule(times).times_s(times, found.sends_s, found.return_s, host_s, found.launched_s)

    def costs(self, sizes: Numbers, unit: Unit) -> Costs:
        """Of a pass of the phase with these sizes of the graph: what ops and sends take, whatever else is known of them."""
        if self.priced < FRESH_PRICES:
            self.priced += 1
            return price(self.template.at(sizes), unit)
        try:
            found = self.figures(sizes, unit.phase)
        except LOST:
            self.priced = -MOST_RANGES  # some that are priced each for itself
            return self.costs(sizes, unit)
        alike, zero = (1,) * len(self.template.graph.the_mesh.atoms), np.zeros(1)
        times = (t if isinstance(t, np.ndarray) else np.full(alike, t) for t in found.times_s)
        each = zip(self.keys, times, found.launches_s, strict=True)
        ops = {key: OpCost(time_s, zero, "", launch_s=launch_s) for key, time_s, launch_s in each}
        edges = tuple(replace(NO_TRANSFER, time_s=time_s) for time_s in found.sends_s)
        back = replace(NO_TRANSFER, time_s=found.return_s)
        return Costs(ops, edges, back, np.array([found.imbalance]), 0.0, launched_s=found.launched_s)

    def step_s(self, found: Figures) -> float:
        """The period alone."""
        host_s, times = self.unit.phase.host_s, found.times_s
        step_s = self._schedule(times).step_s(times, found.sends_s, found.return_s, host_s, found.launched_s)
        assert step_s is not None
        return step_s

    def _schedule(self, times: Numbers) -> EvenSchedule:
        return self.uneven if any(isinstance(each, np.ndarray) for each in times) else self.schedule

    def floor_s(self, found: Figures) -> Times:
        """At datasheet peaks, without the host."""
        times = found.floors_s
        return self._schedule(times).times_s(times, found.send_floors_s, found.return_floor_s, 0.0, 0.0)

    def flops(self, sizes: Numbers, size: PassSize) -> float:
        """FLOPs of all micro-batches in one pass of so many tokens, over all ranks. Raises Untraceable."""
        (found,), _ = self.work.at((*sizes, float(size.tokens), float(size.context)))
        return float(found)

    def _work(self, numbers: Numbers) -> tuple[Function, None]:
        tape = Tape()
        *sizes, tokens, context = (tape.given(each) for each in numbers)
        graph: Any = chunks.resized(self.template.at(tuple(sizes)), tokens, context)  # type: ignore[arg-type]
        return tape.function([graph_flops(graph)]), None

    def memory(self, sizes: Numbers, figures: Figures) -> Memory:
        """Raises Untraceable."""
        numbers = (*sizes, figures.imbalance, *figures.payloads_B, *figures.sent_B)
        results, _ = self.memories.at(numbers)
        each = iter(results)
        own = tuple(StageMemory(s.index, *islice(each, STAGE_FIELDS)) for s in self.template.graph.stages)
        live = dict(zip((s.name for s in self.template.graph.segments), each, strict=True))
        return Memory(own, self.unit.spec.hardware.memory_B, live, self.unit.phase.memory)

    def _priced(self, numbers: Numbers) -> tuple[Function, None]:
        tape = Tape()
        given = tuple(tape.given(each) for each in numbers)
        count = len(numbers_of(self.unit.phase))
        graph = self.template.at(given[:-count])
        costs = price(graph, replace(self.unit, phase=with_numbers(self.unit.phase, given[-count:])))
        edges = costs.edges
        results = (
            *(_one(costs.ops[key].time_s) for key in self.keys), *(_one(costs.ops[key].floor_s) for key in self.keys),
            *(costs.ops[key].payload_B for key in self.calls), *(edge.time_s for edge in edges),
            *(edge.floor_s for edge in edges), *(edge.payload_B for edge in edges),
            *(costs.ops[key].launch_s for key in self.keys), costs.token_return.time_s, costs.token_return.floor_s, costs.launched_s, costs.imbalance,
            launches(graph, costs.ops, apart=self.unit.phase.fuse == ()), costs.distinct_experts,
        )  # fmt: skip
        return tape.function(results), None

    def _memory(self, numbers: Numbers) -> tuple[Function, None]:
        tape = Tape()
        given: list[Any] = [tape.given(each) for each in numbers]
        stages, calls = len(self.template.graph.stages) - 1, len(self.calls)
        sizes, (imbalance, *rest) = given[: -1 - calls - stages], given[-1 - calls - stages :]
        ops = {
            key: OpCost(np.zeros(1), np.zeros(1), "", payload_B=payload)
            for key, payload in zip(self.calls, rest, strict=False)
        }
        edges = tuple(replace(NO_TRANSFER, payload_B=each) for each in rest[calls:])
        costs = Costs(ops, edges, NO_TRANSFER, imbalance, 0.0)
        found = stage_memory(self.template.at(tuple(sizes)), costs, self.unit)
        results = [value for stage in found.stages for value in _fields(stage)]
        return tape.function([*results, *found.live_B.values()]), None


STAGE_FIELDS = 8


def _fields(stage: StageMemory) -> tuple[Any, ...]:
    return (
        stage.weights_B, stage.kv_cache_B, stage.activations_B, stage.buffers_B, stage.reserve_B, stage.capacity_B,
        stage.engine_B, stage.drafter_B,
    )  # fmt: skip


def _one(time_s: Any) -> Any:
    """The time of all ranks, or an array of theirs where they differ."""
    if isinstance(time_s, (Traced, TracedArray)):
        return time_s
    return float(time_s.item()) if time_s.size == 1 else time_s


_OF_LAYOUT = attrgetter(*OF_LAYOUT)


def layout_key(unit: Unit) -> tuple[object, ...]:
    phase, batching = unit.phase, unit.phase.batching
    scopes = tuple(part.scope for part in phase.parts)
    constants = tuple(sorted(phase.constants.items())) if phase.strategy.place is not None else ()
    beside = tuple(neighbours(unit.spec, phase))
    return _OF_LAYOUT(phase), scopes, constants, batching.microbatches, batching.lanes, unit.routing, beside


FRESH_PRICES = 1
"""How often sizes of a layout are priced each for itself before prices are traced: that takes as long as three of them, and most layouts that
are asked for twice are asked for many times."""
MOST_LOST = 3
"""Times that a layout's sizes could not be traced, until it is not tried again."""
LOST = (Untraceable, ZeroDivisionError)


class Priced(NamedTuple):
    """A lowered graph, what its ops and sends take, and the programs of its layers."""

    graph: Graph
    costs: Costs
    programs: dict[str, Program]


class Layouts:
    """Lowered graphs of one hardware and one model. `fresh`: how often a layout is lowered for its sizes alone, before it is traced
    for all: tracing takes as long as four of these."""

    def __init__(self, fresh: int = 2) -> None:
        self.fresh = fresh
        self.expansions = Expansions()
        self.known: dict[tuple[object, ...], tuple[int, Ranges[Layout]]] = {}

    def of(self, unit: Unit) -> tuple[Layout, Numbers] | None:
        """The layout of a phase, and the sizes of its graph; None where the phase had better be lowered for itself. Raises
        Untraceable, SpecError."""
        template, numbers = self.expansions.at(unit)
        key = (id(template), *layout_key(unit))
        seen, ranges = self.known.get(key, (0, None))
        if ranges is None:
            ranges = Ranges(lambda sizes: lowering(unit, template, sizes, ranges))
        if seen < self.fresh:
            self.known[key] = seen + 1, ranges
            return None
        if seen >= self.fresh + MOST_LOST:
            return None
        return ranges.at(numbers)[1], numbers

    def graph(self, unit: Unit) -> Graph:
        """The phase's lowered graph, at its sizes. Raises SpecError."""
        try:
            found = self.of(unit)
            if found is not None:
                layout, numbers = found
                return layout.template.at(numbers)
        except LOST:
            self.lose(unit)
        return self.lowered(unit)

    def priced(self, unit: Unit) -> Priced:
        """The same, and what its ops take. Raises SpecError."""
        try:
            found = self.of(unit)
            if found is not None:
                layout, numbers = found
                return Priced(layout.template.at(numbers), layout.costs(numbers, unit), layout.programs)
        except LOST:
            self.lose(unit)
        graph = self.lowered(unit)
        return Priced(graph, price(graph, unit), {})

    def lose(self, unit: Unit) -> None:
        """The phase's sizes could not be traced."""
        try:
            key = (id(self.expansions.at(unit)[0]), *layout_key(unit))
        except LOST:
            return
        if key in self.known:
            seen, ranges = self.known[key]
            self.known[key] = seen + 1, ranges

    def lowered(self, unit: Unit) -> Graph:
        """The phase's graph, lowered for its sizes alone. Raises SpecError."""
        return self.lowered_and_kept(unit)[0]

    def lowered_and_kept(self, unit: Unit) -> tuple[Graph, KeptCosts | None]:
        """The same, and costs that graphs of the same template share."""
        try:
            template, numbers = self.expansions.at(unit)
            return lowered_at(unit, template, numbers), template.costs
        except LOST:
            return unverified(unit), None


def lowered_at(unit: Unit, template: Template, sizes: Numbers) -> Graph:
    """The phase's graph, lowered for these sizes, which may be traced. Raises SpecError."""
    from ..ir.graph_pass import PassError
    from .run_passes import run

    batching = unit.phase.batching
    graph = replace(template.at(sizes), microbatches=batching.microbatches, lanes=batching.lanes)
    try:
        *_, (_, graph) = run(passes_of(unit), graph)
    except PassError as error:
        if any(isinstance(size, Traced) for size in sizes):
            unverified(unit)  # which names sizes that are numbers
        unit.spans.update((key, span) for key, span in template.spans.items() if key not in unit.spans)
        stop(unit, error)
    return graph


def lowering(
    unit: Unit, template: Template, sizes: Numbers, known: Ranges[Layout] | None = None
) -> tuple[Function, Layout]:
    """A graph lowered for some sizes; the line has no results, and is right where the same graph would be made. `known`: other
    ranges, which may have the same graph. Raises Untraceable, SpecError."""
    tape = Tape()
    graph = lowered_at(unit, template, tuple(tape.given(each) for each in sizes))
    check(graph, unit)
    line = tape.function(())
    own = Template(graph, template.slots)
    for _, layout in known.found if known is not None else ():
        if own.at(layout.sizes) == layout.template.graph:
            return line, layout
    return line, Layout(unit, Template(own.at(sizes), template.slots), sizes)
