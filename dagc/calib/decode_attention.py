"""Decode attention, GQA, one query token a sequence; a window of W tokens leaves A = min(W, L) of L to attend.

    t = launch + overlap(moved / hbm_Bps + b kv_heads row_s, latency_s (A / 1024)^latency_power)
    moved = b d (4 heads + 2 (kv_heads + reread (heads - kv_heads)) kv_B P)
    P     = A + tile_share (128 ceil(A / 128) - A), tokens as tiles of 128 read them

Bytes by their definition; the cost of a (sequence, KV head), the latency along a sequence and the share of a group's heads
that read K and V each on its own are this project's form. More than 32 heads to one run as other kernels: variants `gqa`
and `many`.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import (
    ELEMENT_B,
    LATENCY,
    LAUNCH,
    LENGTH,
    SHARPNESS,
    Bounds,
    Family,
    Row,
    Table,
    column,
    dtype_name,
    kv_bytes,
    log_sizes,
    share,
)  # fmt: skip
from .head_widths import width_class
from .served_kernels import served_by
from .shape import Floats, floats, overlap_s, tiles

TILE = 128
MOST_HEADS = 32
"""Query heads of a KV head, up to which engines run their kernels of grouped heads."""
RATIO_OCTAVES, WIDTH_OCTAVES = 1.5, 4.0
"""By which a doubling of heads per KV head, or of the width, is further than one of a length."""


@record
class DecodeAttentionConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    kv_B: float
    launch_s: float
    hbm_Bps: float
    sharpness: float
    row_s: float
    tile_share: float
    reread: float
    latency_s: float
    latency_power: float


def time_s(
    c: DecodeAttentionConstants,
    batch: ArrayLike,
    attended: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    context: ArrayLike = 0.0,
) -> Floats:
    """Seconds on one GPU: `attended` tokens of a `context` seen by each of `batch` sequences; heads of this rank."""
    b, length, n, kv, width = floats(batch), floats(attended), floats(heads), floats(kv_heads), floats(head_dim)
    padded = length + c.tile_share * (TILE * tiles(length, TILE) - length)
    read = kv + c.reread * (n - kv)
    moved_B = b * width * (4 * n + 2 * read * c.kv_B * padded)
    latency = c.latency_s * (length / 1024) ** c.latency_power
    return floats(c.launch_s + overlap_s(c.sharpness, moved_B / c.hbm_Bps + b * kv * c.row_s, latency))


def features(
    batch: ArrayLike,
    attended: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    context: ArrayLike = 0.0,
) -> Floats:
    """Where kernels differ; those that read keys outside the window show by the context."""
    ratio = (floats(heads) / floats(kv_heads)) ** RATIO_OCTAVES
    whole = floats(context).clip(min=floats(attended))
    return log_sizes(batch, attended, whole, kv_heads, ratio, floats(head_dim) ** WIDTH_OCTAVES)


def key(kv_dtype: str, width: str, heads: float, kv_heads: float) -> str:
    """Variant of decode attention: `kv_fp8_hd128_gqa`. `width`: a class of head widths."""
    return f"kv_{kv_dtype}_{width}_{'gqa' if heads <= MOST_HEADS * kv_heads else 'many'}"


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": LAUNCH,
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.1),
        "sharpness": SHARPNESS,
        "row_s": (1e-9, 1e-12, 1e-7),
        "tile_share": (0.5, 0.01, 1.0),
        "reread": (0.003, 1e-4, 1.0),
        **LATENCY,
    }


def window_of(row: Row) -> float:
    """Window of a row of a table; 0 without one."""
    return float(row.get("window_size") or 0)


def _variant(row: Row) -> str | None:
    kv = dtype_name(row["kv_cache_dtype"])
    if kv not in ELEMENT_B:
        return None
    width = width_class(float(row["head_dim"]), window_of(row) > 0)
    return key(kv, width, float(row["num_heads"]), float(row["num_key_value_heads"]))


def _arguments(rows: list[Row]) -> tuple[Floats, ...]:
    context = column(rows, "kv_len")
    windows = floats([window_of(row) for row in rows])
    attended = floats([min(w or length, length) for w, length in zip(windows, context, strict=True)])
    sizes = (column(rows, name) for name in ("num_heads", "num_key_value_heads", "head_dim"))
    return (column(rows, "batch_size"), attended, *sizes, context)


def _substitutes(variant: str) -> tuple[str, ...]:
    """The same with a cache of another dtype."""
    return tuple(variant.replace(a, b) for a, b in (("kv_fp8", "kv_bf16"), ("kv_bf16", "kv_fp8")) if a in variant)


FAMILY = Family(
    name="decode_attention",
    constants=DecodeAttentionConstants,
    time_s=time_s,
    file="op_generation_attention.csv",
    tables=(Table("generation_attention.csv", served_by),),
    variant=_variant,
    shapes=("batch_size", "kv_len", "num_heads", "num_key_value_heads", "head_dim"),
    ranges=("batch_size", "kv_len", "head_dim"),
    unseen=("num_heads", "num_key_value_heads", "head_dim"),
    bounds=_bounds,
    facts=kv_bytes,
    arguments=_arguments,
    features=features,
    lengths=(LENGTH,) * 6,
    substitutes=_substitutes,
)
