"""Prefill core of DeepSeek's MLA, not absorbed: heads 192 wide in Q and K, 128 in V; projections not included.

    t = launch + overlap(flops / math_flops + b heads q tile_s, moved / hbm_Bps, longest / tile_flops)
    flops   = 640 b heads s ((s + 128) / 2 + prefix), q = ceil(s / 128) query tiles
    moved   = 320 b heads ((kv_B + 2) s + kv_B prefix)
    longest = 2 128 320 128 (q + prefix / 128), the last query tile alone

Widths: DeepSeek-V3 technical report, arXiv 2412.19437; measured without a prefix only.
"""

from __future__ import annotations

from typing import Any

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .family import LENGTH, Family, Row, Table, columns, dtype_name, kv_bytes, log_sizes
from .prefill_attention import LABELS, TILE, mla_bounds
from .shape import Floats, floats, overlap_s, tiles

WIDTH = 192 + 128


@record
class PrefillMlaConstants:
    """The same terms as GQA prefill without windows, fitted apart."""

    kv_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    tile_s: float
    tile_flops: float


def time_s(
    c: PrefillMlaConstants, batch: ArrayLike, seq: ArrayLike, heads: ArrayLike, prefix: ArrayLike = 0.0
) -> Floats:
    """Seconds on one GPU: `batch` sequences of `seq` new tokens after `prefix` cached ones; heads of this rank."""
    b, s, n, before = floats(batch), floats(seq), floats(heads), floats(prefix)
    q, past = tiles(s, TILE), before / TILE
    flops = 2 * WIDTH * b * n * s * ((s + TILE) / 2 + before)
    moved_B = WIDTH * b * n * ((c.kv_B + 2) * s + c.kv_B * before)
    longest = 2 * TILE * WIDTH * TILE * (q + past)
    terms = flops / c.math_flops + b * n * q * c.tile_s, moved_B / c.hbm_Bps, longest / c.tile_flops
    return floats(c.launch_s + overlap_s(c.sharpness, *terms))


def key(dtype: str, kv_dtype: str) -> str:
    """Variant of MLA prefill: `bf16_kv_fp8`."""
    return f"{dtype}_kv_{kv_dtype}"


def _features(*arguments: Any) -> Floats:
    """The kernel was measured without a prefix; with one, a prompt of as many tokens in all is what it resembles."""
    batch, seq, heads = arguments[:3]
    prefix = arguments[3] if len(arguments) > 3 else 0.0
    return log_sizes(batch, floats(seq) + floats(prefix), heads)


def _substitutes(variant: str) -> tuple[str, ...]:
    """The same with a cache of another dtype."""
    return tuple(key(a, kv) for a, kv in LABELS if key(a, kv) != variant)


def _bf16(row: Row) -> Row:
    return {**row, "mla_dtype": "bf16"}


FAMILY = Family(
    name="prefill_mla",
    constants=PrefillMlaConstants,
    time_s=time_s,
    file="op_context_mla.csv",
    tables=(Table("context_mla.csv", _bf16),),
    variant=lambda row: key(dtype_name(row["mla_dtype"]), dtype_name(row["kv_cache_dtype"])),
    shapes=("batch_size", "seq_len", "num_heads"),
    ranges=("batch_size", "seq_len"),
    bounds=mla_bounds,
    facts=kv_bytes,
    arguments=columns("batch_size", "seq_len", "num_heads"),
    features=_features,
    lengths=(LENGTH,) * 3,
    unseen=("num_heads",),
    substitutes=_substitutes,
    untimed="PyTorch has no kernel of latent attention to time",
)
