"""How many pairs of queries and keys attention counts, what a rank has of them, and the bytes that it reads and writes."""

from __future__ import annotations

from math import prod

import numpy as np

from ...base.draft_trees import levels, of_word
from ...base.dtypes import DTYPE_BYTES
from ...base.traced import array_of
from ..entries import entries_dim, group_of
from ..mesh import Mesh
from ..op import Op
from ..segment import Segment
from .attention_operands import attend_operands, entry_operands
from .attributes.attention import AttendAttrs, CacheAttrs, SelectAttrs
from .attributes.copies import HostCacheAttrs
from .sequence import Array, over_blocks, query_runs
from .sizes import by_loops, local_bytes


def query_key_pairs(segment: Segment, op: Op) -> float:
    """Pairs per sequence and head. Queries are the last positions of their context: S(S+1)/2 for a whole causal prompt;
    a window, chunk or choice of w tokens lets a query see at most w of those before it."""
    queries, context = segment.size("seq"), segment.size("context")
    before, tree = context - queries, tree_of(op)
    if tree:  # a drafted token sees those that it comes from, and none of another branch
        found = (
            count * _pairs_between(segment, op, before + d, before + d + 1) for d, count in enumerate(levels(tree))
        )
        return sum(found, 0.0)
    return _pairs_between(segment, op, before, context)


def tree_of(op: Op) -> tuple[int, ...]:
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


def attend_flops(segment: Segment, op: Op) -> float:
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
    chosen = op.of(AttendAttrs).chosen_entries
    return min(1.0, segment.size("seq") * chosen / _entries(segment, op)) if chosen else 1.0


def seen_shares(segment: Segment, op: Op, mesh: Mesh) -> tuple[float, float]:
    """What queries see of a rank's tokens, and of the entries beside them, on the rank that sees most. Of a split context the first rank has
    the entries, the last what a window leaves of the tokens."""
    tokens, entries = min(seen_share(segment, op, mesh), chosen_share(segment, op)), entries_share(segment, op)
    if not op.of(AttendAttrs).entries or not op.loop("context") or not _causal(op):
        return tokens, entries
    context, ranks = segment.size("context"), mesh.size(op.loop("context"))
    window, chunk = _reach(op, context)
    query = context - segment.size("seq")
    begin = max(0.0, query - window + 1, query // chunk * chunk)
    on_first = min(max(0.0, 1.0 - begin * ranks / context), chosen_share(segment, op))
    if on_first * context / ranks + entries * _entries(segment, op) < tokens * context / ranks:
        return tokens, 0.0
    return on_first, entries


def _entries(segment: Segment, op: Op) -> float:
    """Of groups of the context, the begun one among them."""
    dims = (entries_dim(segment.dims_of(name)) for name in op.inputs)
    return next((segment.size(dim) for dim in dims if dim is not None), 0.0)


def score_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Of one rank's scores, heads x queries x keys in the dtype of activations, masked ones included."""
    rows = prod(segment.size(d) / mesh.size(op.loop(d)) for d in op.dims[:-1])
    tokens, entries = seen_shares(segment, op, mesh)
    keys = segment.size("context") / mesh.size(op.loop("context"))
    keys *= tokens
    if op.of(AttendAttrs).entries:
        keys += _entries(segment, op) * entries
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


def attend_kernels(segment: Segment, op: Op, mesh: Mesh) -> tuple[tuple[float, float], ...]:
    return unfused_kernels(segment, op, mesh) if op.of(AttendAttrs).kernel == "unfused" else ()


def attend_scratch(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Scores and their softmax; of a ring those of one block of keys."""
    if op.of(AttendAttrs).kernel == "flash":
        return 0.0
    return 2.0 * score_bytes(segment, op, mesh) / mesh.size(op.ring)


def select_flops(segment: Segment, op: Op) -> float:
    """Every head's score of every pair, its rectification and its share in the sum; or its place in a maximum and the order. Of entries
    those whose tokens are all there."""
    heads, width = segment.dims_of(op.inputs[0])[-2:]
    pairs = query_key_pairs(segment, op)
    return segment.size("batch") * segment.size(heads) * (2.0 * segment.size(width) + 3.0) * pairs


def seen_bytes(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
    """Of keys and values the tokens that the rank's queries see, wherever on the ring they come from."""
    dims = segment.dims_of(name)
    size = local_bytes(segment, name, by_loops(op, dims), mesh)
    if entries_dim(dims) is not None:
        return size * seen_shares(segment, op, mesh)[1]
    return size * seen_shares(segment, op, mesh)[0] if "context" in dims else size


def attend_share(segment: Segment, op: Op, mesh: Mesh) -> Array | None:
    """A rank's queries see as many keys as their positions let them; of a split context the last rank has the window."""
    if op.loop("context"):
        shares = context_shares(segment, op, mesh)
        return over_blocks(shares * len(shares), op.loop("context"), mesh)
    return query_share(segment, op, mesh)


def query_share(segment: Segment, op: Op, mesh: Mesh) -> Array | None:
    if not op.loop("seq"):
        return None
    pairs = block_pairs(segment, op, mesh)
    return over_blocks(pairs / (pairs.mean() or 1.0), op.loop("seq"), mesh)


def stored_share(segment: Segment, name: str) -> float:
    """What a value takes of the bytes of its numbers where it is stored: less than all of a cache that is compressed."""
    made = segment.by_name.get(name)
    if made is not None and isinstance(made.attrs, HostCacheAttrs):
        return stored_share(segment, made.inputs[0])
    return 1.0 / made.attrs.ratio if made is not None and isinstance(made.attrs, CacheAttrs) else 1.0
