"""Decode attention, GQA, one query token a sequence; K and V in tiles of 128 tokens.

    t = launch + overlap(moved / hbm_Bps + b kv_heads row_s, latency_s (L / 1024)^latency_power)
    moved = b (4 heads d + 2 kv_heads d kv_B 128 ceil(L / 128))

Bytes by their definition; the cost of a (sequence, KV head) and the latency along a sequence are this project's form.
Grouped heads and one query head a KV head run different kernels: variants `gqa` and `mha`.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..base.frozen import record
from .constants import Device
from .family import ELEMENT_B, LATENCY, LAUNCH, SHARPNESS, Bounds, Family, Row, columns, dtype_name, kv_bytes, share
from .shape import Floats, floats, overlap_s, tiles

TILE = 128


@record
class DecodeAttentionConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

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


def key(kv_dtype: str, head_dim: int, grouped: bool) -> str:
    """Variant of decode attention: `kv_fp8_hd128_gqa`; `mha` where every query head has its own KV head."""
    return f"kv_{kv_dtype}_hd{head_dim}_{'gqa' if grouped else 'mha'}"


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": LAUNCH,
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.1),
        "sharpness": SHARPNESS,
        "row_s": (1e-9, 1e-12, 1e-7),
        **LATENCY,
    }


def _variant(row: Row) -> str | None:
    heads, kv_heads = int(row["num_heads"]), int(row["num_key_value_heads"])
    kv = dtype_name(row["kv_cache_dtype"])
    if heads > 16 * kv_heads or kv not in ELEMENT_B:
        return None  # many heads to one: another kernel, ten times slower, that no engine would pick
    return key(kv, int(row["head_dim"]), heads > kv_heads)


FAMILY = Family(
    name="decode_attention",
    constants=DecodeAttentionConstants,
    time_s=time_s,
    file="op_generation_attention.csv",
    variant=_variant,
    shapes=("batch_size", "kv_len", "num_heads", "num_key_value_heads"),
    ranges=("batch_size", "kv_len"),
    unseen=("num_heads", "num_key_value_heads", "head_dim"),
    bounds=_bounds,
    facts=kv_bytes,
    arguments=columns("batch_size", "kv_len", "num_heads", "num_key_value_heads", "head_dim"),
)
