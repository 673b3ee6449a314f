"""Bytes of weights and of the KV cache on every rank, by the arrays that it used, against the memory pass."""

from __future__ import annotations

from math import ceil, isclose, prod

import numpy as np

from ..base.arrays import NDArray
from ..base.dtypes import DTYPE_BYTES, dtype
from ..cost.footprint import Memory
from ..cost.kv_cache import CachePolicy, kept_share, sequence_tokens
from ..ir.entries import counts_tokens
from ..ir.graph import Graph
from ..ir.op import Weight
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, state_of
from ..ir.routed_dims import resident_share, stem
from ..ir.segment import Segment
from .record import Record
from .shards import Shards
from .twin import scale

Floats = NDArray[np.float64]
"""Bytes of each rank."""
CLOSE = 1e-9


def wrong_memory(shards: Shards, record: Record, costed: Graph, memory: Memory, policy: CachePolicy) -> list[str]:
    """Stages whose fullest rank does not store what `memory` states for weights or cache. `costed`: the graph that `memory` is
    of; where its sizes are not those that ran, the arrays of a rank are taken as large as they make them."""
    wrong = []
    parts = costed.microbatches * costed.lanes
    for stated in memory.stages:
        stage, ranks = costed.stages[stated.stage % len(costed.stages)], len(shards.at(stated.on))
        weights, cache = np.zeros(ranks), np.zeros(ranks)
        for name, count in stage.layers:
            weights += count * weight_bytes(shards, costed.segment(name), stated.on, first=stage.index == 0)
            if not stated.on:
                cache += count * parts * cache_bytes(shards, record, costed.segment(name), costed.kind, policy)
        for what, found, said in (("weights", weights, stated.weights_B), ("KV cache", cache, stated.kv_cache_B)):
            if not isclose(found.max(), said, rel_tol=CLOSE):
                wrong.append(f"{what} of {f'the {stated.on}' if stated.on else f'stage {stage.index}'}")
    return wrong


def weight_bytes(shards: Shards, plan: Segment, on: str, first: bool) -> Floats:
    """Of one layer, on each of the ranks `on`. `first`: its stage has the first layer too, whose table a tied head shares where both have the
    same layout."""
    segment = shards.graph.segment(plan.name)
    layer = next(at for s, at in shards.graph.layers if s.name == plan.name)
    ranks = shards.at(on)
    total = np.zeros(len(ranks))
    for weight in segment.weights:
        for i, rank in enumerate(ranks):
            if weight.sharding is not None and weight.sharding.on != on:
                break
            if first and weight.tied and _shared(shards, segment, weight, rank):
                continue
            shard = shards.weight(segment, layer, weight.name, rank)
            if isinstance(shard, dict):
                shape = (len(shard), *next(iter(shard.values())).shape)
            else:
                assert isinstance(shard, np.ndarray)
                shape = shard.shape
            total[i] += _weight_size(segment, plan, weight, shape)
    return total


def _shared(shards: Shards, segment: Segment, weight: Weight, rank: dict[str, int]) -> bool:
    """Whether a tied weight is on this rank the part of the table that the rank has anyway."""
    table = shards.graph.embedding.weight.get(weight.tied)
    if table is None or table.sharding is None or weight.sharding is None:
        return False
    mine, held = (
        {d: shards.part(int(segment.sizes[d]), axes, rank) for d, axes in zip(w.dims, layout.dims, strict=True)}
        for w, layout in ((weight, weight.sharding), (table, table.sharding))
    )
    return mine == held


def _weight_size(segment: Segment, plan: Segment, weight: Weight, shape: tuple[int, ...]) -> float:
    """A rank's part at the plan's sizes, of experts what its GPU holds. A width of experts that is cut inside a block of scales is filled up."""
    kind, total = dtype(weight.dtype), 1.0
    for dim, n in zip(weight.dims, shape, strict=True):
        whole = plan.size(dim, weight.scope)
        own = n * whole / segment.size(dim, weight.scope)
        if kind.padded and weight.scope == "experts" and stem(dim) != "expert" and own < whole:
            own = ceil(own / kind.block[0]) * kind.block[0]
        total *= own
    return total * kind.bytes * resident_share(plan, weight)


def cache_bytes(shards: Shards, record: Record, plan: Segment, kind: str, policy: CachePolicy) -> Floats:
    """KV cache and states of one layer, for the sequences of one part of the batch."""
    segment = shards.graph.segment(plan.name)
    total = np.zeros(len(shards.ranks))
    for op in plan.ops:
        state = state_of(plan, op)
        if OPS[op.kind].tokens is Tokens.CACHE:
            most = sequence_tokens(plan, op, kind, policy)
            for i, shape in enumerate(record.caches[segment.name, op.name]):
                own = {d: n * scale(plan, segment, (d,), op.scope) for d, n in zip(op.dims, shape, strict=True)}
                along = next(filter(counts_tokens, op.dims))
                own[along] = min(own[along], most)
                total[i] += prod(own.values()) * DTYPE_BYTES[op.dtype] * kept_share(op)[1]
        elif state is not None:
            for i, shape in enumerate(record.caches[segment.name, op.name]):
                total[i] += prod(shape) * scale(plan, segment, state.dims, op.scope) * DTYPE_BYTES[state.dtype]
    return total
