"""Attention: its cache, rotary embedding and temperature, the choice of tokens, and how many pairs of queries and keys count."""

from __future__ import annotations

from math import prod

import numpy as np

from ...base.draft_trees import levels, nodes, of_word, word
from ...base.dtypes import DTYPE_BYTES
from ...base.traced import array_of
from ..entries import cached_dims, counts_tokens, entries_dim, group_of
from ..mesh import Mesh
from ..op import Op
from ..routed_dims import stem
from ..segment import Segment
from ..sharding import Axes, Sharding
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
from .sequence import Array, over_blocks, query_runs
from .sizes import by_loops, local_bytes, loop_dims


def query_key_pairs(segment: Segment, op: Op) -> float:
    """Pairs per sequence and head. Queries are the last positions of their context: S(S+1)/2 for a whole causal prompt;
    a window, chunk or choice of w tokens lets a query see at most w of those before it."""
    queries, context = segment.size("seq"), segment.size("context")
    before, tree = context - queries, _tree(op)
    if tree:  # a drafted token sees those that it comes from, and none of another branch
        found = (
            count * _pairs_between(segment, op, before + d, before + d + 1) for d, count in enumerate(levels(tree))
        )
        return sum(found, 0.0)
    return _pairs_between(segment, op, before, context)


def _tree(op: Op) -> tuple[int, ...]:
    return of_word(op.attrs.tree) if isinstance(op.attrs, AttendAttrs) else ()


def _pairs_between(segment: Segment, op: Op, first: float, end: float) -> float:
    """Pairs of the queries at the positions from `first` to before `end`, those with entries of groups among them."""
    if isinstance(op.attrs, SelectAttrs) and entry_tokens(segment, op):
        return _entry_pairs(segment, op, first, end)
    found = _token_pairs(segment, op, first, end)
    sees = isinstance(op.attrs, AttendAttrs) and op.attrs.entries
    return found + _entry_pairs(segment, op, first, end) if sees else found


def _entry_pairs(segment: Segment, op: Op, first: float, end: float) -> float:
    tokens = entry_tokens(segment, op)
    most = op.of(AttendAttrs).chosen_entries if isinstance(op.attrs, AttendAttrs) else 0
    return group_pairs(end, tokens, most) - group_pairs(first, tokens, most)


def group_pairs(queries: float, tokens: float, most: float) -> float:
    """Pairs of the first tokens of a sequence with groups of so many tokens that are whole by then, each with `most` of them (0: all)."""
    counted = min(queries, most * tokens) if most else queries
    whole, rest = divmod(counted, tokens)
    pairs = tokens * whole * (whole - 1) / 2 + whole * (rest + 1)
    return pairs + most * (queries - counted)


def entry_tokens(segment: Segment, op: Op) -> float:
    """Tokens of a group whose entries an op reads; 0 where it reads none."""
    for name in op.inputs:
        dim = entries_dim(segment.dims_of(name))
        if dim is not None:
            return segment.size(str(group_of(dim)))
    return 0.0


def _token_pairs(segment: Segment, op: Op, first: float, end: float) -> float:
    context = segment.size("context")
    window, chunk = _reach(op, context)
    if block := _chosen_together(op):
        return _pairs_of_blocks(end, _chosen(op), block) - _pairs_of_blocks(first, _chosen(op), block)
    window = min(window, _chosen(op) or context)
    if not _causal(op):
        return (end - first) * min(window, chunk)
    return _pairs_before(end, window, chunk) - _pairs_before(first, window, chunk)


def _pairs_of_blocks(tokens: float, chosen: float, block: float) -> float:
    """Causal pairs of the first tokens of a sequence where a query sees so many tokens in whole blocks, its own among them as far as it has
    come."""
    all_seen, rest = min(tokens, chosen), max(tokens - chosen, 0.0)
    whole, begun = divmod(rest, block)
    others = chosen - block
    pairs = all_seen * (all_seen + 1) / 2 + whole * (others * block + block * (block + 1) / 2)
    return pairs + begun * others + begun * (begun + 1) / 2


def block_pairs(segment: Segment, op: Op, mesh: Mesh) -> Array:
    """Query-key pairs of each block of queries over the op's `seq` loop, [blocks]."""
    runs = query_runs(segment, op, mesh)
    found: Array = array_of([sum(_pairs_between(segment, op, a, b) for a, b in block) for block in runs])
    return found


def context_shares(segment: Segment, op: Op, mesh: Mesh) -> Array:
    """Share of the query-key pairs whose keys each rank of a split context has, [blocks]: what a window or chunk leaves
    is on the last of them, entries of groups count on the first."""
    shares = _token_shares(segment, op, mesh)
    if not isinstance(op.attrs, AttendAttrs) or not op.attrs.entries:
        return shares
    context = segment.size("context")
    entries, pairs = _entry_pairs(segment, op, context - segment.size("seq"), context), query_key_pairs(segment, op)
    first = np.arange(len(shares)) == 0
    return np.asarray(shares * ((pairs - entries) / pairs) + first * (entries / pairs))


def _token_shares(segment: Segment, op: Op, mesh: Mesh) -> Array:
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


def _chosen_together(op: Op) -> int:
    return op.attrs.chosen_together if isinstance(op.attrs, AttendAttrs) else 0


def seen_share(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Part of a rank's context that its queries see, on the rank that sees most."""
    if not _causal(op):
        return 1.0  # what comes later is seen without bound
    context = segment.size("context")
    window, chunk = _reach(op, context)
    local_context = context / mesh.size(op.loop("context"))
    most = 0.0
    for block in query_runs(segment, op, mesh):
        seen = end = 0.0
        for first, last in sorted(block):
            begin = max(end, 0.0, first - window + 1, first // chunk * chunk)
            seen, end = seen + last - begin, last
        most = max(most, seen)
    return min(local_context, most) / local_context


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


def entries_share(segment: Segment, op: Op) -> float:
    """Part of the entries that is selected by any query, where no two select the same."""
    entries, chosen = _entries(segment, op), op.of(AttendAttrs).chosen_entries
    return min(1.0, segment.size("seq") * chosen / entries) if chosen else 1.0


def _entries(segment: Segment, op: Op) -> float:
    """Of groups of the context, the begun one among them."""
    dims = (entries_dim(segment.dims_of(name)) for name in op.inputs)
    return next((segment.size(dim) for dim in dims if dim is not None), 0.0)


def score_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Of one rank's scores, heads x queries x keys in the dtype of activations, masked ones included."""
    rows = prod(segment.size(d) / mesh.size(op.loop(d)) for d in op.dims[:-1])
    keys = segment.size("context") / mesh.size(op.loop("context"))
    keys *= min(seen_share(segment, op, mesh), chosen_share(segment, op))
    if op.of(AttendAttrs).entries:
        keys += _entries(segment, op) * entries_share(segment, op)
    return rows * keys * DTYPE_BYTES[op.dtype]


def unfused_kernels(segment: Segment, op: Op, mesh: Mesh) -> tuple[tuple[float, float], ...]:
    """Scores, softmax, values: each kernel writes what the next one reads, so that scores are moved four times (Algorithm 0 of
    FlashAttention, arXiv 2205.14135); products with further keys add to them. No pair is left out."""
    queries, keys, value = attend_operands(op)
    entry_keys, entry_value = entry_operands(op)
    scores_B = score_bytes(segment, op, mesh)
    pairs = scores_B / DTYPE_BYTES[op.dtype]

    def moved(name: str) -> float:
        return seen_bytes(segment, op, name, mesh)

    found = []
    for place, (query, key) in enumerate(zip(queries, keys, strict=True)):
        width = segment.size(segment.dims_of(query)[-1])
        further = entry_keys[place : place + 1]
        own_B = moved(query) + sum(moved(name) * stored_share(segment, name) for name in (key, *further))
        found.append((2.0 * pairs * width, own_B + scores_B * (2 if place else 1)))
    found.append((0.0, 2.0 * scores_B))
    result_B = prod(segment.size(d) / mesh.size(op.loop(d)) for d in op.dims) * DTYPE_BYTES[op.dtype]
    values_B = sum(moved(name) * stored_share(segment, name) for name in (value, *entry_value))
    found.append((2.0 * pairs * segment.size(op.dims[-1]), scores_B + values_B + result_B))
    return tuple(found)


def _attend_kernels(segment: Segment, op: Op, mesh: Mesh) -> tuple[tuple[float, float], ...]:
    return unfused_kernels(segment, op, mesh) if op.of(AttendAttrs).kernel == "unfused" else ()


def _attend_scratch(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Scores and their softmax; of a ring those of one block of keys."""
    if op.of(AttendAttrs).kernel == "flash":
        return 0.0
    return 2.0 * score_bytes(segment, op, mesh) / mesh.size(op.ring)


def _select_flops(segment: Segment, op: Op) -> float:
    """Every head's score of every pair, its rectification and its share in the sum; or its place in a maximum and the order. Of entries
    those whose tokens are all there."""
    heads, width = segment.dims_of(op.inputs[0])[-2:]
    pairs = query_key_pairs(segment, op)
    return segment.size("batch") * segment.size(heads) * (2.0 * segment.size(width) + 3.0) * pairs


def rotated(width: float, fraction: float) -> int:
    """Numbers of a head that `rope` rotates."""
    return int(width * fraction + 1e-6)


def attend_operands(op: Op) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(queries, keys, values) of an attend: as many queries as keys, their scores add."""
    pairs = op.of(AttendAttrs).pairs
    return op.inputs[:pairs], op.inputs[pairs : 2 * pairs], op.inputs[2 * pairs]


def entry_operands(op: Op) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(keys, values) of the entries that an attend sees beside tokens; none where it sees tokens alone."""
    attrs = op.of(AttendAttrs)
    first = 2 * attrs.pairs + 1
    if not attrs.entries:
        return (), ()
    return op.inputs[first : first + attrs.pairs], op.inputs[first + attrs.pairs : first + attrs.pairs + 1]


def chooses(attrs: AttendAttrs) -> bool:
    """Whether the last operand of an attend is what `select` chose."""
    return bool(attrs.chosen or attrs.chosen_entries)


def attend_extras(op: Op) -> tuple[str | None, str | None]:
    """(sinks, selected tokens or entries) of an attend, where it has them."""
    attrs = op.of(AttendAttrs)
    rest = list(op.inputs[2 * attrs.pairs + 1 + (attrs.pairs + 1 if attrs.entries else 0) :])
    selected = rest.pop() if chooses(attrs) else None
    return (rest[0] if rest else None), selected


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
    tree = _tree(op)
    if tree and 1 + nodes(tree) != segment.size("seq", op.scope):
        raise Misfit("tree", word(tree), f"one of {segment.size('seq', op.scope) - 1:g} tokens")


def _chosen_tokens(op: Op) -> tuple[str, ...]:
    selected = attend_extras(op)[1]
    return () if selected is None else (selected,)


def _around_the_ring(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """Keys and values that travel are split over the ring; everything else follows the loops."""
    dims = segment.dims_of(name)
    return tuple(op.ring if d == "context" and op.ring else op.loop(d) for d in dims)


def seen_bytes(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
    """Of keys and values the tokens that the rank's queries see, wherever on the ring they come from."""
    dims = segment.dims_of(name)
    size = local_bytes(segment, name, by_loops(op, dims), mesh)
    if entries_dim(dims) is not None:
        return size * entries_share(segment, op)
    return size * min(seen_share(segment, op, mesh), chosen_share(segment, op)) if "context" in dims else size


def _attend_share(segment: Segment, op: Op, mesh: Mesh) -> Array | None:
    """A rank's queries see as many keys as their positions let them; of a split context the last rank has the window."""
    if op.loop("context"):
        shares = context_shares(segment, op, mesh)
        return over_blocks(shares * len(shares), op.loop("context"), mesh)
    return _query_share(segment, op, mesh)


def _query_share(segment: Segment, op: Op, mesh: Mesh) -> Array | None:
    if not op.loop("seq"):
        return None
    pairs = block_pairs(segment, op, mesh)
    return over_blocks(pairs / (pairs.mean() or 1.0), op.loop("seq"), mesh)


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


def stored_share(segment: Segment, name: str) -> float:
    """What a value takes of the bytes of its numbers where it is stored: less than all of a cache that is compressed."""
    made = segment.by_name.get(name)
    if made is not None and isinstance(made.attrs, HostCacheAttrs):
        return stored_share(segment, made.inputs[0])
    return 1.0 / made.attrs.ratio if made is not None and isinstance(made.attrs, CacheAttrs) else 1.0


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
        dtype=DtypeRule(indices=_chosen_tokens), flops=_attend_flops, uses_tensor_cores=True, needs=_around_the_ring, reduce="softmax",
        whole=value_widths, tokens=Tokens.ATTEND, over_heads=True, share=_attend_share, reads=seen_bytes,
        kernels=_attend_kernels, scratch=_attend_scratch, kept=True,
    ),
    OpKind(
        name="select", about="the tokens of the largest scores, summed over heads, or for each head the blocks of them", attrs=SelectAttrs,
        dims=_selects,
        dtype=DtypeRule("int32", lambda segment, op: "int32"), flops=_select_flops, uses_tensor_cores=True, whole=_all_but_tokens,
        tokens=Tokens.CHOOSE, share=_query_share,
    ),
)  # fmt: skip
