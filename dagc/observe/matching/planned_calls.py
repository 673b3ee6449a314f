"""Collectives that each rank of a plan calls in one pass, in order, as traces name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import nan

from ...base.collectives import ACROSS, SEND
from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import record
from ...cost.records import value_at
from ...ir.op import Op
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.routed_dims import rows_of
from ...ir.sharding import Axes
from ...plan.result import PhaseResult
from ...view.facts.timeline import Member, slices
from ..planned_rank import members

SEND_RECV, RECV = "send_recv", "recv"
KINDS = {"permute": SEND_RECV, **dict.fromkeys(ACROSS, SEND_RECV)}
"""Kinds of the plan -> those of traces, where they have another name."""


@record
class PlannedCall:
    """`op` of a layer; outside of layers, where `layer` is empty, a send or a receive. `part`: micro-batches and lanes as they run.
    `payload_B`: of one call, of elements of `each_B` (NaN: not known, or another one in each step). `ranks`: of its group, numbered from 0 by GPU
    id; () between two ranks. `time_s`: planned, of `calls` calls one after the other."""

    kind: str
    part: int
    layer: str
    op: str
    payload_B: float
    each_B: float
    ranks: tuple[int, ...]
    time_s: float
    calls: int = 1

    @property
    def name(self) -> str:
        return f"{self.layer}/{self.op}" if self.layer else self.op

    @property
    def key(self) -> tuple[int, str, str]:
        return (self.part, self.layer, self.op)

    @property
    def elements(self) -> float:
        return self.payload_B / self.each_B


@dataclass
class PlannedCalls:
    """Of a phase; those of a rank are made when they are asked for."""

    result: PhaseResult
    members: list[Member] = field(init=False)
    gpus: list[int] = field(init=False)
    _groups: dict[tuple[Axes, int], tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = members(self.result)
        self.members, self.gpus = found, [member.gpu for member in found]

    def __len__(self) -> int:
        return len(self.members)

    def of(self, rank: int) -> list[PlannedCall]:
        """In the order in which they begin; where lanes take turns, that of the plan's schedule."""
        member = self.members[rank]
        result, graph = self.result, self.result.graph
        out: list[PlannedCall] = []
        opened: set[int] = set()
        receives = bool(member.stage) and not graph.the_mesh.apart
        pieces = [s for s in slices(result, member) if s.kind == SEND.name or self._moves(s.segment, s.op)]
        for piece in sorted(pieces, key=lambda s: s.start_s) if graph.lanes > 1 else pieces:
            part = piece.microbatch * graph.lanes + piece.lane
            if receives and part not in opened:
                opened.add(part)
                out.append(self._edge(RECV, part, member.stage - 1))
            if piece.layer is None:
                out.append(self._edge(SEND.name, part, member.stage))
            else:
                op = graph.segment(piece.segment).by_name[piece.op]
                out.append(self._call(op, piece.segment, graph.layer_name(piece.segment, piece.layer), part, rank))
        if receives:  # of parts in which the stage itself has no collective
            out += [self._edge(RECV, p, member.stage - 1) for p in self._parts if p not in opened]
        return out

    @property
    def _parts(self) -> Iterator[int]:
        return iter(range(self.result.graph.microbatches * self.result.graph.lanes))

    def _moves(self, segment: str, op: str) -> bool:
        return bool(segment) and self.result.graph.segment(segment).by_name[op].is_collective

    def _edge(self, kind: str, part: int, edge: int) -> PlannedCall:
        cost = self.result.costs.edges[edge]
        graph = self.result.graph
        each = DTYPE_BYTES[graph.embedding.by_name[graph.embedding.output].dtype]
        if edge < len(graph.sends) and graph.sends[edge].beside:
            each = 1  # values of several dtypes go as bytes
        return PlannedCall(SEND_RECV, part, "", kind, cost.payload_B, each, (), cost.time_s)

    def _call(self, op: Op, segment: str, layer: str, part: int, rank: int) -> PlannedCall:
        cost = self.result.costs.ops[segment, op.name]
        kind = KINDS.get(op.runtime_kind, op.runtime_kind)
        steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
        # how many rows an expert gets is another number in each pass
        known = kind != SEND_RECV and rows_of(op.dims) is None
        payload_B = cost.payload_B if known else nan
        ranks = () if kind == SEND_RECV else self.group(op.axes, rank)
        time_s = value_at(cost.time_s, self.members[rank].index)
        return PlannedCall(kind, part, layer, op.name, payload_B, DTYPE_BYTES[op.dtype], ranks, time_s, steps)

    def group(self, axes: Axes, rank: int) -> tuple[int, ...]:
        """Ranks that a rank shares a group over some axes with."""
        if (axes, rank) not in self._groups:
            number = {gpu: i for i, gpu in enumerate(self.gpus)}
            for row in self.result.graph.the_mesh.groups(axes).tolist():
                members = tuple(sorted(number[gpu] for gpu in row))
                self._groups |= {(axes, one): members for one in members}
        return self._groups[axes, rank]
