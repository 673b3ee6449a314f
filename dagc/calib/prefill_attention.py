"""Causal prefill attention, GQA, with the write of K and V where the engine's kernel has it; a window leaves `seen` of the
query-key pairs, of which kernels skip what they do not honour.

    t = launch + overlap(flops / math_flops + b heads q tile_s, moved / hbm_Bps, longest / tile_flops)
    flops   = 4 b heads d s (64 + kept (s / 2 + prefix)), q = ceil(s / 128) query tiles
    kept    = 1 - honoured (1 - seen)
    moved   = 4 b heads s d + 2 b kv_heads d ((kv_B + 2) s + kv_B prefix)
    longest = 512 d 128 kept (q + prefix / 128), the last query tile alone

FLOPs (half a tile lost to the causal edge) and bytes by their definition; what a query tile costs to set up and the share
of a window that a kernel honours are this project's form. Measured without a prefix only.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .decode_attention import RATIO_OCTAVES, WIDTH_OCTAVES, window_of
from .family import (
    ELEMENT_B,
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
"""Query and key tokens of a tile."""


@record
class PrefillAttentionConstants:
    """`kv_B`: bytes of a cached element; `tile_s`: set-up of a query tile, over the whole GPU; `tile_flops`: FLOP/s of
    one query tile on its own; `honoured`: share of what a window hides that the kernel skips."""

    kv_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    tile_s: float
    tile_flops: float
    honoured: float


def time_s(
    c: PrefillAttentionConstants,
    batch: ArrayLike,
    seq: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    prefix: ArrayLike = 0.0,
    seen: ArrayLike = 1.0,
) -> Floats:
    """Seconds on one GPU: `batch` sequences of `seq` new tokens after `prefix` cached ones; heads of this rank; `seen`: share
    of the causal pairs that a window leaves."""
    b, s, n, width, before = floats(batch), floats(seq), floats(heads), floats(head_dim), floats(prefix)
    q, past = tiles(s, TILE), before / TILE
    kept = 1 - c.honoured * (1 - floats(seen))
    flops = 4 * b * n * width * s * (TILE / 2 + kept * (s / 2 + before))
    moved_B = 4 * b * n * s * width + 2 * b * floats(kv_heads) * width * ((c.kv_B + 2) * s + c.kv_B * before)
    longest = 512 * width * TILE * kept * (q + past)
    terms = flops / c.math_flops + b * n * q * c.tile_s, moved_B / c.hbm_Bps, longest / c.tile_flops
    return floats(c.launch_s + overlap_s(c.sharpness, *terms))


def features(
    batch: ArrayLike,
    seq: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    prefix: ArrayLike = 0.0,
    seen: ArrayLike = 1.0,
) -> Floats:
    """Where kernels differ. None was measured with a prefix; with one, it resembles a prompt of as many tokens in all."""
    ratio = (floats(heads) / floats(kv_heads)) ** RATIO_OCTAVES
    return log_sizes(batch, floats(seq) + floats(prefix), heads, ratio, floats(head_dim) ** WIDTH_OCTAVES, seen)


def key(dtype: str, kv_dtype: str, width: str) -> str:
    """Variant of prefill attention: `bf16_kv_fp8_hd128`. `width`: a class of head widths."""
    return f"{dtype}_kv_{kv_dtype}_{width}"


def bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return mla_bounds(device, variant) | {"honoured": (0.9, 0.01, 1.0)}


def mla_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    """Without windows. Some kernels cast Q to the dtype of the cache: the peak is that of the faster of the two."""
    dtypes = {variant.split("_kv_")[0], variant.split("_kv_")[1].split("_")[0]}
    peak = max(device.flops[dtype] for dtype in dtypes if dtype in device.flops)
    return {
        "launch_s": LAUNCH,
        "math_flops": share(peak, 0.6, 0.05),
        "hbm_Bps": share(device.hbm_Bps, 0.4, 0.02),
        "sharpness": SHARPNESS,
        "tile_s": (2e-8, 1e-10, 1e-6),
        "tile_flops": share(peak / device.sms, 1.0, 0.05, 4.0),
    }


def seen_of(seq: float, window: float) -> float:
    """Share of the causal pairs of a prompt that a window leaves; without one (0) all."""
    if not 0 < window < seq:
        return 1.0
    return window * (2 * seq + 1 - window) / (seq * (seq + 1))


def _variant(row: Row) -> str | None:
    math, kv = dtype_name(row["attn_dtype"]), dtype_name(row["kv_cache_dtype"])
    if float(row["seq_len"]) <= 1 or not {math, kv} <= set(ELEMENT_B):
        return None  # prompts of one token run as decode
    return key(math, kv, width_class(float(row["head_dim"]), window_of(row) > 0))


def _arguments(rows: list[Row]) -> tuple[Floats, ...]:
    seq = column(rows, "seq_len")
    seen = floats([seen_of(s, window_of(row)) for s, row in zip(seq.tolist(), rows, strict=True)])
    sizes = (column(rows, name) for name in ("num_heads", "num_key_value_heads", "head_dim"))
    return (column(rows, "batch_size"), seq, *sizes, 0 * seq, seen)


def _substitutes(variant: str) -> tuple[str, ...]:
    """The same with a cache of another dtype."""
    width = variant.rsplit("_", 1)[1]
    return tuple(key(a, kv, width) for a, kv in LABELS if key(a, kv, width) != variant)


LABELS = (("bf16", "fp8"), ("fp8", "fp8"), ("bf16", "bf16"))
"""Dtypes of the arithmetic and of the cache, as tables name them."""

FAMILY = Family(
    name="prefill_attention",
    constants=PrefillAttentionConstants,
    time_s=time_s,
    file="op_context_attention.csv",
    tables=(Table("context_attention.csv", served_by),),
    variant=_variant,
    shapes=("batch_size", "seq_len", "num_heads", "num_key_value_heads", "head_dim"),
    ranges=("batch_size", "seq_len", "head_dim"),
    unseen=("num_heads", "num_key_value_heads", "head_dim"),
    bounds=bounds,
    facts=kv_bytes,
    arguments=_arguments,
    features=features,
    lengths=(LENGTH,) * 6,
    substitutes=_substitutes,
)
