"""Attention: its cache, rotary embedding and temperature, and the choice of tokens."""

from __future__ import annotations

from ...base.draft_trees import nodes, word
from ..entries import cached_dims, counts_tokens, entries_dim
from ..mesh import Mesh
from ..op import Op
from ..routed_dims import stem
from ..segment import Segment
from ..sharding import Axes, Sharding
from .attention_operands import attend_extras, attend_operands, chooses, entry_operands
from .attention_work import (
    attend_flops,
    attend_kernels,
    attend_scratch,
    attend_share,
    query_share,
    seen_bytes,
    select_flops,
    stored_share,
    tree_of,
)
from .attributes.attention import AttendAttrs, CacheAttrs, RopeAttrs, SelectAttrs, TemperAttrs
from .attributes.copies import HostCacheAttrs
from .elementwise import as_operand, per_element
from .experts import value_widths
from .kind import (
    AS_OPERAND,
    IN_ATTENTION,
    IN_BOTH,
    DtypeRule,
    Misfit,
    OpKind,
    Tokens,
    listed,
    operands,
    role,
    same_dims,
)
from .sizes import by_loops, local_bytes, loop_dims


def rotated(width: float, fraction: float) -> int:
    """Numbers of a head that `rope` rotates."""
    return int(width * fraction + 1e-6)


def _attends(segment: Segment, op: Op) -> None:
    """Queries have the rows of the result, each key the width of its query, the value the width of the result, sinks one
    number per row of the result."""
    attrs = op.of(AttendAttrs)
    pairs, chosen = attrs.pairs, chooses(attrs)
    fixed = 2 * pairs + 1 + (pairs + 1 if attrs.entries else 0) + chosen
    if not fixed <= len(op.inputs) <= fixed + 1:
        wanted = f"{pairs} queries, {pairs} keys, values" + (
            f", {pairs} keys of entries and their values" if attrs.entries else ""
        )
        wanted += ", chosen tokens" if chosen else ""
        raise Misfit("operands", len(op.inputs), f"{wanted}, and sinks where there are some")
    queries, keys, value = attend_operands(op)
    sinks, selected = attend_extras(op)
    rows = set(op.dims[:-1])
    _checks_a_tree(segment, op)
    for query, key in zip(queries, keys, strict=True):
        dims = segment.dims_of(query)
        if not set(dims[:-1]) <= rows:
            raise Misfit(role(op, query, "queries"), listed(dims), f"rows of {listed(op.dims[:-1])}")
        same_dims(f"width of {role(op, key, 'keys')}", segment.dims_of(key)[-1:], dims[-1:])
    same_dims(f"width of {role(op, value, 'values')}", segment.dims_of(value)[-1:], op.dims[-1:])
    _sees_entries(segment, op)
    if sinks is not None and not set(segment.dims_of(sinks)) <= rows:
        raise Misfit(role(op, sinks, "sinks"), listed(segment.dims_of(sinks)), f"dims of {listed(op.dims[:-1])}")
    if selected is not None and stem(segment.dims_of(selected)[-1]) != "chosen":
        raise Misfit(role(op, selected, "chosen tokens"), listed(segment.dims_of(selected)), "[..., chosen]")
    made = segment.by_name.get(selected or "")
    if made is not None and isinstance(made.attrs, SelectAttrs):
        of_entries = entries_dim(segment.dims_of(made.inputs[1])) is not None
        if of_entries != bool(op.of(AttendAttrs).chosen_entries):
            what = ("tokens", "entries") if op.of(AttendAttrs).chosen_entries else ("entries", "tokens")
            raise Misfit(role(op, made.name, "chosen tokens"), f"a choice of {what[0]}", f"one of {what[1]}")


def _sees_entries(segment: Segment, op: Op) -> None:
    """Each key of entries has the width of its query, their values the width of the result, all of them the same groups."""
    if not op.of(AttendAttrs).entries:
        if op.of(AttendAttrs).chosen_entries:
            raise Misfit("operands", len(op.inputs), "entries, of which some are chosen")
        return
    queries, _, _ = attend_operands(op)
    keys, values = entry_operands(op)
    widths = [*(segment.dims_of(q)[-1:] for q in queries), op.dims[-1:]]
    for name, width in zip((*keys, *values), widths, strict=False):
        dims = segment.dims_of(name)
        same_dims(f"width of {role(op, name, 'entries')}", dims[-1:], width)
        wanted = entries_dim(segment.dims_of(keys[0]))
        if wanted is None or not set(dims[:-1]) <= {wanted, *op.dims[:-1]} or wanted not in dims:
            raise Misfit(role(op, name, "entries"), listed(dims), "[batch, entries, ..., width] of one kind of groups")


def _checks_a_tree(segment: Segment, op: Op) -> None:
    """As many new tokens as the tree has nodes, behind a context."""
    tree = tree_of(op)
    if tree and 1 + nodes(tree) != segment.size("seq", op.scope):
        raise Misfit("tree", word(tree), f"one of {segment.size('seq', op.scope) - 1:g} tokens")


def _chosen_tokens(op: Op) -> tuple[str, ...]:
    selected = attend_extras(op)[1]
    return () if selected is None else (selected,)


def _around_the_ring(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """Keys and values that travel are split over the ring; everything else follows the loops."""
    dims = segment.dims_of(name)
    return tuple(op.ring if d == "context" and op.ring else op.loop(d) for d in dims)


def _cached(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "new tokens")
    same_dims("result", op.dims, cached_dims(value))


def _new_tokens(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """A decode step appends its one token on whichever rank has the tail of the context."""
    seq = op.loop("context") if segment.size("seq") == segment.size("context") else ()
    return tuple(seq if d == "seq" else op.loop(d) for d in segment.dims_of(name))


def _cache_leaves(segment: Segment, op: Op) -> Sharding:
    return Sharding(by_loops(op, op.dims))


def _host_keeps(segment: Segment, op: Op) -> None:
    (cache,) = operands(segment, op, "cache")
    same_dims("result", op.dims, cache)
    if "context" not in op.dims:
        raise Misfit("operand 1 (cache)", listed(cache), "[batch, context, ...]")


def _host_tokens(segment: Segment, op: Op, mesh: Mesh) -> tuple[float, float]:
    """Of the tokens of passes before, and of the new ones."""
    own = segment.within(op.scope)
    queries, context = own.size("seq"), own.size("context")
    kept_B = local_bytes(own, op.inputs[0], by_loops(op, op.dims), mesh) * stored_share(segment, op.inputs[0])
    kept_B *= op.of(HostCacheAttrs).share
    return kept_B * (context - queries) / context, kept_B * queries / context


def _selects(segment: Segment, op: Op) -> None:
    by_head = len(op.inputs) == 2
    queries, keys, *weights = operands(segment, op, "queries", "keys", *(() if by_head else ("weights of heads",)))
    rows = queries[:-1] if by_head else weights[0]
    if bool(op.of(SelectAttrs).together) != by_head:
        raise Misfit(
            "operands", len(op.inputs), "weights of heads where single tokens are selected, none where blocks are"
        )
    if not any(map(counts_tokens, keys)):
        raise Misfit("operand 2 (keys)", listed(keys), "[batch, context, width]")
    same_dims("width of operand 2 (keys)", keys[-1:], queries[-1:])
    wanted = rows if by_head else rows[:-1]
    if (op.dims[:-1], stem(op.dims[-1])) != (wanted, "chosen"):
        raise Misfit("result", listed(op.dims), listed((*wanted, "chosen")))


def _all_but_tokens(segment: Segment, op: Op) -> set[str]:
    """But rows of the result: each head of keys may select for itself."""
    return set(loop_dims(segment, op)) - set(op.dims[:-1])


def pairs_turned(segment: Segment, op: Op) -> int:
    """Pairs of a head that a rotary embedding turns."""
    return rotated(segment.size(op.dims[-1], op.scope), op.of(RopeAttrs).fraction) // 2


def rope_of_factors(segment: Segment, dim: str) -> Op | None:
    """The rotary embedding whose frequencies have factors of this dimension; None: it is of none."""
    turned = (op for op in segment.ops if isinstance(op.attrs, RopeAttrs) and len(op.inputs) > 1)
    return next((op for op in turned if segment.dims_of(op.inputs[1]) == (dim,)), None)


def _turned(segment: Segment, op: Op) -> None:
    """With a second operand each frequency has a factor."""
    factors = ["factors"] if len(op.inputs) > 1 else []
    value, *rest = operands(segment, op, "value", *factors)
    same_dims("result", op.dims, value)
    for dims in rest:
        if len(dims) != 1 or segment.size(dims[0]) != pairs_turned(segment, op):
            raise Misfit(
                "operand 2 (factors)", listed(dims), f"one number for each of {pairs_turned(segment, op)} pairs"
            )


def _widths_turned(segment: Segment, op: Op) -> set[str]:
    return {segment.dims_of(name)[-1] for name in op.inputs}


KINDS = (
    OpKind(
        name="rope", about="rotary embedding", attrs=RopeAttrs, dims=_turned, flops=per_element(6.0), linear=(0,), fused=True,
        by_position=True, whole=_widths_turned, rides_in=IN_ATTENTION,
    ),
    OpKind(
        name="temper", about="a factor that grows with the token's position", attrs=TemperAttrs, dims=as_operand,
        flops=per_element(1.0), linear=(0,), fused=True, by_position=True, rides_in=IN_BOTH,
    ),
    OpKind(
        name="cache", about="keys or values of this pass with those of all passes before", attrs=CacheAttrs, dims=_cached,
        dtype=DtypeRule("cache"),
        idle="it only keeps", needs=_new_tokens, makes=_cache_leaves, tokens=Tokens.CACHE, appends=True, fused=True,
        rides_in=IN_ATTENTION,
    ),
    OpKind(
        name="host_cache", about="what host memory keeps of a cache: tokens of passes before come, new ones go", attrs=HostCacheAttrs,
        dims=_host_keeps, dtype=AS_OPERAND, idle="it only moves", fused=True, local=True, view=True, rides_in=IN_ATTENTION,
        copies=_host_tokens,
    ),
    OpKind(
        name="attend", about="attention of queries to a context", attrs=AttendAttrs, dims=_attends,
        dtype=DtypeRule(indices=_chosen_tokens), flops=attend_flops, uses_tensor_cores=True, needs=_around_the_ring, reduce="softmax",
        whole=value_widths, tokens=Tokens.ATTEND, over_heads=True, share=attend_share, reads=seen_bytes,
        kernels=attend_kernels, scratch=attend_scratch, kept=True,
    ),
    OpKind(
        name="select", about="the tokens of the largest scores, summed over heads, or for each head the blocks of them", attrs=SelectAttrs,
        dims=_selects,
        dtype=DtypeRule("int32", lambda segment, op: "int32"), flops=select_flops, uses_tensor_cores=True, whole=_all_but_tokens,
        tokens=Tokens.CHOOSE, share=query_share,
    ),
)  # fmt: skip
