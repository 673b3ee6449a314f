"""The gated delta rule over a prompt, in chunks of 64 tokens: matrix products within a chunk, the state from one to the next.

    t = launch + overlap(flops / math_flops + moved / hbm_Bps, waves^wave_power chunks step_s)
    flops = tokens heads (10 64 128 + 6 128^2),  tokens = 64 batch chunks,  chunks = ceil(seq / 64)
    moved = 256 batch seq (2 key_heads + 2 heads),  waves = ceil(batch heads / SMs)

The chunked form: Yang et al., Gated Delta Networks, arXiv 2412.06464, section 3.3. Products and bytes by their definition
(queries, keys, values and results in bf16); the serial steps over chunks are this project's form.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import LENGTH, SHARPNESS, US, Bounds, Family, Row, columns, share
from .shape import Floats, floats, overlap_s, tiles

CHUNK = 64
WIDTH = 128
"""Of keys and of values, in every row of the table."""
FLOPS = 10 * CHUNK * WIDTH + 6 * WIDTH**2


@record
class DeltaPrefillConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    sms: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    step_s: float
    wave_power: float


def time_s(
    c: DeltaPrefillConstants, batch: ArrayLike, seq: ArrayLike, key_heads: ArrayLike, heads: ArrayLike
) -> Floats:
    """Seconds on one GPU: `seq` new tokens of each of `batch` sequences; key and value heads of this rank."""
    b, length, keys, values = floats(batch), floats(seq), floats(key_heads), floats(heads)
    chunks = tiles(length, CHUNK)
    flops = FLOPS * b * CHUNK * chunks * values
    moved_B = 2 * WIDTH * b * length * (2 * keys + 2 * values)
    serial = tiles(b * values, c.sms) ** c.wave_power * chunks * c.step_s
    return floats(c.launch_s + overlap_s(c.sharpness, flops / c.math_flops + moved_B / c.hbm_Bps, serial))


CHUNKED = "chunked"


def _variant(row: Row) -> str | None:
    return CHUNKED if row["kernel"].startswith("chunk_gated_delta_rule") else None


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (17 * US, 2 * US, 60 * US),
        "math_flops": share(device.flops["bf16"], 0.15, 0.02),
        "hbm_Bps": share(device.hbm_Bps, 0.7, 0.3),
        "sharpness": SHARPNESS,
        "step_s": (2.5 * US, 0.2 * US, 20 * US),
        "wave_power": (0.9, 0.6, 1.0),
    }


def _facts(device: Device, variant: str) -> dict[str, float]:
    return {"sms": device.sms}


FAMILY = Family(
    name="delta_prefill",
    constants=DeltaPrefillConstants,
    time_s=time_s,
    file="gdn.csv",
    variant=_variant,
    shapes=("batch_size", "seq_len", "num_k_heads", "num_v_heads"),
    ranges=("batch_size", "seq_len"),
    unseen=("num_k_heads", "num_v_heads"),
    bounds=_bounds,
    facts=_facts,
    arguments=columns("batch_size", "seq_len", "num_k_heads", "num_v_heads"),
    lengths=(LENGTH,) * 4,
    untimed="PyTorch has no such kernel to time",
)
