"""A pass of inference on one rank: micro-batch after micro-batch, each through the layers of the stage.

Scatter and gather of token ids are in no trace: hosts exchange them while other passes run, and no step waits. The simulator has
no place for that: as messages they would hold up the collectives of their rank, and it stops at nodes of the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...ir.segment import Segment
from ...plan.result import PhaseResult
from . import messages as schema
from .layer_nodes import Expansion
from .rank_program import FIRST_ID, RankProgram
from .ranks import stage_hole
from .trace_rows import Context, Pattern, Refs, TraceLayer, TraceNode, Words, joined, message_size, tensor

EDGE = ("", "send")
"""Names the time of a send to the next stage."""
HOST = ("", "host")
"""Names what the host takes before a pass."""


@dataclass
class PassProgram(RankProgram):
    """Of a pass of inference."""

    @property
    def result(self) -> PhaseResult:
        assert isinstance(self.ranks.result, PhaseResult)
        return self.ranks.result

    def other_times(self) -> Mapping[tuple[str, str], float]:
        edges, host_s = self.result.costs.edges, self.result.schedule.host_s
        return {HOST: host_s, **({EDGE: edges[self.stage].time_s} if self.stage < len(edges) else {})}

    def rows(self) -> Iterator[TraceLayer]:
        graph = self.result.graph
        lanes, stages = graph.lanes, len(graph.stages)
        base = FIRST_ID
        compute: Refs = ()
        comm: Refs = ()
        tag = stages * graph.microbatches * lanes  # above those of the edges between stages
        if self.stage == 0 and self.result.schedule.host_s:
            yield TraceLayer(self.host(lanes), base, (), -1, 0, tag)
            compute, base = (base,), base + 1
        for microbatch in range(graph.microbatches):
            state = Context(((),) * lanes, compute, comm)
            first = graph.first_layer(self.stage)
            layers = [name for name, count in graph.stages[self.stage].layers for _ in range(count)]
            plan: list[tuple[Segment | None, int]] = [(graph.segment(name), first + i) for i, name in enumerate(layers)]
            if self.stage > 0:
                plan.insert(0, (None, first))
            if self.stage < stages - 1:
                plan.append((None, first + len(layers)))
            for segment, layer in plan:
                entry = layer == first
                pattern = self.pattern(segment, state, entry)
                edge = (microbatch * stages + (self.stage - 1 if entry else self.stage)) * lanes
                row = TraceLayer(pattern, base, state.flat, layer, microbatch, edge if segment is None else tag)
                yield row
                base += len(pattern.nodes)
                tag += pattern.tags
                state = row.exit
            compute, comm = state.compute, state.comm

    def pattern(self, segment: Segment | None, state: Context, entry: bool) -> Pattern:
        key = (segment.name if segment else entry, state.shape)
        if key not in self.patterns:
            numbered = state.numbered()
            if segment is None:
                self.patterns[key] = self.received(numbered) if entry else self.sent(numbered)
            else:
                self.patterns[key] = Expansion(self, segment, numbered).run()
        return self.patterns[key]

    def host(self, lanes: int) -> Pattern:
        """The host's part of a pass, which the first thing that computes waits for."""
        work = schema.attribute("num_ops", "int64", 1) + schema.attribute("tensor_size", "uint64", self.first_B)
        work += schema.attribute("op_kind", "string", "host")
        node = TraceNode(Words(("host",)), schema.COMP, "compute", (), (), HOST, 0, work)
        return Pattern((node,), Context(((),) * lanes, (0,), ()))

    # -- edges between stages --------------------------------------------------------------------

    def received(self, given: Context) -> Pattern:
        """Receives occupy no stream: they may be posted before anything else is done."""
        payload_B = self.result.costs.edges[self.stage - 1].payload_B
        size = schema.attribute("comm_size", "int64", message_size(payload_B))
        nodes = tuple(
            TraceNode(
                joined(self.cell(lane), "/recv"), schema.RECV, "", (), (), None, lane, size, stage_hole(self.stage - 1), lane,
                writes=(tensor(lane, payload_B),),
            )
            for lane in range(len(given.values))
        )  # fmt: skip
        values = tuple((lane,) for lane in range(len(nodes)))
        return Pattern(nodes, Context(values, given.compute, given.comm))

    def sent(self, given: Context) -> Pattern:
        edge = self.result.costs.edges[self.stage]
        size = schema.attribute("comm_size", "int64", message_size(edge.payload_B))
        nodes: list[TraceNode] = []
        comm = given.comm
        for lane, refs in enumerate(given.values):
            data = tuple(dict.fromkeys((*refs, *comm)))
            name, read = joined(self.cell(lane), "/send"), tuple(tensor(r, edge.payload_B) for r in refs[:1])
            nodes.append(
                TraceNode(
                    name, schema.SEND, "comm", data, (), EDGE, lane, size, stage_hole(self.stage + 1), lane, reads=read
                )
            )
            comm = (lane,)
        return Pattern(tuple(nodes), Context(given.values, given.compute, comm))
