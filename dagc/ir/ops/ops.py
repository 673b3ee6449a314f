"""The op set: for each kind its loops, its FLOPs, which inputs it is linear in, and how a sharded iteration
space maps onto the layouts of its operands. Everything that a pass asks of an op is answered here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from ..graph import DTYPE_BYTES, Graph, Op, Segment
from ..mesh import Mesh
from ..routed_dims import dim_like, routed, stem
from ..sharding import Axes, Sharding
from .attributes import AttendAttrs, CombineAttrs, ExchangeAttrs
from .sequence import Array, over_blocks, query_runs
from .states import state_bytes


def _no_flops(segment: Segment, op: Op) -> float:
    return 0.0


def _contract_flops(segment: Segment, op: Op) -> float:
    """2 FLOPs a multiply-add over the whole iteration space; a pure product counts one."""
    dims = loop_dims(segment, op)
    total = prod(segment.size(d, op.scope) for d in dims)
    return total * (2.0 if len(dims) > len(op.dims) else 1.0)


def _elementwise_flops(per_element: float) -> Callable[[Segment, Op], float]:
    def flops(segment: Segment, op: Op) -> float:
        return per_element * segment.count(op.dims, op.scope)

    return flops


def query_key_pairs(segment: Segment, op: Op) -> float:
    """Pairs a sequence and head. Queries are the last positions of their context: S(S+1)/2 for a whole causal prompt;
    a window, chunk or choice of w tokens lets a query see at most w of those before it."""
    queries, context = segment.size("seq"), segment.size("context")
    return _pairs_between(segment, op, context - queries, context)


def _pairs_between(segment: Segment, op: Op, first: float, end: float) -> float:
    """Pairs of the queries at the positions from `first` to before `end`."""
    context = segment.size("context")
    window, chunk = _reach(op, context)
    window = min(window, _chosen(op) or context)
    if not _causal(op):
        return (end - first) * min(window, chunk)
    return _pairs_before(end, window, chunk) - _pairs_before(first, window, chunk)


def block_pairs(segment: Segment, op: Op, mesh: Mesh) -> Array:
    """Query-key pairs of each block of queries over the op's `seq` loop, [blocks]."""
    held = query_runs(segment, op, mesh)
    return np.asarray([sum(_pairs_between(segment, op, a, b) for a, b in block) for block in held])


def context_shares(segment: Segment, op: Op, mesh: Mesh) -> Array:
    """Share of the query-key pairs whose keys each rank of a split context holds, [blocks]: what a window or chunk leaves
    lies with the last of them."""
    queries, context, blocks = segment.size("seq"), segment.size("context"), mesh.size(op.loop("context"))
    window, chunk = _reach(op, context)
    if not _causal(op) or min(window, chunk) >= context or blocks == 1:
        return np.full(blocks, 1.0 / blocks)
    at = np.arange(context - queries, context)
    first = np.maximum(np.maximum(at - window + 1, at // chunk * chunk), 0.0)
    edges = np.arange(blocks + 1)[:, None] * (context / blocks)
    seen = np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], first)
    pairs: Array = np.maximum(seen, 0.0).sum(axis=1)
    return np.asarray(pairs / pairs.sum())


def rank_share(segment: Segment, op: Op, mesh: Mesh) -> Array:
    """FLOPs of each rank over the mean of ranks, by broadcasting over the mesh: attention over a split sequence is as
    uneven as the positions that ranks hold. Other ops are even (experts apart: their load is `cost`'s)."""
    if op.kind == "attend" and op.loop("context"):
        shares = context_shares(segment, op, mesh)
        return over_blocks(shares * len(shares), op.loop("context"), mesh)
    if op.kind not in ("attend", "select") or not op.loop("seq"):
        return np.ones((1,) * len(mesh.atoms))
    pairs = block_pairs(segment, op, mesh)
    return over_blocks(pairs / (pairs.mean() or 1.0), op.loop("seq"), mesh)


def attention_imbalance(graph: Graph) -> float:
    """FLOPs of attention on the rank that has most of them, over the mean of ranks; of the layers the largest."""
    shares = [
        float(rank_share(s, op, graph.the_mesh).max()) for s in graph.segments for op in s.ops if op.kind == "attend"
    ]
    return max(shares, default=1.0)


def _pairs_before(tokens: float, window: float, chunk: float) -> float:
    """Causal pairs of the first tokens of a sequence: whole chunks, then the begun one."""
    whole, rest = divmod(tokens, chunk)
    full, begun = min(chunk, window), min(rest, window)
    pairs = whole * (full * (full + 1) / 2 + (chunk - full) * full)
    return pairs + begun * (begun + 1) / 2 + (rest - begun) * begun


def _reach(op: Op, context: float) -> tuple[float, float]:
    """Window and chunk, in tokens."""
    if not isinstance(op.attrs, AttendAttrs):
        return context, context
    return min(context, op.attrs.window or context), min(context, op.attrs.chunk or context)


def _causal(op: Op) -> bool:
    return not isinstance(op.attrs, AttendAttrs) or op.attrs.causal


def _chosen(op: Op) -> int:
    return op.attrs.chosen if isinstance(op.attrs, AttendAttrs) else 0


def seen_share(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Part of a rank's context that its queries see, on the rank that sees most."""
    if not _causal(op):
        return 1.0  # what comes later is seen without bound
    context = segment.size("context")
    window, chunk = _reach(op, context)
    held = context / mesh.size(op.loop("context"))
    most = 0.0
    for block in query_runs(segment, op, mesh):
        seen = end = 0.0
        for first, last in sorted(block):
            begin = max(end, 0.0, first - window + 1, first // chunk * chunk)
            seen, end = seen + last - begin, last
        most = max(most, seen)
    return min(held, most) / held


def chosen_share(segment: Segment, op: Op) -> float:
    """Part of the context that is selected by any query, where no two select the same."""
    context = segment.size("context")
    return min(1.0, segment.size("seq") * (_chosen(op) or context) / context)


def _attend_flops(segment: Segment, op: Op) -> float:
    """2 FLOPs a multiply-add: scores over every query width, then values: 2 B H (d_qk + d_v) pairs."""
    qs, _, _ = attend_operands(op)
    heads = [d for d in op.dims if d not in ("batch", "seq")][:-1]
    width = segment.size(op.dims[-1])
    for q in qs:
        width += segment.size(segment.dims_of(q)[-1])
    lead = prod(segment.size(d) for d in heads) * segment.size("batch")
    return 2.0 * lead * width * query_key_pairs(segment, op)


def _select_flops(segment: Segment, op: Op) -> float:
    """Every head's score of every pair, its rectification and its share in the sum."""
    heads, width = segment.dims_of(op.inputs[0])[-2:]
    pairs = query_key_pairs(segment, Op("", "", (), (), ""))
    return segment.size("batch") * segment.size(heads) * (2.0 * segment.size(width) + 3.0) * pairs


def _delta_flops(segment: Segment, op: Op) -> float:
    """Of the recurrence, for each token and element of a head's matrix: it fades (1), is read by the key (2), is
    written to (2) and read by the query (2)."""
    return 7.0 * segment.count(op.dims) * segment.size(segment.dims_of(op.inputs[1])[-1])


@dataclass(frozen=True, slots=True)
class OpDef:
    """`linear`: input positions through which a pending sum may pass. `fused`: no kernel of its own.
    `local`: costs no memory traffic (a view). `rides_in`: fused kernels that do this op too where it stands beside them,
    so that their measured times include it."""

    kind: str
    flops: Callable[[Segment, Op], float] = _no_flops
    linear: tuple[int, ...] = ()
    fused: bool = False
    local: bool = False
    uses_tensor_cores: bool = False
    rides_in: frozenset[str] = frozenset()


ATTENTION, EXPERTS = "attention", "experts"
"""Fused kernels of engines: attention with what stands between it and its projections; the FFN of routed experts."""

_IN_ATTENTION, _IN_EXPERTS = frozenset({ATTENTION}), frozenset({EXPERTS})

ACTIVATIONS = {
    "silu": 4.0,
    "gelu": 8.0,
    "gelu_tanh": 8.0,
    "relu": 1.0,
    "sigmoid": 3.0,
    "tanh": 3.0,
    "softplus": 3.0,
    "exp": 1.0,
}
"""Element-wise functions of the language, with their FLOPs an element."""

OPS: dict[str, OpDef] = {
    d.kind: d
    for d in (
        OpDef("contract", _contract_flops, linear=(0, 1), uses_tensor_cores=True, rides_in=_IN_EXPERTS),
        OpDef("multiply", _elementwise_flops(1.0), linear=(0, 1), fused=True, rides_in=_IN_EXPERTS),
        OpDef("add", _elementwise_flops(1.0), linear=(0, 1), fused=True, rides_in=_IN_EXPERTS),
        OpDef("scale", _elementwise_flops(1.0), linear=(0,), fused=True, rides_in=_IN_EXPERTS),
        OpDef("rms_norm", _elementwise_flops(4.0), rides_in=_IN_ATTENTION | _IN_EXPERTS),
        OpDef("layer_norm", _elementwise_flops(6.0), rides_in=_IN_EXPERTS),
        OpDef("row_sum", _contract_flops, rides_in=_IN_EXPERTS),
        OpDef("row_square_sum", _contract_flops, rides_in=_IN_EXPERTS),
        *(
            OpDef(kind, _elementwise_flops(each), fused=True, rides_in=_IN_EXPERTS)
            for kind, each in ACTIVATIONS.items()
        ),
        OpDef("shift", _elementwise_flops(1.0), fused=True, rides_in=_IN_EXPERTS),
        OpDef("clamp", _elementwise_flops(2.0), fused=True, rides_in=_IN_EXPERTS),
        OpDef("rsqrt", _elementwise_flops(2.0), fused=True, rides_in=_IN_EXPERTS),
        OpDef("temper", _elementwise_flops(1.0), linear=(0,), fused=True, rides_in=_IN_ATTENTION | _IN_EXPERTS),
        OpDef("rope", _elementwise_flops(6.0), linear=(0,), fused=True, rides_in=_IN_ATTENTION),
        OpDef("cache", fused=True, rides_in=_IN_ATTENTION),
        OpDef("attend", _attend_flops, uses_tensor_cores=True),
        OpDef("conv", _contract_flops),
        OpDef("delta", _delta_flops, uses_tensor_cores=True),
        OpDef("select", _select_flops, uses_tensor_cores=True),
        OpDef("route", _elementwise_flops(0.0)),
        OpDef("dispatch", linear=(0,), rides_in=_IN_EXPERTS),
        OpDef("combine", _elementwise_flops(2.0), linear=(0,), rides_in=_IN_EXPERTS),
        OpDef("lookup", linear=(1,)),
        OpDef("last", linear=(0,), fused=True),
        OpDef("argmax"),
        OpDef("slice", linear=(0,), fused=True, local=True, rides_in=_IN_EXPERTS),
    )
}
"""Every compute op. FLOPs of element-wise ops are small integers an element, kept for conservation checks."""


def rotated(width: float, fraction: float) -> int:
    """Numbers of a head that `rope` turns."""
    return int(width * fraction + 1e-6)


def attend_operands(op: Op) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(queries, keys, values) of an attend: as many queries as keys, their scores add."""
    pairs = op.of(AttendAttrs).pairs
    return op.inputs[:pairs], op.inputs[pairs : 2 * pairs], op.inputs[2 * pairs]


def attend_extras(op: Op) -> tuple[str | None, str | None]:
    """(sinks, selected tokens) of an attend, where it has them."""
    attrs = op.of(AttendAttrs)
    rest = list(op.inputs[2 * attrs.pairs + 1 :])
    selected = rest.pop() if attrs.chosen else None
    return (rest[0] if rest else None), selected


def loop_dims(segment: Segment, op: Op) -> tuple[str, ...]:
    """The iteration space: result dims first, then the dims that only inputs have."""
    dims = list(op.dims)
    for name in op.inputs:
        dims.extend(d for d in segment.dims_of(name) if d not in dims)
    return tuple(dims)


def flops(segment: Segment, op: Op) -> float:
    """FLOPs of one execution over all ranks, replicated work counted once."""
    return 0.0 if op.kind not in OPS else OPS[op.kind].flops(segment, op)


def loop_axes(op: Op) -> Axes:
    """Every axis that splits the iteration space."""
    return tuple(a for _, axes in op.loops for a in axes)


def local_flops(segment: Segment, op: Op, mesh: Mesh) -> float:
    """FLOPs of one rank, in the mean of ranks (they differ by `rank_share`, and by the load of experts)."""
    return flops(segment, op) / mesh.size(tuple(set(loop_axes(op))))


def input_layout(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """Layout that an op needs of an input, from its annotated loops."""
    dims = segment.dims_of(name)
    if op.kind == "combine" and name == op.inputs[0]:
        return _slots_at_home(op, dims)
    if op.kind == "combine" or op.kind == "dispatch":
        return tuple(op.loop(d) if d in ("batch", "seq", op.dims[-1]) else () for d in dims)
    if op.kind == "cache":
        # A decode step appends its one token on whichever rank holds the tail of the context.
        seq = op.loop("context") if segment.size("seq") == segment.size("context") else ()
        return tuple(seq if d == "seq" else op.loop(d) for d in dims)
    if op.ring:
        return tuple(op.ring if d == "context" else op.loop(d) for d in dims)
    return tuple(op.loop(d) for d in dims)


def _slots_at_home(op: Op, dims: tuple[str, ...]) -> tuple[Axes, ...]:
    """Layout of routed tokens on the ranks that own the tokens: before dispatch's exchange, after combine's.

    The exchange axes stand minor in `slot`, so that one all_to_all moves them to `expert` and back.
    """
    home = op.of(ExchangeAttrs).exchange
    stay = tuple(a for a in op.loop(dim_like(dims, "expert") or "") if a not in home)
    split = {"expert": stay, "slot": (*op.loop(dim_like(dims, "slot") or ""), *home)}
    return tuple(split.get(stem(d), op.loop(d)) for d in dims)


def result_layout(segment: Segment, op: Op) -> Sharding:
    """Layout of the result as the op leaves it, with the reductions that its split loops leave pending."""
    if op.kind == "dispatch":
        return Sharding(_slots_at_home(op, op.dims))
    dims = tuple(op.loop(d) for d in op.dims)
    if isinstance(op.attrs, CombineAttrs):
        rows = routed(segment, op)
        experts = op.loop(rows.expert) if rows is not None else ()
        return Sharding(dims, tuple(a for a in experts if a not in op.attrs.exchange))
    if op.kind == "cache":
        return Sharding(dims)
    summed = tuple(a for d in loop_dims(segment, op) if d not in op.dims for a in op.loop(d))
    reduce = {"attend": "softmax", "argmax": "max"}.get(op.kind, "sum")
    return Sharding(dims, summed, reduce if summed else "sum")


def local_count(segment: Segment, dims: tuple[str, ...], layout: tuple[Axes, ...], mesh: Mesh, scope: str) -> float:
    """Elements that one rank holds."""
    total = 1.0
    for dim, axes in zip(dims, layout, strict=True):
        total *= segment.size(dim, scope) / mesh.size(axes)
    return total


def local_bytes(segment: Segment, name: str, layout: tuple[Axes, ...], mesh: Mesh) -> float:
    """Bytes that one rank holds of a value or weight, in the given layout."""
    count = local_count(segment, segment.dims_of(name), layout, mesh, segment.scope_of(name))
    return count * DTYPE_BYTES[segment.dtype_of(name)]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes one rank moves to and from its memory for one op; expert weights apart, since only hit ones are read."""

    activations_B: float
    weights_B: float
    expert_weights_B: float


def traffic(segment: Segment, op: Op, mesh: Mesh) -> Traffic:
    """Every distinct operand read once and the result written once. A cache append touches the new tokens only, an
    attention the tokens of its context that its queries see, wherever on the ring they come from."""
    if op.kind not in OPS or OPS[op.kind].local:
        return Traffic(0.0, 0.0, 0.0)
    acts = weights = experts = 0.0
    for name in dict.fromkeys(op.inputs):
        dims = segment.dims_of(name)
        if op.kind == "attend" and "context" in dims:
            seen = min(seen_share(segment, op, mesh), chosen_share(segment, op))
            size = local_bytes(segment, name, tuple(op.loop(d) for d in dims), mesh) * seen
        else:
            size = local_bytes(segment, name, input_layout(segment, op, name), mesh)
        if not name.startswith("@"):
            acts += size
        elif op.kind == "lookup":
            acts += _result_bytes(segment, op, mesh)  # only the rows that are looked up
        elif segment.weight[name].scope == "experts":
            experts += size
        else:
            weights += size
    acts += acts if op.kind == "cache" else _result_bytes(segment, op, mesh)
    acts += 2 * state_bytes(segment, op, mesh)  # read before the pass, written after it
    return Traffic(acts, weights, experts)


def _result_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    layout = result_layout(segment, op).dims
    return local_count(segment, op.dims, layout, mesh, op.scope) * DTYPE_BYTES[op.dtype]
