"""The placed graph of a phase expanded to every rank, for networkx: the slow peer of `dagc.passes.schedule`.

Built from the sharded graph and the costs alone, by the rules of the schedule and not from its result: a value is
needed when its producer has finished; each rank runs one compute and one communication stream in program order; a
collective starts when its whole group has arrived; a stage sends to the equal rank of the next one. The longest
path of this graph is therefore an independent check of the makespan.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from dagc.cost.records import Costs
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.ops.attributes.moves import RingTurnAttrs
from dagc.ir.segment import Segment

Ids = NDArray[np.int64]
"""Node ids, one per rank of a stage: shape of the mesh."""
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Expanded:
    """Edges between numbered nodes; `weights` are seconds from start to start. `rank_nodes`: nodes that are an op or
    a send on one rank; the others join the group of a collective, end a ring, or are the sink (the last node)."""

    nodes: int
    rank_nodes: int
    sources: Ids
    targets: Ids
    weights: Times

    @property
    def sink(self) -> int:
        return self.nodes - 1

    def to_networkx(self) -> nx.DiGraph:
        edges = zip(self.sources.tolist(), self.targets.tolist(), self.weights.tolist(), strict=True)
        graph = nx.DiGraph()
        graph.add_weighted_edges_from(edges)
        return graph


def longest_path_s(expanded: Expanded) -> float:
    """Makespan as networkx finds it."""
    return float(nx.dag_longest_path_length(expanded.to_networkx()))


def expand(graph: Graph, costs: Costs, *, passes: int = 1) -> Expanded:
    """One pass of all micro-batches, expanded. With more `passes` a micro-batch starts the next pass when its token
    has returned to the first stage, as in decoding."""
    return Expander(graph, costs).run(passes)


@dataclass
class Stream:
    """Last node of each rank's two streams on one stage; None before the first."""

    last: dict[str, Ids | None] = field(default_factory=lambda: {"compute": None, "comm": None})


@dataclass
class Expander:
    graph: Graph
    costs: Costs
    count: int = 0
    rank_nodes: int = 0
    durations: list[Times] = field(default_factory=list)
    edges: list[tuple[Ids, Ids, bool]] = field(default_factory=list)  # (from, to, whether the start is enough)

    def run(self, passes: int) -> Expanded:
        streams = [Stream() for _ in self.graph.stages]
        tokens: list[list[Ids | None]] = [[None] * self.graph.lanes for _ in range(self.graph.microbatches)]
        for step in range(passes):
            for j in range(self.graph.microbatches):
                if step:
                    tokens[j] = [self.back(value) for value in tokens[j]]
                for i in range(len(self.graph.stages)):
                    tokens[j] = self.cell(i, streams[i], tokens[j])
        return self.finish()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.graph.the_mesh.shape

    # -- nodes and edges -------------------------------------------------------------------------

    def new(self, duration: Times | float, shape: tuple[int, ...]) -> Ids:
        """Nodes for every position of a shape."""
        times = np.broadcast_to(np.asarray(duration, dtype=float), shape)
        ids = np.arange(self.count, self.count + times.size, dtype=np.int64).reshape(shape)
        self.count += times.size
        self.durations.append(times.ravel())
        return ids

    def link(self, source: Ids | None, target: Ids, *, from_start: bool = False) -> None:
        if source is not None:
            a, b = np.broadcast_arrays(source, target)
            self.edges.append((a.ravel(), b.ravel(), from_start))

    def finish(self) -> Expanded:
        durations = np.concatenate(self.durations)
        sources = np.concatenate([a for a, _, _ in self.edges])
        targets = np.concatenate([b for _, b, _ in self.edges])
        early = np.concatenate([np.full(a.size, s) for a, _, s in self.edges])
        weights = np.where(early, 0.0, durations[sources])
        leaf = np.ones(self.count, dtype=bool)
        leaf[sources[~early]] = False  # whatever nobody waits for to finish ends the pass
        ends = np.flatnonzero(leaf)
        sources = np.concatenate([sources, ends])
        targets = np.concatenate([targets, np.full(ends.size, self.count)])
        weights = np.concatenate([weights, durations[ends]])
        order = np.lexsort((weights, targets, sources))  # of parallel edges the longest, last, is kept
        pairs = np.stack([sources, targets], axis=1)[order]
        order = order[np.append((pairs[1:] != pairs[:-1]).any(axis=1), True)]
        return Expanded(self.count + 1, self.rank_nodes, sources[order], targets[order], weights[order])

    # -- the rules -------------------------------------------------------------------------------

    def cell(self, stage: int, streams: Stream, ready: list[Ids | None]) -> list[Ids | None]:
        """One micro-batch through the layers of one stage, and on to the next stage."""
        for name, repeat in self.graph.stages[stage].layers:
            for _ in range(repeat):
                ready = self.layer(self.graph.segment(name), streams, ready)
        if stage == len(self.graph.stages) - 1:
            return ready
        return [self.send(stage, value, streams) for value in ready]

    def layer(self, segment: Segment, streams: Stream, ready: list[Ids | None]) -> list[Ids | None]:
        values: list[dict[str, tuple[Ids, Ids]]] = [{} for _ in ready]  # result -> (its start, its end)
        for op, lane in program(segment, self.graph.lanes):
            values[lane][op.name] = self.op(segment, op, streams, ready[lane], values[lane])
        if segment.output == segment.input:
            return ready
        return [done[segment.output][1] for done in values]

    def op(
        self, segment: Segment, op: Op, streams: Stream, entry: Ids | None, values: Mapping[str, tuple[Ids, Ids]]
    ) -> tuple[Ids, Ids]:
        """The nodes of one op on all ranks of a stage: where it starts, and where its result is there."""
        node = self.new(self.costs.ops[segment.name, op.name].time_s, self.shape)
        self.rank_nodes += node.size
        wait = self.join(op, node)
        self.link(streams.last[op.stream], wait)
        blocks: list[Ids] = []  # a ring attends to the local block while the others come round
        for name in segment.sources(op):
            if name == segment.input:
                self.link(entry, wait)
            elif op.ring and isinstance(segment.by_name[name].attrs, RingTurnAttrs):
                self.link(values[name][0], wait, from_start=True)
                blocks.append(values[name][1])
            else:
                self.link(values[name][1], wait)
        end = node
        if blocks:
            end = self.new(0.0, self.shape)
            for part in (node, *blocks):
                self.link(part, end)
        streams.last[op.stream] = end
        return node, end

    def join(self, op: Op, node: Ids) -> Ids:
        """Where an op waits: a collective at one node for each of its groups, any other op at itself."""
        if not op.axes:
            return node
        mesh = self.graph.the_mesh
        group = self.new(0.0, tuple(1 if name in op.axes else size for name, size in mesh.atoms))
        self.link(group, node)
        return group

    def send(self, stage: int, value: Ids | None, streams: Stream) -> Ids:
        node = self.new(self.costs.edges[stage].time_s, self.shape)
        self.rank_nodes += node.size
        self.link(value, node)
        self.link(streams.last["comm"], node)
        streams.last["comm"] = node
        return node

    def back(self, value: Ids | None) -> Ids:
        """The token on its way to the first stage: a delay that occupies no stream."""
        node = self.new(self.costs.token_return.time_s if self.graph.kind == "decode" else 0.0, self.shape)
        self.link(value, node)
        return node


def program(segment: Segment, lanes: int) -> Iterator[tuple[Op, int]]:
    """Program order of a layer: the lanes alternate at every change of stream."""
    for _, chunk in itertools.groupby(segment.ops, key=lambda op: op.stream):
        ops = list(chunk)
        yield from ((op, lane) for lane in range(lanes) for op in ops)
