"""How many tokens of a sequence the KV cache of a layer keeps: all of its context, or those that a query can still see."""

from __future__ import annotations

from math import gcd

import numpy as np

from ..base.dtypes import DTYPE_BYTES
from ..base.frozen import record
from ..base.phase_kinds import part_kind
from ..base.traced import called
from ..ir.entries import counts_tokens, entries_dim
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.attention import CacheAttrs
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, state_bytes
from ..ir.segment import Segment
from ..spec.phase import Phase


@record
class CachePolicy:
    """`frees`: the engine frees blocks of `block` tokens that no later query can see; else every layer keeps all."""

    frees: bool = True
    block: int = 16


def cache_policy(phase: Phase) -> CachePolicy:
    """What the phase's engine keeps behind a window."""
    return CachePolicy(phase.window_cache == "freed", phase.kv_block)


def kept_tokens(context: int, queries: int, window: int | None, chunk: int | None, block: int) -> int:
    """Most tokens in whole blocks for one sequence at any step up to `context`, where the last `queries` tokens are
    the step's own: a query sees `window` tokens, itself included, and nothing before its own `chunk`. At most `context`.

    A window seldom begins where a block does, so it takes one block more than its width. vLLM counts the same
    (vllm/v1/kv_cache_interface.py, SlidingWindowSpec and ChunkedLocalAttentionSpec).
    """
    if chunk is None:
        first = context if window is None else queries + window - 1  # from here on the window moves
        ends = np.arange(max(1, min(first, context)), min(context, first + block - 1) + 1)
    else:
        # A chunk is fullest when its last token is the first query, a window in it at any of `block` places.
        last = max(0, context - queries) // chunk
        starts = np.arange(max(0, last - block // gcd(block, chunk)), last + 1) * chunk
        full = starts + chunk - 1 + queries
        if window is not None:
            steps = np.arange(block + 1)
            full = np.concatenate([full[:, None] - steps, starts[:, None] + window - 1 + queries + steps])
        ends = np.clip(full, 1, context)
    oldest = np.maximum(ends - queries, 0)
    begin = np.zeros_like(ends) if chunk is None else oldest // chunk * chunk
    if window is not None:
        begin = np.maximum(begin, oldest - window + 1)
    blocks = (ends - 1) // block - begin // block + 1
    return min(context, int(blocks.max()) * block)


def kept_share(op: Op) -> tuple[float, float]:
    """What a cache takes of the bytes of its numbers wherever it is stored, and on the GPU."""
    kept = op.attrs
    if not isinstance(kept, CacheAttrs):
        return 1.0, 1.0
    return 1.0 / kept.ratio, (1.0 - kept.host) / kept.ratio


def sequence_tokens(segment: Segment, op: Op, kind: str, policy: CachePolicy) -> float:
    """Most tokens of one sequence in a cache, or groups of them, on all ranks together. Of a prefill, what later tokens see:
    keys of its own pass are activations until then."""
    grouped = entries_dim(op.dims)
    if grouped is not None:
        return segment.size(grouped, op.scope)
    context, generates = segment.size("context", op.scope), part_kind(op.scope, kind).generates
    most = context
    if isinstance(op.attrs, CacheAttrs) and op.attrs.keep and not generates:
        most = min(context, float(op.attrs.keep))
    window, chunk = segment.reach.get(op.name, (None, None)) if policy.frees else (None, None)
    if window is None and chunk is None:
        return most
    queries = segment.size("seq", op.scope) if generates else 1
    return min(most, _kept_of(context, queries, window, chunk, policy.block))


@called
def _kept_of(context: float, queries: float, window: int | None, chunk: int | None, block: int) -> int:
    return kept_tokens(int(context), int(queries), window, chunk, block)


def held_tokens(segment: Segment, op: Op, mesh: Mesh, kind: str, policy: CachePolicy) -> float:
    """Those on one rank. Where the context is split, the last rank has the window."""
    assert op.sharding is not None
    most = sequence_tokens(segment, op, kind, policy)
    if entries_dim(op.dims) is not None:
        return most
    split = dict(zip(op.dims, op.sharding.dims, strict=True)).get("context", ())
    return min(segment.size("context", op.scope) / mesh.size(split), most)


def token_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Bytes of one token of every sequence in a cache, or of one entry, on one rank, as numbers."""
    assert op.sharding is not None
    total = DTYPE_BYTES[op.dtype]
    for dim, axes in zip(op.dims, op.sharding.dims, strict=True):
        total *= 1.0 if counts_tokens(dim) else segment.size(dim, op.scope) / mesh.size(axes)
    return total


def cache_bytes(segment: Segment, mesh: Mesh, kind: str, policy: CachePolicy) -> float:
    """KV cache and states of one layer on one rank, for the sequences of one lane of one micro-batch."""
    total = 0.0
    for op in segment.ops:
        if OPS[op.kind].tokens is Tokens.CACHE:
            held = token_bytes(segment, op, mesh) * held_tokens(segment, op, mesh, kind, policy)
            total += held * kept_share(op)[1]
        total += state_bytes(segment, op, mesh)
    return total


def host_bytes(graph: Graph, policy: CachePolicy) -> float:
    """KV cache that host memory keeps for one GPU, of the stage that has most of it."""
    of_layer = {s.name: _host_bytes(s, graph, policy) for s in graph.segments}
    return graph.in_fullest_stage(of_layer) * graph.microbatches * graph.lanes


def _host_bytes(segment: Segment, graph: Graph, policy: CachePolicy) -> float:
    total = 0.0
    for op in segment.ops:
        if isinstance(op.attrs, CacheAttrs) and op.attrs.host:
            held = held_tokens(segment, op, graph.the_mesh, graph.kind, policy)
            stored, on_gpu = kept_share(op)
            total += token_bytes(segment, op, graph.the_mesh) * held * (stored - on_gpu)
    return total


def passing_bytes(segment: Segment, op: Op, mesh: Mesh, policy: CachePolicy, graph: Graph) -> float:
    """Keys or values of this pass that queries of the pass see and the cache does not keep: live until attention ran."""
    if part_kind(op.scope, graph.kind).generates:
        return 0.0
    assert op.sharding is not None
    window, chunk = segment.reach.get(op.name, (None, None)) if policy.frees else (None, None)
    evicts = isinstance(op.attrs, CacheAttrs) and op.attrs.keep > 0
    if window is None and chunk is None and not evicts:
        return 0.0
    split = dict(zip(op.dims, op.sharding.dims, strict=True)).get("context", ())
    context, new = segment.size("context", op.scope), segment.size("seq", op.scope)
    before = min([context - new, *(n - 1 for n in (window, chunk) if n is not None)])
    seen = (new + before) / mesh.size(split)
    kept = held_tokens(segment, op, mesh, graph.kind, policy)
    return token_bytes(segment, op, mesh) * max(0.0, seen - kept)
