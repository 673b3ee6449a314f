"""`stages = balanced`: the layers of each stage, so that the busiest stage takes as little time as can be, of the cuts that fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..base.diagnostics import Collector, SpecError
from ..base.frozen import replace
from ..cost import chunks
from ..cost.footprint import StageMemory
from ..cost.memory import bytes_beside, capacity, left_of, profile_ratio, stage_memory
from ..cost.partition import Ranges, least_most
from ..cost.price import price
from ..cost.records import Costs
from ..cost.schedule.ranges import range_times_s
from ..cost.transfers import between_stages
from ..ir.graph import Graph, Stage
from ..ir.handed_on import are_handed_on, crossings, made_in, sent
from ..ir.ops.sizes import local_bytes
from ..spec.factors import even_stages
from ..spec.hardware import Hardware
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.strategy import Strategy
from ..spec.unit import Unit


def waits(strategy: Strategy) -> bool:
    """Whether its stages are still to be balanced."""
    return strategy.balanced and strategy.layers_per_stage is None and strategy.pp > 1


def balanced(spec: Spec) -> Spec:
    """The spec with the layers of every stage of all phases that ask for them. Phases on the same GPUs with as many stages are cut
    alike, so that weights stay stored once. A phase that cannot be lowered stays as it is: compiling it says why."""
    groups: dict[object, list[Phase]] = {}
    for phase in spec.phases:
        s = phase.strategy
        if waits(s):
            groups.setdefault((phase.hardware, phase.gpus, s.pp, s.replicas), []).append(phase)
    new: dict[str, Phase] = {}
    for phases in groups.values():
        try:
            cut = _cut(spec, phases)
        except SpecError:
            continue
        new |= {p.name: replace(p, strategy=replace(p.strategy, layers_per_stage=cut)) for p in phases}
    return replace(spec, phases=tuple(new.get(p.name, p) for p in spec.phases)) if new else spec


def balanced_phase(spec: Spec, phase: Phase) -> Phase:
    """A phase of a spec, or one in the place of that of its name."""
    if not waits(phase.strategy):
        return phase
    others = tuple(phase if p.name == phase.name else p for p in spec.phases)
    known = any(p is phase for p in others)
    return balanced(replace(spec, phases=others if known else (*others, phase))).phase(phase.name)


def _cut(spec: Spec, phases: list[Phase]) -> tuple[int, ...]:
    """Layers of each stage. Of several phases the share of each counts that a stage has of it. Raises SpecError."""
    stages = phases[0].strategy.pp
    times, fullest = zip(*(_ranges(spec, phase) for phase in phases), strict=True)
    busiest = np.maximum.reduce(times)
    fill = np.maximum.reduce(fullest)
    edges = least_most([np.where(fill <= 1.0, busiest, np.inf), fill], stages) or least_most([fill, busiest], stages)
    assert edges is not None  # there are no fewer layers than stages
    counts = np.diff(edges)
    counts[[0, -1]] -= 1  # the embedding and the head
    return tuple(int(n) for n in counts)


def _ranges(spec: Spec, phase: Phase) -> tuple[Ranges, Ranges]:
    """Of every run of layers as a stage: its share of the time of all, and of what a GPU may hold the part that it fills. Raises
    SpecError."""
    from .analyse import cost_graph, of_size
    from .drafts import with_drafts
    from .lower import unverified

    own = replace(
        phase, strategy=replace(phase.strategy, layers_per_stage=even_stages(spec.model.layers, phase.strategy.pp))
    )
    unit = Unit(spec, own, Collector())
    graph = unverified(unit)
    time_s, costs = np.zeros(()), None
    for size in chunks.sizes(own):
        resized = of_size(graph, own, size)
        found = price(resized, unit)
        time_s = time_s + size.count * (range_times_s(resized, found) + longer_s(resized, spec.hardware))
        if chunks.is_whole(size, own):
            costs = found
    costs = price(graph, unit) if costs is None else costs
    drafter_B = 0.0
    if own.drafter != "none":
        drafted = with_drafts(cost_graph(graph, unit), unit).memory
        drafter_B = drafted.stages[-1].peak_B - stage_memory(graph, costs, unit).stages[-1].peak_B
    return a_layer_each(time_s / time_s[0, -1]), _filled(graph, costs, unit, drafter_B)


def longer_s(graph: Graph, hardware: Hardware) -> Ranges:
    """[., k]: what a send behind the layers before the k-th takes longer than one of the residual stream alone, which any cut has; between
    the stages that are farthest apart. Zeros of length 1 where nothing is handed on beside it."""
    mesh = graph.the_mesh
    if not are_handed_on(graph) or mesh.stages == 1:
        return np.zeros((1, 1))

    def time_s(size: float) -> float:
        return max(between_stages(size, e.source, e.target, mesh, hardware).time_s for e in graph.sends)

    plain = residual_B(graph)
    sizes = [sum(bytes_beside(graph, made).values()) for made in crossings(graph)]
    known = {size: time_s(plain + size) - time_s(plain) for size in set(sizes)}
    return np.array([[known[size] for size in sizes]])


def residual_B(graph: Graph) -> float:
    """What a rank sends of the residual stream."""
    _, segment, _, layout = next(sent(graph, graph.sends[0]))
    return local_bytes(segment, segment.input, layout.dims, graph.the_mesh)


def a_layer_each(ranges: Ranges) -> Ranges:
    """The first and the last stage have a layer beside the embedding and the head."""
    ranges = ranges.copy()
    ranges[0, 1], ranges[-2, -1] = np.inf, np.inf
    return ranges


def _filled(graph: Graph, costs: Costs, unit: Unit, drafter_B: float) -> Ranges:
    """[i, j]: of what a GPU may hold the part that the layers from the i-th to before the j-th fill; with a drafter on the last stage.

    Sums and maxima of single layers, as the memory pass has them of a stage."""
    names = [segment.name for segment, _ in graph.layers]
    kinds = list(dict.fromkeys(names))
    sends = are_handed_on(graph) and bool(graph.sends)
    if sends:
        costs = replace(costs, edges=tuple(replace(e, payload_B=residual_B(graph)) for e in costs.edges))
    apart = replace(graph, stages=tuple(Stage(k, ((n, 1),)) for k, n in enumerate(kinds)))
    single = stage_memory(apart, costs, unit, alone=True)
    of = dict(zip(kinds, single.stages, strict=True))
    beside = Beside(graph, unit, of) if sends else None
    engine, total_B = unit.phase.memory, single.total_B
    fixed_B = engine.graphs_B + engine.communication_B + (engine.padding_B or 0.0)
    filled = np.full((len(names) + 1,) * 2, np.inf)
    for i in range(len(names)):
        weights = kv = live = buffers = padding = 0.0
        more = itertools.repeat(None) if beside is None else beside.from_layer(i)
        for (j, name), with_beside in zip(enumerate(names[i:], start=i + 1), more, strict=False):
            one = of[name]
            weights, kv = weights + one.weights_B, kv + one.kv_cache_B
            padding += one.engine_B - fixed_B
            live, buffers = max(live, one.activations_B), max(buffers, one.buffers_B)
            last_B = drafter_B if j == len(names) else 0.0
            live_B, sent_B = with_beside or (live, 0.0)
            need = StageMemory(
                0, weights + last_B, kv, live_B, buffers + sent_B, one.reserve_B, total_B, fixed_B + padding
            )
            filled[i, j] = need.peak_B / capacity(need, total_B, engine)
    return a_layer_each(filled)


class Beside:
    """What layers hand on beside the residual stream, in the memory of any run of layers as a stage. `single`: of a layer of each kind."""

    def __init__(self, graph: Graph, unit: Unit, single: Mapping[str, StageMemory]) -> None:
        self.graph, self.single = graph, single
        self.names = [segment.name for segment, _ in graph.layers]
        self.ends = [bytes_beside(graph, made) for made in crossings(graph)]
        self.sent_B = [sum(end.values()) for end in self.ends]
        tokens = unit.phase.memory.tokens
        self.ratio = {s.name: graph.lanes * profile_ratio(s, graph, tokens) for s in graph.segments}

    def from_layer(self, i: int) -> Iterator[tuple[float, float]]:
        """Activations of the layers from the i-th to before the j-th, and what buffers of their sends have beside the residual stream, for each j
        behind i. Activations change where the first layer of a kind comes."""
        kinds: list[str] = []
        live_B = 0.0
        for j, name in enumerate(self.names[i:], start=i + 1):
            if name not in kinds:
                kinds.append(name)
                live_B = self._live_B(i, kinds)
            yield live_B, 2 * max(self.sent_B[i], self.sent_B[j])

    def _live_B(self, i: int, kinds: Sequence[str]) -> float:
        layers = [self.graph.segment(name) for name in kinds]
        made = {name: one for name, one in made_in(layers).items() if not one.is_cache}
        held_B = {**self.ends[i], **bytes_beside(self.graph, made)}
        live_B = (
            self.single[s.name].activations_B + self.ratio[s.name] * left_of(held_B, s, self.graph) for s in layers
        )
        return max(live_B)
