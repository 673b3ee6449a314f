"""sp: split the sequence, by K/V all-gather, ring or Ulysses; and Megatron's residual split over tp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.base.phase_kinds import PHASE_KINDS
from dagc.ir.axes import HEADS, Method
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import Doubt, GraphPass, PassError
from dagc.ir.mesh import Mesh
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS
from dagc.ir.ops.sizes import loop_axes, loop_dims
from dagc.ir.routed_dims import routed, stem
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes


class NoCacheSplit(PassError):
    """No layer has a cache that dcp could split, whatever the other degrees."""


@record
class SequenceParallel(GraphPass):
    """The sequence over its axis. `method`: how attention sees the whole context. `sequence_parallel`: the residual stream
    is split over `tp` too. `dcp`: ranks of `tp`, its innermost, over which a step that generates splits the context instead of
    heads, where attention sees the whole of it."""

    name: ClassVar[str] = "sp"
    method: Method = "allgather"
    sequence_parallel: bool = False
    dcp: int = 1

    def run(self, graph: Graph) -> Graph:
        mesh = graph.the_mesh
        seq = mesh.of("sp")
        tensor = mesh.of("tp") if self.sequence_parallel and graph.takes_prompts else ()
        inner = mesh.of("etp") if mesh.folded else mesh.of("tp")
        shared = shared_axes(mesh, self.dcp) if graph.generates and not graph.takes_prompts else ()
        whole = {segment.name: seen_in_part(segment) for segment in graph.segments} if shared else {}

        def annotate(segment: Segment, op: Op) -> Op:
            if shared and "context" in loop_dims(segment, op) and op.name not in whole[segment.name]:
                return _share(segment, op, seq, shared)
            dims = loop_dims(segment, op)
            tokens = OPS[op.kind].tokens
            if tokens is Tokens.ATTEND:
                return _attend(segment, op, graph.kind, self.method, seq, mesh.size)
            if tokens is Tokens.IN_ORDER:
                return _over_heads(segment, op, seq, mesh.size) if graph.takes_prompts else op
            if tokens is Tokens.CACHE:
                return op.annotate("context", seq) if "context" in op.dims else op
            rows = routed(segment, op)
            if rows is not None and tokens is not Tokens.AT_HOME:
                # A decode step has one token a sequence, the same on every sequence rank.
                return op.annotate(rows.slot, _without((*seq, *tensor), inner) if graph.takes_prompts else ())
            if graph.takes_prompts and "seq" in dims:
                residual = tokens is Tokens.AT_HOME or not set(loop_axes(op)) & set(mesh.of("tp"))
                residual = residual and bool(op.inputs)  # data is read as its readers want it
                op = op.annotate("seq", (*seq, *tensor) if residual else seq)
            if rows is not None:
                op = op.annotate(rows.slot, (*seq, *tensor) if graph.takes_prompts else ())
            if graph.generates and "context" in dims and tokens is not Tokens.CHOOSE:
                op = op.annotate("context", seq)
            return op

        done = graph.map_ops(annotate, "annotated")
        if shared and not any(set(shared) & set(op.loop("context")) for s in done.segments for op in s.ops):
            raise NoCacheSplit(
                f"dcp {self.dcp} splits no cache: no layer's attention sees a whole context",
                at="dcp",
                help=("leave out `dcp`",),
            )
        return done

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


def shared_axes(mesh: Mesh, dcp: int) -> Axes:
    """The innermost atoms of `tp` that make this many ranks. Raises PassError."""
    if dcp == 1:
        return ()
    tensor = mesh.of("tp")
    for first in range(len(tensor) - 1, -1, -1):
        if mesh.size(tensor[first:]) == dcp:
            return tensor[first:]
    raise PassError(f"dcp {dcp} is no inner part of tp {mesh.size(tensor)}", at="dcp")


def seen_in_part(segment: Segment) -> set[str]:
    """Ops on keys and values of which queries see a part alone, or choose from: every rank has those whole, as in engines."""
    whole: set[str] = set()
    for op in reversed(segment.ops):
        tokens = OPS[op.kind].tokens
        attrs = op.attrs if isinstance(op.attrs, AttendAttrs) else None
        if op.name in whole or tokens is Tokens.CHOOSE or (attrs is not None and (attrs.window or attrs.chunk)):
            whole.add(op.name)
            whole |= {name for name in op.inputs if name in segment.by_name and "context" in segment.dims_of(name)}
    return whole


def _share(segment: Segment, op: Op, seq: Axes, shared: Axes) -> Op:
    """The context over `shared`, and nothing else of the op. Raises PassError where ranks of it keep other heads."""
    for dim, axes in op.loops:
        if dim != "context" and set(axes) & set(shared):
            if OPS[op.kind].tokens is Tokens.CACHE:
                raise PassError(
                    f"dcp splits a cache that tp splits by {dim} already", at="dcp", where=(segment.name, op.name),
                    because=("dcp takes ranks of tp that would keep copies of keys and values",),
                )  # fmt: skip
            op = op.annotate(dim, _without(axes, shared))
    return op.annotate("context", (*seq, *shared))


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
    rows = segment.dims_of(op.inputs[0]) if OPS[op.kind].gradient_of else op.dims
    for dim in (d for d in rows if stem(d) in HEADS):
        whole = (*op.loop(dim), *seq)
        if segment.size(dim) % size(whole) == 0:
            return op.annotate(dim, whole)
    return op


def _without(axes: Axes, taken: Axes) -> Axes:
    return tuple(a for a in axes if a not in taken)
