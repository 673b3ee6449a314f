"""One step of the gated delta rule: a matrix per value head of each sequence is read, faded, written to and read out.

    t = launch + overlap(2 state_B batch heads 128^2 / hbm_Bps, latency_s)

Bytes by their definition (Yang et al., Gated Delta Networks, arXiv 2412.06464); norms of queries and keys, decay and rate
are in the kernel.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import LENGTH, SHARPNESS, US, Bounds, Family, Row, columns, share
from .shape import Floats, floats, overlap_s

STATE = 128 * 128
"""Elements of the matrix of a head, in every row of the table."""
CACHED = ("l40s", "rtx_pro_6000_server")
"""GPUs whose cache held the states between the calls that were timed: up to five times faster than their memory. A server
reads the states of other layers in between."""


@record
class DeltaDecodeConstants:
    """Rates, times in seconds and shares, as the formula above names them. `state_B`: bytes of an element of the state."""

    state_B: float
    launch_s: float
    hbm_Bps: float
    sharpness: float
    latency_s: float


def time_s(c: DeltaDecodeConstants, batch: ArrayLike, heads: ArrayLike) -> Floats:
    """Seconds on one GPU for one token of each of `batch` sequences; value heads of this rank."""
    moved_B = 2 * c.state_B * floats(batch) * floats(heads) * STATE
    return floats(c.launch_s + overlap_s(c.sharpness, moved_B / c.hbm_Bps, floats(c.latency_s)))


FP32, BF16 = "state_fp32", "state_bf16"
STATE_B = {FP32: 4.0, BF16: 2.0}
STATES = {"fused_recurrent_gated_delta_rule_packed_decode": FP32, "fused_recurrent_gated_delta_rule": BF16}
"""The older kernel is faster than a state of fp32 at the memory's datasheet peak."""


def _variant(row: Row) -> str | None:
    return None if row["gpu"] in CACHED else STATES.get(row["kernel"])


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (2 * US, 0.5 * US, 20 * US),
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.1),
        "sharpness": SHARPNESS,
        "latency_s": (3 * US, 0.1 * US, 20 * US),
    }


def _facts(device: Device, variant: str) -> dict[str, float]:
    return {"state_B": STATE_B[variant]}


FAMILY = Family(
    name="delta_decode",
    constants=DeltaDecodeConstants,
    time_s=time_s,
    file="gdn.csv",
    variant=_variant,
    shapes=("batch_size", "num_v_heads"),
    ranges=("batch_size",),
    unseen=("num_v_heads",),
    bounds=_bounds,
    facts=_facts,
    arguments=columns("batch_size", "num_v_heads"),
    lengths=(LENGTH,) * 2,
    untimed="PyTorch has no such kernel to time",
)
