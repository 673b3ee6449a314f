"""sp: split the sequence, by K/V all-gather, ring or Ulysses; and Megatron's residual split over tp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

from dagc.base.frozen import record
from dagc.base.phase_kinds import PHASE_KINDS
from dagc.ir.axes import HEADS, Method
from dagc.ir.graph import Graph, Op, Segment
from dagc.ir.graph_pass import Doubt, GraphPass
from dagc.ir.ops.attributes import AttendAttrs
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS
from dagc.ir.ops.sizes import loop_axes, loop_dims
from dagc.ir.routed_dims import routed, stem
from dagc.ir.sharding import Axes


@record
class SequenceParallel(GraphPass):
    """The sequence over its axis. `method`: how attention sees the whole context. `sequence_parallel`: the residual stream
    is split over `tp` too."""

    name: ClassVar[str] = "sp"
    method: Method = "allgather"
    sequence_parallel: bool = False

    def run(self, graph: Graph) -> Graph:
        mesh = graph.the_mesh
        seq = mesh.of("sp")
        tensor = mesh.of("tp") if self.sequence_parallel and graph.takes_prompts else ()
        inner = mesh.of("etp") if mesh.folded else mesh.of("tp")

        def annotate(segment: Segment, op: Op) -> Op:
            dims = loop_dims(segment, op)
            tokens = OPS[op.kind].tokens
            if tokens is Tokens.ATTEND:
                return _attend(segment, op, graph.kind, self.method, seq, mesh.size)
            if tokens is Tokens.IN_ORDER:
                return _over_heads(segment, op, seq, mesh.size) if graph.takes_prompts else op
            if tokens is Tokens.CACHE:
                return op.annotate("context", seq)
            rows = routed(segment, op)
            if rows is not None and tokens is not Tokens.AT_HOME:
                # A decode step has one token a sequence, the same on every sequence rank.
                return op.annotate(rows.slot, _without((*seq, *tensor), inner) if graph.takes_prompts else ())
            if graph.takes_prompts and "seq" in dims:
                residual = tokens is Tokens.AT_HOME or not set(loop_axes(op)) & set(mesh.of("tp"))
                op = op.annotate("seq", (*seq, *tensor) if residual else seq)
            if rows is not None:
                op = op.annotate(rows.slot, (*seq, *tensor) if graph.takes_prompts else ())
            if graph.generates and "context" in dims and tokens is not Tokens.CHOOSE:
                op = op.annotate("context", seq)
            return op

        return graph.map_ops(annotate, "annotated")

    def doubts(self, graph: Graph) -> Iterator[Doubt]:
        """Attention of which ulysses finds no heads to exchange."""
        if self.method != "ulysses" or not graph.takes_prompts:
            return
        seq = set(graph.the_mesh.of("sp"))
        for segment in graph.segments:
            for op in segment.ops:
                if OPS[op.kind].tokens is Tokens.ATTEND and seq & set(op.loop("seq")):
                    found = [f"{d} {segment.size(d):g}" for d in op.dims[:-1] if d not in ("batch", "seq")]
                    heads = ", ".join(found) or "none"
                    yield Doubt(
                        segment.name, op.name,
                        "ulysses has no heads to exchange here: keys and values are gathered instead",
                        (f"dimensions of heads: {heads}; heads, kv_heads or group must divide over tp x sp",),
                    )  # fmt: skip


def _attend(segment: Segment, op: Op, kind: str, method: str, seq: Axes, size: Callable[[Axes], int]) -> Op:
    """Prefill: whole context: K and V all-gathered, passed around a ring, or heads exchanged. Decode: context stays split."""
    if PHASE_KINDS[kind].generates:
        return op.annotate("context", seq)
    if method == "ulysses" and seq:
        exchanged = _over_heads(segment, op, seq, size)
        if exchanged != op:
            return exchanged
    op = op.annotate("seq", seq)
    if method == "ring" and seq:
        op = replace(op, attrs=op.of(AttendAttrs).but(ring=seq))
    return op


def _over_heads(segment: Segment, op: Op, seq: Axes, size: Callable[[Axes], int]) -> Op:
    """All tokens of some heads, where a dimension of heads divides; the op as it is where none does."""
    for dim in (d for d in op.dims if stem(d) in HEADS):
        whole = (*op.loop(dim), *seq)
        if segment.size(dim) % size(whole) == 0:
            return op.annotate(dim, whole)
    return op


def _without(axes: Axes, taken: Axes) -> Axes:
    return tuple(a for a in axes if a not in taken)
