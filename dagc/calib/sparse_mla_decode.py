"""Decode of a whole block of sparse latent attention: projections, indexer, choice of tokens, attention to them, output.

    t = launch + overlap(weights / hbm_Bps + batch cached / cache_Bps, flops / math_flops, latency_s) + batch token_s
    weights = weight_B (hidden (q_latent + 576 + 128 + index_heads) + q_latent (heads (nope + 64) + 128 index_heads)
              + heads value hidden) + 2 512 heads (nope + value)
    cached  = 132 context + 576 kv_B min(context, 2048),  flops = batch (2 weights' elements + 256 index_heads context
              + 2176 heads min(context, 2048))

DeepSeek-V3.2 (DeepSeek-AI, 2025): keys of the indexer are 128 wide in fp8 with a scale, and 2,048 tokens are chosen. Bytes
and products by their definition; the rest is this project's form.
"""

from __future__ import annotations

import numpy as np

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import ELEMENT_B, LENGTH, MATH, SHARPNESS, US, Bounds, Family, Row, column, dtype_name, share
from .shape import Floats, floats, overlap_s

CHOSEN = 2048
LATENT, ROPE, INDEX = 512, 64, 128
MODELS = {
    "DeepSeek-V3.2": (7168, 1536, 128, 128, 64),
    "GLM-5": (6144, 2048, 192, 256, 32),
    "GLM-5-FP8": (6144, 2048, 192, 256, 32),
}
"""hidden, q_latent, nope, value, index_heads."""


@record
class SparseMlaDecodeConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    weight_B: float
    kv_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    cache_Bps: float
    sharpness: float
    latency_s: float
    token_s: float


def time_s(
    c: SparseMlaDecodeConstants,
    batch: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    hidden: ArrayLike,
    q_latent: ArrayLike,
    nope: ArrayLike,
    value: ArrayLike,
    index_heads: ArrayLike,
) -> Floats:
    """Seconds on one GPU for one token of each of `batch` sequences; heads of this rank, the whole indexer."""
    b, length, n, wide, low = (floats(each) for each in (batch, context, heads, hidden, q_latent))
    inner, out, ih = floats(nope), floats(value), floats(index_heads)
    projections = wide * (low + LATENT + ROPE + INDEX + ih) + low * (n * (inner + ROPE) + INDEX * ih) + n * out * wide
    absorbed = LATENT * n * (inner + out)
    seen = np.minimum(length, CHOSEN)
    cached_B = (INDEX + 4) * length + (LATENT + ROPE) * c.kv_B * seen
    flops = b * (2 * (projections + absorbed) + 2 * INDEX * ih * length + 2 * (2 * LATENT + ROPE) * n * seen)
    weights_B = c.weight_B * projections + 2 * absorbed
    memory = weights_B / c.hbm_Bps + b * cached_B / c.cache_Bps
    return floats(
        c.launch_s + overlap_s(c.sharpness, memory, flops / c.math_flops, floats(c.latency_s)) + b * c.token_s
    )


def key(dtype: str, kv_dtype: str) -> str:
    """Variant: `fp8_block_kv_bf16`."""
    return f"{dtype}_kv_{kv_dtype}"


def _variant(row: Row) -> str | None:
    if row["model"] not in MODELS or row["op_name"] != "dsa_generation_module":
        return None
    return key(dtype_name(row["gemm_type"]), dtype_name(row["kv_cache_dtype"]))


def _dtypes(variant: str) -> tuple[str, str]:
    dtype, kv_dtype = variant.split("_kv_")
    return dtype, kv_dtype


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    dtype, _ = _dtypes(variant)
    return {
        "launch_s": (50 * US, 10 * US, 150 * US),
        "math_flops": share(device.flops[MATH.get(dtype, dtype)], 0.3, 0.01),
        "hbm_Bps": share(device.hbm_Bps, 0.7, 0.1),
        "cache_Bps": share(device.hbm_Bps, 0.3, 0.005),
        "sharpness": SHARPNESS,
        "latency_s": (10 * US, 0.1 * US, 100 * US),
        "token_s": (0.01 * US, 1e-4 * US, 10 * US),
    }


def _facts(device: Device, variant: str) -> dict[str, float]:
    dtype, kv_dtype = _dtypes(variant)
    return {"weight_B": ELEMENT_B[dtype], "kv_B": ELEMENT_B[kv_dtype]}


def _arguments(rows: list[Row]) -> tuple[Floats, ...]:
    sizes = np.array([MODELS[row["model"]] for row in rows], dtype=float).T
    return column(rows, "batch_size"), column(rows, "kv_len"), column(rows, "num_heads"), *sizes


FAMILY = Family(
    name="sparse_mla_decode",
    constants=SparseMlaDecodeConstants,
    time_s=time_s,
    file="dsa_generation_module.csv",
    variant=_variant,
    shapes=("batch_size", "kv_len", "num_heads"),
    ranges=("batch_size", "kv_len"),
    unseen=("batch_size", "kv_len"),
    bounds=_bounds,
    facts=_facts,
    arguments=_arguments,
    lengths=(LENGTH,) * 8,
    untimed="PyTorch has no kernel of latent attention to time",
)
