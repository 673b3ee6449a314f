"""Decode attention, GQA, one query token a sequence; K and V in tiles of 128 tokens.

    t = launch + overlap(moved / hbm_Bps + b kv_heads row_s, latency_s (L / 1024)^latency_power)
    moved = b (4 heads d + 2 kv_heads d kv_B 128 ceil(L / 128))

Bytes by their definition; the cost of a (sequence, KV head) and the latency along a sequence are this project's form.
Grouped heads and one query head a KV head run different kernels: variants `gqa` and `mha`.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from .shape import Floats, floats, overlap_s, tiles

TILE = 128


@dataclass(frozen=True, slots=True)
class DecodeAttentionConstants:
    kv_B: float
    launch_s: float
    hbm_Bps: float
    sharpness: float
    row_s: float
    latency_s: float
    latency_power: float


def time_s(
    c: DecodeAttentionConstants,
    batch: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
) -> Floats:
    """Seconds on one GPU: `context` tokens attended by each of `batch` sequences; heads of this rank."""
    b, length, kv, width = floats(batch), floats(context), floats(kv_heads), floats(head_dim)
    moved_B = b * width * (4 * floats(heads) + 2 * kv * c.kv_B * TILE * tiles(length, TILE))
    latency = c.latency_s * (length / 1024) ** c.latency_power
    return floats(c.launch_s + overlap_s(c.sharpness, moved_B / c.hbm_Bps + b * kv * c.row_s, latency))
