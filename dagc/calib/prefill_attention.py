"""Causal prefill attention, GQA, with rope, norm of Q and K, and the write of K and V.

    t = launch + overlap(flops / math_flops + b heads q tile_s, moved / hbm_Bps, longest / tile_flops)
    flops   = 4 b heads d s ((s + 128) / 2 + prefix), q = ceil(s / 128) query tiles
    moved   = 4 b heads s d + 2 b kv_heads d ((kv_B + 2) s + kv_B prefix)
    longest = 512 d 128 (q + prefix / 128), the last query tile alone

FLOPs (half a tile lost to the causal edge) and bytes by their definition; what a query tile costs to set up is this
project's form. Measured without a prefix only.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from ..base.frozen import record
from .constants import Device
from .family import ELEMENT_B, LAUNCH, SHARPNESS, Bounds, Family, Row, columns, dtype_name, kv_bytes, log_sizes, share
from .shape import Floats, floats, overlap_s, tiles

TILE = 128
"""Query and key tokens of a tile."""


@record
class PrefillAttentionConstants:
    """`kv_B`: bytes of a cached element; `tile_s`: set-up of a query tile, over the whole GPU; `tile_flops`: FLOP/s of
    one query tile on its own."""

    kv_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    tile_s: float
    tile_flops: float


def time_s(
    c: PrefillAttentionConstants,
    batch: ArrayLike,
    seq: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    prefix: ArrayLike = 0.0,
) -> Floats:
    """Seconds on one GPU: `batch` sequences of `seq` new tokens after `prefix` cached ones; heads of this rank."""
    b, s, n, width, before = floats(batch), floats(seq), floats(heads), floats(head_dim), floats(prefix)
    q, past = tiles(s, TILE), before / TILE
    flops = 4 * b * n * width * s * ((s + TILE) / 2 + before)
    moved_B = 4 * b * n * s * width + 2 * b * floats(kv_heads) * width * ((c.kv_B + 2) * s + c.kv_B * before)
    longest = 512 * width * TILE * (q + past)
    terms = flops / c.math_flops + b * n * q * c.tile_s, moved_B / c.hbm_Bps, longest / c.tile_flops
    return floats(c.launch_s + overlap_s(c.sharpness, *terms))


def key(dtype: str, kv_dtype: str, head_dim: int) -> str:
    """Variant of prefill attention: `bf16_kv_fp8_hd128`."""
    return f"{dtype}_kv_{kv_dtype}_hd{head_dim}"


def bounds(device: Device, variant: str) -> dict[str, Bounds]:
    peak = device.flops[variant.split("_kv_")[0]]
    return {
        "launch_s": LAUNCH,
        "math_flops": share(peak, 0.6, 0.1),
        "hbm_Bps": share(device.hbm_Bps, 0.4, 0.02),
        "sharpness": SHARPNESS,
        "tile_s": (2e-8, 1e-10, 1e-6),
        "tile_flops": share(peak / device.sms, 1.0, 0.05, 4.0),
    }


def _variant(row: Row) -> str | None:
    math, kv = dtype_name(row["attn_dtype"]), dtype_name(row["kv_cache_dtype"])
    return key(math, kv, int(row["head_dim"])) if {math, kv} <= set(ELEMENT_B) else None


def _features(*arguments: Any) -> Floats:
    """The kernel was measured without a prefix; with one, a prompt of as many tokens in all is what it resembles."""
    batch, seq, heads, kv_heads, head_dim = arguments[:5]
    prefix = arguments[5] if len(arguments) > 5 else 0.0
    return log_sizes(batch, floats(seq) + floats(prefix), heads, kv_heads, head_dim)


FAMILY = Family(
    name="prefill_attention",
    constants=PrefillAttentionConstants,
    time_s=time_s,
    file="op_context_attention.csv",
    variant=_variant,
    shapes=("batch_size", "seq_len", "num_heads", "num_key_value_heads"),
    ranges=("batch_size", "seq_len"),
    bounds=bounds,
    facts=kv_bytes,
    arguments=columns("batch_size", "seq_len", "num_heads", "num_key_value_heads", "head_dim"),
    features=_features,
    unseen=("num_heads", "num_key_value_heads", "head_dim"),
)
