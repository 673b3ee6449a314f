"""Decode core of DeepSeek's MLA, absorbed: all heads of a rank read one latent cache 512 + 64 wide.

    t = launch + overlap(flops / math_flops, moved / hbm_Bps + b heads head_s, latency_s (L / 1024)^latency_power)
    flops = 2176 b 64 ceil(heads / 64) Lp,  moved = b (2176 heads + 576 kv_B Lp),  Lp = 64 ceil(L / 64)

Widths (2176 = 2 (576 + 512)): DeepSeek-V3 technical report, arXiv 2412.19437; the rest is this project's form.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import LATENCY, LAUNCH, LENGTH, SHARPNESS, Bounds, Family, Table, columns, dtype_name, kv_bytes, share
from .shape import Floats, floats, overlap_s, tiles

LATENT = 512 + 64
HEAD = 2 * (LATENT + 512)
TILE = 64
"""Heads, and cached tokens, of a tile."""


@record
class DecodeMlaConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    kv_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    head_s: float
    latency_s: float
    latency_power: float


def time_s(c: DecodeMlaConstants, batch: ArrayLike, context: ArrayLike, heads: ArrayLike) -> Floats:
    """Seconds on one GPU: `context` tokens attended by each of `batch` sequences; heads of this rank."""
    b, length, n = floats(batch), floats(context), floats(heads)
    padded = TILE * tiles(length, TILE)
    flops = HEAD * b * TILE * tiles(n, TILE) * padded
    moved_B = b * (HEAD * n + LATENT * c.kv_B * padded)
    latency = c.latency_s * (length / 1024) ** c.latency_power
    memory = moved_B / c.hbm_Bps + b * n * c.head_s
    return floats(c.launch_s + overlap_s(c.sharpness, flops / c.math_flops, memory, latency))


def key(kv_dtype: str) -> str:
    """Variant of MLA decode: `kv_fp8`."""
    return f"kv_{kv_dtype}"


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    peak = device.flops.get(variant.removeprefix("kv_"), device.flops["bf16"])
    return {
        "launch_s": LAUNCH,
        "math_flops": share(peak, 0.6, 0.05),
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.1),
        "sharpness": SHARPNESS,
        "head_s": (1e-9, 1e-12, 1e-6),
        **LATENCY,
    }


def _substitutes(variant: str) -> tuple[str, ...]:
    """The same with a cache of another dtype."""
    return tuple(key(kv) for kv in ("fp8", "bf16") if key(kv) != variant)


FAMILY = Family(
    name="decode_mla",
    constants=DecodeMlaConstants,
    time_s=time_s,
    file="op_generation_mla.csv",
    tables=(Table("generation_mla.csv"),),
    variant=lambda row: key(dtype_name(row["kv_cache_dtype"])),
    shapes=("batch_size", "kv_len", "num_heads"),
    ranges=("batch_size", "kv_len"),
    bounds=_bounds,
    facts=kv_bytes,
    arguments=columns("batch_size", "kv_len", "num_heads"),
    lengths=(LENGTH,) * 3,
    unseen=("num_heads",),
    substitutes=_substitutes,
    untimed="PyTorch has no kernel of latent attention to time",
)
