"""attention: measured times of attention, in prefill and decode, grouped and latent.

Rotary embedding, norms of queries and keys and the write of the cache belong to its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from ..calib import decode_attention, decode_mla, prefill_attention, prefill_mla
from ..calib.constants import Entry
from ..calib.family import Family
from ..ir.graph import Op
from ..ir.ops.attention import attend_operands, context_shares
from ..ir.ops.attributes import AttendAttrs
from ..ir.ops.kind import Fuse
from ..ir.ops.sequence import Array, over_blocks, query_runs
from .local_shapes import AttentionShape
from .measured import Match, Measured, estimate_s

C = TypeVar("C")
KV_VARIANT = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8"}
HEAD_DIMS = (64, 128)
"""Head widths that attention was measured with; others take the constants of the nearest."""


def match(found: Match) -> None:
    for op in found.shapes.of_kind("attend"):
        if not op.of(AttendAttrs).chosen:  # no kernel that reads selected tokens was measured
            _attention(found, op)


def _attention(found: Match, op: Op) -> None:
    queries, keys, value = attend_operands(op)
    latent = len(queries) > 1
    measured = _latent(found, op, queries, keys, value) if latent else _grouped(found, op, queries[0], keys[0])
    if measured is None:
        return
    found.times[op.name] = measured
    for name in (*queries, *keys, value):
        _absorb(found, name)


def _absorb(found: Match, name: str) -> None:
    """Ops between the projections and attention that its kernel does itself, collectives among them left out."""
    while name in found.segment.by_name:
        op = found.segment.by_name[name]
        if not op.is_collective and not found.ride(op, Fuse.ATTENTION):
            return
        name = op.inputs[0]


def _math_dtype(found: Match, kv: str) -> str:
    dtype = KV_VARIANT.get(found.model.attention_dtype, "")
    return dtype if kv == "fp8" else "bf16" if dtype else ""


def _grouped(found: Match, op: Op, query: str, key: str) -> Measured | None:
    shape = found.shapes.attention(op, query, key)
    by_kind = _grouped_prefill if found.phase.part(op.scope).takes_prompts else _grouped_decode
    return by_kind(found, op, shape, KV_VARIANT.get(shape.kv_dtype, ""))


def _grouped_prefill(found: Match, op: Op, shape: AttentionShape, kv: str) -> Measured | None:
    variant = partial(prefill_attention.key, _math_dtype(found, kv), kv)
    entry = _of_width(found, prefill_attention.FAMILY, shape.width, variant)
    if entry is None:
        return None

    def of_run(seq: float, before: float) -> float:
        sizes = shape.batch, seq, shape.heads, shape.kv_heads, shape.width, before
        return float(estimate_s(prefill_attention.FAMILY, entry, *sizes))

    time_s = _prefill(found, op, of_run, entry.constants.launch_s)
    outside = entry.outside(batch_size=shape.batch, seq_len=shape.seq)
    return Measured.of(time_s, prefill_attention.FAMILY.name, entry, outside)


def _grouped_decode(found: Match, op: Op, shape: AttentionShape, kv: str) -> Measured | None:
    family, width = decode_attention.FAMILY, shape.width
    entry = _of_width(found, family, width, lambda near: decode_attention.key(kv, near, shape.heads > shape.kv_heads))
    entry = entry or _of_width(found, family, width, lambda near: decode_attention.key(kv, near, True))
    if entry is None:
        return None
    segment = found.segment.within(op.scope)
    shares = context_shares(segment, op, found.mesh)
    context = np.maximum(1.0, segment.size("context") * shape.seen * shares)
    # Drafted tokens read the cache together, as further query heads.
    sizes = shape.batch, context, shape.heads * shape.seq, shape.kv_heads, width
    time_s = estimate_s(family, entry, *sizes)
    outside = entry.outside(batch_size=shape.batch, kv_len=float(context.max()))
    over_ranks = over_blocks(time_s.reshape(len(shares)), op.loop("context"), found.mesh)
    return Measured.of(over_ranks, family.name, entry, outside)


def _latent(found: Match, op: Op, queries: tuple[str, ...], keys: tuple[str, ...], value: str) -> Measured | None:
    """Latent attention; widths other than the measured ones scale the time beyond the launch."""
    segment, lead = found.segment, [d for d in op.dims[:-1] if d not in ("batch", "seq")]
    batch, heads = found.shapes.size(op, ("batch",)), found.shapes.size(op, lead)
    width = sum(segment.size(segment.dims_of(q)[-1]) for q in queries)
    width += segment.size(segment.dims_of(value)[-1])
    kv = KV_VARIANT.get(found.shapes.kv_dtype(keys[0]), "")
    absorbed = not set(segment.dims_of(keys[0])) & set(lead)
    by_kind = _latent_decode if absorbed and found.phase.part(op.scope).generates else _latent_prefill
    return by_kind(found, op, batch, heads, width, kv)


def _latent_decode(found: Match, op: Op, batch: float, heads: float, width: float, kv: str) -> Measured | None:
    entry = found.find(decode_mla.FAMILY, decode_mla.key(kv))
    if entry is None:
        return None
    seq, context, _ = found.shapes.lengths(op)
    time_s = estimate_s(decode_mla.FAMILY, entry, batch, context, heads * seq)
    launch_s, scale = entry.constants.launch_s, width / (decode_mla.LATENT + 512)
    outside = entry.outside(batch_size=batch, kv_len=context)
    scaled_s = (launch_s + (time_s - launch_s) * scale).reshape(1)
    return Measured.of(scaled_s, decode_mla.FAMILY.name, entry, outside)


def _latent_prefill(found: Match, op: Op, batch: float, heads: float, width: float, kv: str) -> Measured | None:
    entry = found.find(prefill_mla.FAMILY, prefill_mla.key("bf16", kv))
    if entry is None:
        return None

    def of_run(seq: float, before: float) -> float:
        return float(estimate_s(prefill_mla.FAMILY, entry, batch, seq, heads, before))

    time_s = _prefill(found, op, of_run, entry.constants.launch_s, width / prefill_mla.WIDTH)
    outside = entry.outside(batch_size=batch, seq_len=found.shapes.lengths(op)[0])
    return Measured.of(time_s, prefill_mla.FAMILY.name, entry, outside)


def _prefill(
    found: Match, op: Op, of_run: Callable[[float, float], float], launch_s: float, scale: float = 1.0
) -> Array:
    """Prefill attention of each rank: the runs of tokens that it has, each behind those before it, in one kernel.
    `of_run`: seconds of (new tokens, tokens before them). A window or chunk shortens it in proportion to the pairs."""
    blocks = query_runs(found.segment.within(op.scope), op, found.mesh)
    if not op.of(AttendAttrs).causal:
        seq, _, before = found.shapes.lengths(op)
        blocks = [[(before, before + seq)] for _ in blocks]
    times = [sum(of_run(end - first, first) - launch_s for first, end in block) for block in blocks]
    seconds = launch_s + np.asarray(times) * found.shapes.seen_by_rank(op) * scale
    return over_blocks(seconds, op.loop("seq"), found.mesh)


def _of_width(found: Match, family: Family[C], width: float, key: Callable[[int], str]) -> Entry[C] | None:
    """The entry of a head width: its own where it was measured, else that of the nearest of HEAD_DIMS."""
    near = min(HEAD_DIMS, key=lambda d: abs(np.log(d / width)))
    return found.find(family, (key(int(width)), key(near)))
