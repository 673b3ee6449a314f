"""Steps compiled one by one: what a step of so many sequences in decode and so many prompt tokens takes of the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..base.axes import SEQUENCE
from ..base.diagnostics import Collector
from ..base.phase_kinds import DECODE, MIXED, PREFILL, PROMPT, SAMPLED
from ..cost.chunks import resized
from ..cost.price import launched_s, price
from ..cost.records import Costs
from ..cost.schedule.pipelines import PIPELINES
from ..cost.schedule.records import Schedule
from ..cost.schedule.scheduler import Scheduler
from ..ir.graph import Graph
from ..ir.routed_dims import stem
from ..spec.phase import Launches, Part, Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .lower import unverified


class Knot(NamedTuple):
    """A step of a phase, with its strategy and engine. `sequences` in decode, of `context` tokens each, and `prompts`, `tokens` of each in
    the step, the last of which attends to `attended`; all of the whole phase, evenly over its ranks. `microbatches`: in flight (0: the
    phase's)."""

    phase: str
    sequences: int = 0
    context: int = 1
    prompts: int = 0
    tokens: int = 0
    attended: int = 0
    microbatches: int = 0

    @property
    def kind(self) -> str:
        if not self.prompts:
            return DECODE.name
        return MIXED.name if self.sequences else PREFILL.name


class Figures(NamedTuple):
    """Seconds of the GPUs in a step, without host: in all; of it for routed experts, which share the tokens of all ranks; for what the
    sequences in decode have to themselves (attention, sampling); and what the prompts have. `launches`: layers that the host launches."""

    time_s: float
    routed_s: float = 0.0
    decode_s: float = 0.0
    prompt_s: float = 0.0
    launches: float = 0.0


GRAPHS_KEPT = 64
"""Lowered graphs, for steps of other contexts."""

Price = Callable[[Knot], Figures]
"""What prices steps ask; may raise, and is then asked again."""


def phase_of(knot: Knot, spec: Spec) -> Phase:
    """The knot as a phase that can be compiled."""
    own = spec.phase(knot.phase)
    drafted = 1 + own.speculative
    strategy = replace(own.strategy, microbatches=knot.microbatches) if knot.microbatches else own.strategy
    kind = knot.kind
    common = replace(own, kind=kind, parts=(), passes=1, last=0, strategy=strategy)
    if kind == DECODE.name:
        return replace(common, sequences=knot.sequences, tokens=drafted, context=knot.context)
    if kind == PREFILL.name:
        return replace(
            common, sequences=knot.prompts, tokens=knot.tokens, context=knot.attended, acceptance=0.0, drafter="none"
        )
    parts = (
        Part(DECODE.name, knot.sequences, drafted, knot.context),
        Part(PROMPT, knot.prompts, knot.tokens, knot.attended),
    )
    return replace(
        common,
        parts=parts,
        sequences=knot.sequences + knot.prompts,
        tokens=drafted,
        context=knot.context,
        strategy=replace(strategy, sequence_parallel=False, dcp=1),
    )


class Steps:
    """Compiles steps of a spec. A graph that was lowered serves steps of other contexts too, where only sizes follow from these."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.graphs: dict[Knot, Graph] = {}

    def __call__(self, knot: Knot) -> Figures:
        """The step lowered and priced; not verified, as its phase was. Raises SpecError."""
        phase = replace(phase_of(knot, self.spec), host_s=0.0, launches=Launches())
        unit = Unit(self.spec, phase, Collector())
        graph = self.lowered(knot, unit)
        figures = _figures(graph, price(graph, unit), phase)
        if phase.drafter == "none":
            return figures
        from .drafts import draft_units

        joint_s = alone_s = 0.0
        for count, own in draft_units(unit, graph):
            draft = unverified(own)
            costs = price(draft, own)
            drafts_s = count * _seconds(draft, Scheduler(draft, costs).run(), costs)
            if own.phase.is_packed:  # the first pass takes the prompts' tokens too
                joint_s += drafts_s
            else:
                alone_s += drafts_s
        return figures._replace(time_s=figures.time_s + joint_s + alone_s, decode_s=figures.decode_s + alone_s)

    def lowered(self, knot: Knot, unit: Unit) -> Graph:
        """A step of both kinds has contexts of its own in every part; what chooses among cached tokens, and ranks that split them,
        are laid out by how many there are."""
        key = knot._replace(context=1, attended=0)
        kept = self.graphs.get(key)
        if kept is not None:
            return resized(kept, unit.phase.tokens, unit.phase.context)
        graph = unverified(unit)
        chooses = any(stem(dim) == "chosen" for segment in graph.segments for dim in segment.sizes)
        splits = graph.the_mesh.degrees.get(SEQUENCE, 1) > 1 or unit.phase.strategy.dcp > 1
        if not unit.phase.is_packed and not chooses and not splits:
            if len(self.graphs) == GRAPHS_KEPT:
                del self.graphs[next(iter(self.graphs))]
            self.graphs[key] = graph
        return graph


def compiled(knot: Knot, spec: Spec) -> Figures:
    """One step. Raises SpecError."""
    return Steps(spec)(knot)


def _seconds(graph: Graph, schedule: Schedule, costs: Costs) -> float:
    """Of a step in steady state, micro-batches of prompts too: the next one enters a stage when the one before has left it."""
    if len(graph.stages) == 1 or graph.generates:
        return schedule.period_s
    sends_s = [edge.time_s for edge in costs.edges]
    step = PIPELINES[MIXED.name].step
    assert step is not None
    return step(schedule.stage_s, sends_s, 0.0, graph.microbatches).time_s


def _figures(graph: Graph, costs: Costs, phase: Phase) -> Figures:
    schedule = Scheduler(graph, costs).run()
    routed_s = decode_s = prompt_s = 0.0
    for step in schedule.path:
        if not step.segment:
            continue
        op, cost = graph.segment(step.segment).by_name[step.op], costs.ops[step.segment, step.op]
        time_s = step.time_s + step.count * cost.launch_s
        if op.scope == "experts" and not op.is_collective:
            routed_s += time_s
        elif op.scope in (DECODE.name, SAMPLED):
            decode_s += time_s
        elif op.scope.startswith(PROMPT):
            prompt_s += time_s
    time_s = _seconds(graph, schedule, costs)
    if time_s != schedule.period_s:
        routed_s *= time_s / schedule.period_s
    layers = launched_s(graph, replace(phase, cuda_graph=False, launches=Launches(1.0)))
    return Figures(time_s, routed_s, decode_s, prompt_s, layers)
