"""Short convolution along the sequence, each channel over its last four tokens, with the activation behind it.

    t = launch + overlap(channels (4 tokens + kept_B batch) / hbm_Bps, latency_s min(seq, 64)^latency_power)
        + batch channels sequence_s,  tokens = batch seq

Queries, keys and values are one convolution. A token is read and written in bf16; the last three inputs of a sequence are
read and written too (`kept_B`). Bytes by their definition; what a tile of 64 tokens waits for and what a sequence costs to
begin are this project's form.
"""

from __future__ import annotations

import numpy as np

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import LENGTH, SHARPNESS, US, Bounds, Family, Row, column, share
from .shape import Floats, floats, overlap_s

TILE = 64
"""Tokens of a sequence that one block works on."""
HEAD = 128
"""Channels of a head, in every row of the table."""
KEYS_ALONE = (("trtllm", "1.3.0rc20"), ("sglang", "0.5.10"))
"""Engines and versions whose rows timed the channels of the key heads alone: their times do not change with the value heads,
and more channels would beat the memory's datasheet peak."""
CACHED = ("l40s", "rtx_pro_6000_server")
"""GPUs whose cache held what was read between the calls that were timed."""


@record
class ShortConvConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    kept_B: float
    launch_s: float
    hbm_Bps: float
    sharpness: float
    latency_s: float
    latency_power: float
    sequence_s: float


def time_s(c: ShortConvConstants, batch: ArrayLike, seq: ArrayLike, channels: ArrayLike) -> Floats:
    """Seconds on one GPU: `seq` new tokens of each of `batch` sequences; channels of this rank."""
    b, length, wide = floats(batch), floats(seq), floats(channels)
    moved_B = wide * b * (4 * length + c.kept_B)
    latency = c.latency_s * np.minimum(length, TILE) ** c.latency_power
    return floats(c.launch_s + overlap_s(c.sharpness, moved_B / c.hbm_Bps, latency) + b * wide * c.sequence_s)


DECODE, PREFILL = "decode", "prefill"
KERNELS = {"causal_conv1d_update": DECODE, "causal_conv1d_fn": PREFILL}


def _variant(row: Row) -> str | None:
    return None if row["gpu"] in CACHED else KERNELS.get(row["kernel"])


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (2 * US, 0.5 * US, 20 * US),
        "hbm_Bps": share(device.hbm_Bps, 0.5, 0.2),
        "sharpness": SHARPNESS,
        "latency_s": (1 * US, 0.05 * US, 10 * US),
        "latency_power": (0.2, 0.05, 1.0),
        "sequence_s": (1e-12, 1e-15, 1e-8),
    }


def _facts(device: Device, variant: str) -> dict[str, float]:
    return {"kept_B": 12.0}


def channels(row: Row) -> float:
    """Channels that a row timed."""
    keys, values = float(row["num_k_heads"]), float(row["num_v_heads"])
    return HEAD * (keys if (row["backend"], row["version"]) in KEYS_ALONE else 2 * keys + values)


def _arguments(rows: list[Row]) -> tuple[Floats, ...]:
    return column(rows, "batch_size"), column(rows, "seq_len"), np.array([channels(row) for row in rows])


FAMILY = Family(
    name="short_conv",
    constants=ShortConvConstants,
    time_s=time_s,
    file="gdn.csv",
    variant=_variant,
    shapes=("batch_size", "seq_len"),
    ranges=("batch_size", "seq_len"),
    unseen=("num_k_heads", "num_v_heads"),
    bounds=_bounds,
    facts=_facts,
    arguments=_arguments,
    lengths=(LENGTH,) * 3,
    untimed="PyTorch has no such kernel to time",
)
