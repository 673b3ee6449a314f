"""The op set: one record per kind, and what passes ask of an op, answered by its record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import record
from ..graph import Graph
from ..mesh import Mesh
from ..naming import state_name
from ..op import Op
from ..segment import Segment
from ..sharding import Axes, Sharding
from . import (
    attention,
    contraction,
    dropouts,
    elementwise,
    experts,
    gradients,
    leaving,
    losses,
    moves,
    norms,
    packing,
    pooling,
    recurrent,
    router_losses,
    rows,
    streams,
    training,
)
from .attention_work import stored_share
from .attributes.attrs import Attrs, Value
from .attributes.experts import RouteAttrs
from .attributes.read_record import read_record
from .kind import OpKind, Tokens
from .sequence import Array
from .sizes import by_loops, local_bytes, local_count, loop_axes, loop_dims

_FAMILIES = (
    elementwise,
    contraction,
    norms,
    attention,
    recurrent,
    pooling,
    experts,
    rows,
    packing,
    leaving,
    losses,
    router_losses,
    dropouts,
    streams,
    gradients,
    training,
    moves,
)

OPS: Mapping[str, OpKind] = {kind.name: kind for family in _FAMILIES for kind in family.KINDS}
"""Every kind of op."""


def attrs_of(kind: str, given: Iterable[tuple[str, Value]]) -> Attrs:
    """The attributes of an op of this kind, whole numbers as integers. A kind that is unknown has none: the verifier names it.
    Raises AttributeFault."""
    return read_record(kind, OPS[kind].attrs if kind in OPS else Attrs, given)


def flops(segment: Segment, op: Op) -> float:
    """FLOPs of one execution over all ranks, replicated work counted once."""
    known = segment.flops.get(op.name)
    if known is None or known[0] is not op:
        known = segment.flops[op.name] = op, counted(segment, op)
    return known[1]


def counted(segment: Segment, op: Op) -> float:
    """The same, counted anew."""
    return OPS[op.kind].flops(segment.within(op.scope), op)


def local_flops(segment: Segment, op: Op, mesh: Mesh) -> float:
    """FLOPs of one rank, in the mean of ranks (they differ by `rank_share`, and by the load of experts)."""
    return flops(segment, op) / mesh.size(tuple(set(loop_axes(op))))


def rank_share(segment: Segment, op: Op, mesh: Mesh) -> Array:
    """FLOPs of each rank over the mean of ranks, by broadcasting over the mesh: attention over a split sequence is as
    uneven as the positions of the ranks. Other ops are even (experts apart: their load is `cost`'s)."""
    uneven = uneven_share(segment, op, mesh)
    return np.ones((1,) * len(mesh.atoms)) if uneven is None else uneven


def uneven_share(segment: Segment, op: Op, mesh: Mesh) -> Array | None:
    """The same; None: all ranks have as many."""
    share = OPS[op.kind].share
    return share(segment.within(op.scope), op, mesh) if share is not None else None


def attention_imbalance(graph: Graph) -> float:
    """FLOPs of attention on the rank that has most of them, over the mean of ranks; of the layers the largest. Kernels that store
    scores compute those that a mask hides, too, and are even."""
    ops = (
        (s, op)
        for s in graph.segments
        for op in s.ops
        if OPS[op.kind].tokens is Tokens.ATTEND and not kernels_of(s, op, graph.the_mesh)
    )
    return max((float(rank_share(s, op, graph.the_mesh).max()) for s, op in ops), default=1.0)


def input_layout(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """Layout that an op needs of an input, from its annotated loops."""
    needs = OPS[op.kind].needs
    return by_loops(op, segment.dims_of(name)) if needs is None else needs(segment.within(op.scope), op, name)


def result_layout(segment: Segment, op: Op) -> Sharding:
    """Layout of the result as the op leaves it, with the partial axes that its split loops leave."""
    kind = OPS[op.kind]
    if kind.makes is not None:
        return kind.makes(segment, op)
    summed = tuple(a for d in loop_dims(segment, op) if d not in op.dims for a in op.loop(d))
    return Sharding(by_loops(op, op.dims), summed, kind.reduce if summed else "sum", op.on)


def whole_dims(segment: Segment, op: Op) -> set[str]:
    """Dimensions that tensor parallelism must not split."""
    return OPS[op.kind].whole(segment, op)


def state_of(segment: Segment, op: Op) -> Op | None:
    """What an op remembers of the tokens that it has seen, in addition to the KV cache, as a cache: dims, dtype and
    layout. Its size does not grow with the context."""
    state = OPS[op.kind].state
    if state is None:
        return None
    dims, dtype = state(segment, op)
    return Op(
        state_name(op.name), "cache", (op.name,), dims, dtype, op.block, op.scope, sharding=Sharding(by_loops(op, dims))
    )


def table_by_id(op: Op) -> str:
    """The weight of which an op reads a row for every token id; empty: it reads none."""
    if OPS[op.kind].reads_rows:
        return op.inputs[1]
    return op.inputs[2] if isinstance(op.attrs, RouteAttrs) and op.attrs.by_token else ""


def state_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Bytes of an op's state on one rank."""
    state = state_of(segment, op)
    if state is None or state.sharding is None:
        return 0.0
    return local_count(segment, state.dims, state.sharding.dims, mesh, state.scope) * DTYPE_BYTES[state.dtype]


def kernels_of(segment: Segment, op: Op, mesh: Mesh) -> tuple[tuple[float, float], ...]:
    """(FLOPs, bytes) of one rank in each kernel of an op that runs as several; else none."""
    rule = OPS[op.kind].kernels
    return () if rule is None else rule(segment.within(op.scope), op, mesh)


def scratch_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Bytes on one rank that are there only while an op runs, beside operands and result."""
    rule = OPS[op.kind].scratch
    return 0.0 if rule is None else rule(segment.within(op.scope), op, mesh)


@record
class Traffic:
    """Bytes one rank moves to and from its memory for one op; expert weights apart, since only hit ones are read."""

    activations_B: float
    weights_B: float
    expert_weights_B: float


def traffic(segment: Segment, op: Op, mesh: Mesh) -> Traffic:
    """Every distinct operand read once and the first result written once; further results, which are small, are not
    counted. A cache append touches the new tokens only, an attention the tokens of its context that its queries see,
    wherever on the ring they come from."""
    kind = OPS[op.kind]
    if kind.local:
        return Traffic(0.0, 0.0, 0.0)
    acts = weights = experts_B = 0.0
    for name in dict.fromkeys(op.inputs):
        if segment.is_further(name):
            continue
        size = _operand_bytes(segment, op, name, mesh)
        if not segment.is_weight(name):
            acts += size * stored_share(segment, name)
        elif kind.reads_rows:
            acts += result_bytes(segment, op, mesh)
        elif segment.weight_of(name).scope == "experts":
            experts_B += size
        else:
            weights += size
    acts += acts * stored_share(segment, op.name) if kind.appends else result_bytes(segment, op, mesh)
    touched = 1.0 if kind.touched is None else kind.touched(segment.within(op.scope), op)
    acts += 2 * touched * state_bytes(segment, op, mesh)  # read before the pass, written after it
    return Traffic(acts, weights, experts_B)


def _operand_bytes(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
    reads = OPS[op.kind].reads
    if reads is not None:
        return reads(segment.within(op.scope), op, name, mesh)
    return local_bytes(segment, name, input_layout(segment, op, name), mesh)


def read_bytes(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
    """Bytes that one rank reads of a value, as `traffic` counts them."""
    if OPS[op.kind].local or segment.is_further(name):
        return 0.0
    return _operand_bytes(segment, op, name, mesh) * stored_share(segment, name)


def result_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Bytes of a result on one rank."""
    layout = result_layout(segment, op).dims
    return local_count(segment, op.dims, layout, mesh, op.scope) * DTYPE_BYTES[op.dtype]
