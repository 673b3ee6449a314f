"""attention: measured times of attention, in prefill and decode, grouped and latent.

Rotary embedding, norms of queries and keys and the write of the cache belong to its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from ..base.traced import array_of, called, listed, number
from ..calib import decode_attention, decode_mla, prefill_attention, prefill_mla
from ..calib.constants import Entry
from ..calib.family import Family
from ..calib.head_widths import classes_near
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attention_operands import attend_operands
from ..ir.ops.attention_work import context_shares, stored_share
from ..ir.ops.attributes.attention import AttendAttrs
from ..ir.ops.kind import Fuse
from ..ir.ops.sequence import Array, over_blocks, query_runs
from .local_shapes import AttentionShape
from .measured import Match, Measured, estimate_s

C = TypeVar("C")
KV_VARIANT = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8"}


def match(found: Match) -> None:
    # No kernel that reads selected tokens was measured, none that sees entries of groups, none that stores scores, and none of compressed
    # caches.
    ops = [op for op in found.shapes.of_kind("attend") if _is_known(found, op)]
    if not ops:
        return
    key = () if found.kept is None else ("attend", *found.kept.placed, tuple(map(found.kept.placed_split, ops)))
    found.keep(key, partial(_attentions, found, ops))


def _is_known(found: Match, op: Op) -> bool:
    attrs = op.of(AttendAttrs)
    compressed = any(stored_share(found.segment, name) != 1.0 for name in op.inputs)
    return not attrs.chosen and not attrs.entries and attrs.kernel == "flash" and not compressed


def _attentions(found: Match, ops: list[Op]) -> None:
    for op in ops:
        _attention(found, op)


def _attention(found: Match, op: Op) -> None:
    queries, keys, value = attend_operands(op)
    measured = alone(found, op)
    if measured is None:
        return
    found.times[op.name] = measured
    for name in (*queries, *keys, value):
        _absorb(found, name)


def alone(found: Match, op: Op) -> Measured | None:
    """The time of attention without what rides in its kernel; None where no table has it."""
    queries, keys, value = attend_operands(op)
    latent = len(queries) > 1
    return _latent(found, op, queries, keys, value) if latent else _grouped(found, op, queries[0], keys[0])


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
    kv = KV_VARIANT.get(shape.kv_dtype, "")
    return by_kind(found, op, shape, kv) if kv else None


def _grouped_prefill(found: Match, op: Op, shape: AttentionShape, kv: str) -> Measured | None:
    family, width, seen = prefill_attention.FAMILY, shape.width, found.shapes.seen_by_rank(op)
    dtypes = _math_dtypes(found, kv)
    entries = [
        found.find(family, tuple(prefill_attention.key(math, kv, near) for near in classes for math in dtypes))
        for classes in _classes(width, shape.seen)
    ]
    entry = entries[0]
    if entry is None:
        return None

    def of_run(seq: float, before: float, share: float) -> float:
        sizes = shape.batch, seq, shape.heads, shape.kv_heads, width, before
        whole = [_seconds(family, each, *sizes, 1.0) for each in entries if each is not None]
        return min(_seconds(family, entry, *sizes, share), *whole)

    launch_s = entry.constants.launch_s
    blocks = _blocks(found, op)
    shares = listed(seen, len(blocks))
    times = [
        sum(max(of_run(end - first, first, share) - launch_s, 0.0) for first, end in block)
        for block, share in zip(blocks, shares, strict=True)
    ]
    over_ranks = over_blocks(launch_s + array_of(times), op.loop("seq"), found.mesh)
    outside = entry.outside(batch_size=shape.batch, seq_len=shape.seq, head_dim=width)
    return Measured.of(over_ranks, family.name, entry, outside)


def _math_dtypes(found: Match, kv: str) -> tuple[str, ...]:
    """Names under which tables may have the arithmetic: some say the dtype of Q before a kernel casts it to the cache's."""
    own = _math_dtype(found, kv)
    names = (own, "fp8", "bf16") if own and kv == "fp8" else (own,) if own else ()
    return tuple(dict.fromkeys(names))


def _grouped_decode(found: Match, op: Op, shape: AttentionShape, kv: str) -> Measured | None:
    family, width = decode_attention.FAMILY, shape.width
    # Drafted tokens read the cache together, as further query heads of the kernel that their own heads take.
    heads = shape.heads * shape.seq
    grouped = dict.fromkeys((shape.heads, shape.kv_heads))  # a kernel of grouped heads where none of many was measured
    entries = [
        found.find(
            family,
            tuple(decode_attention.key(kv, near, each, shape.kv_heads) for each in grouped for near in classes),
        )
        for classes in _classes(width, shape.seen)
    ]
    entry = entries[0]
    if entry is None:
        return None
    segment = found.segment.within(op.scope)
    shares, context = context_shares(segment, op, found.mesh), segment.size("context")
    sizes = shape.batch, heads, shape.kv_heads, width
    math_s = 4.0 * shape.batch * heads * width / found.hardware.peak_flops("bf16")
    over_ranks = _decode_s((entry, tuple(entries)), shares, (op, found.mesh), context, shape.seen, *sizes, math_s)
    outside = entry.outside(
        batch_size=shape.batch, kv_len=number(_attended(context, shape.seen, shares).max()), head_dim=width
    )
    return Measured.of(over_ranks, family.name, entry, outside)


Entries = tuple[
    Entry[decode_attention.DecodeAttentionConstants],
    tuple[Entry[decode_attention.DecodeAttentionConstants] | None, ...],
]


def _attended(context: float, seen: float, shares: Array) -> Array:
    """Tokens that each rank of a split context attends to."""
    return np.maximum(1.0, context * seen * shares)


@called
def _decode_s(
    entries: Entries, shares: Array, where: tuple[Op, Mesh], context: float, seen: float,
    batch: float, heads: float, kv_heads: float, width: float, math_s: float,
) -> Array:  # fmt: skip
    """Seconds over the mesh, by the first of the entries; with a window, by none of them more than without. No less than `math_s`, which
    the multiplications of a token of the context take at the peak: no row has the tokens of a large tree."""
    family, (entry, others), (op, mesh) = decode_attention.FAMILY, entries, where
    attended, whole = _attended(context, seen, shares), max(1.0, context / len(shares))
    sizes = heads, kv_heads, width
    time_s = estimate_s(family, entry, batch, attended, *sizes, np.maximum(attended, whole))
    for each in others:
        if each is not None and seen < 1:
            time_s = np.minimum(time_s, estimate_s(family, each, batch, whole, *sizes, whole))
    time_s = np.maximum(time_s.reshape(len(shares)), math_s * attended)
    return over_blocks(time_s, op.loop("context"), mesh)


def _classes(width: float, seen: float) -> tuple[tuple[str, ...], ...]:
    """Classes of head widths from the nearest on; with a window also those without, as no window costs more than none."""
    return tuple(classes_near(width, windowed) for windowed in ((True, False) if seen < 1 else (False,)))


def _seconds(family: Family[C], entry: Entry[C], *sizes: float) -> float:
    found: float = number(estimate_s(family, entry, *sizes))
    return found


def _latent(found: Match, op: Op, queries: tuple[str, ...], keys: tuple[str, ...], value: str) -> Measured | None:
    """Latent attention; widths other than the measured ones scale the time beyond the launch."""
    segment, lead = found.segment, [d for d in op.dims[:-1] if d not in ("batch", "seq")]
    batch, heads = found.shapes.size(op, ("batch",)), found.shapes.size(op, lead)
    width = sum(segment.size(segment.dims_of(q)[-1]) for q in queries)
    width += segment.size(segment.dims_of(value)[-1])
    kv = KV_VARIANT.get(found.shapes.kv_dtype(keys[0]), "")
    absorbed = not set(segment.dims_of(keys[0])) & set(lead)
    by_kind = _latent_decode if absorbed and found.phase.part(op.scope).generates else _latent_prefill
    return by_kind(found, op, batch, heads, width, kv) if kv else None


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
        return _seconds(prefill_mla.FAMILY, entry, batch, seq, heads, before)

    time_s = _prefill(found, op, of_run, entry.constants.launch_s, width / prefill_mla.WIDTH)
    outside = entry.outside(batch_size=batch, seq_len=found.shapes.lengths(op)[0])
    return Measured.of(time_s, prefill_mla.FAMILY.name, entry, outside)


def _prefill(
    found: Match, op: Op, of_run: Callable[[float, float], float], launch_s: float, scale: float = 1.0
) -> Array:
    """Latent prefill attention of each rank: the runs of tokens that it has, each behind those before it, in one kernel.
    `of_run`: seconds of (new tokens, tokens before them). A window or chunk shortens it in proportion to the pairs."""
    times = [sum(of_run(end - first, first) - launch_s for first, end in block) for block in _blocks(found, op)]
    seconds = launch_s + array_of(times) * found.shapes.seen_by_rank(op) * scale
    return over_blocks(seconds, op.loop("seq"), found.mesh)


def _blocks(found: Match, op: Op) -> list[list[tuple[float, float]]]:
    """Runs of the queries of each rank; without a causal mask every query sees the whole context."""
    blocks = query_runs(found.segment.within(op.scope), op, found.mesh)
    if op.of(AttendAttrs).causal:
        return blocks
    seq, _, before = found.shapes.lengths(op)
    return [[(before, before + seq)] for _ in blocks]
