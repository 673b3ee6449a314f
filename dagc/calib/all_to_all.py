"""NCCL all-to-all in one node: the faster of a protocol for small and one for large messages.

    t = min over both of launch + (n - 1) step_s + (n - 1) / n S / link_Bps, its corner rounded

Bus factor: nccl-tests, doc/PERFORMANCE.md. Fitted on 2, 4 and 8 ranks of one node.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import US, Bounds, Family, Table, columns, share
from .shape import Floats, floats, overlap_s

CORNER = 6.0
"""Sharpness of the change of protocol."""


@record
class AllToAllConstants:
    """`small_*` and `large_*`: the protocol that wins for small and for large messages."""

    small_launch_s: float
    small_step_s: float
    small_link_Bps: float
    large_launch_s: float
    large_step_s: float
    large_link_Bps: float


def time_s(c: AllToAllConstants, ranks: ArrayLike, size_B: ArrayLike) -> Floats:
    """Seconds of one call; `size_B`: the whole send buffer of one rank. One rank takes no time."""
    n, size = floats(ranks), floats(size_B)
    wire_B = size * (n - 1) / n
    small = c.small_launch_s + (n - 1) * c.small_step_s + wire_B / c.small_link_Bps
    large = c.large_launch_s + (n - 1) * c.large_step_s + wire_B / c.large_link_Bps
    return floats(overlap_s(-CORNER, small, large) * (n > 1))


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "small_launch_s": (6 * US, 0.1 * US, 100 * US),
        "small_step_s": (0.5 * US, 1e-10, 50 * US),
        "small_link_Bps": share(device.link_Bps, 0.1, 0.001),
        "large_launch_s": (15 * US, US, 300 * US),
        "large_step_s": (0.5 * US, 1e-10, 50 * US),
        "large_link_Bps": share(device.link_Bps, 0.7, 0.02),
    }


FAMILY = Family(
    name="all_to_all",
    constants=AllToAllConstants,
    time_s=time_s,
    file="op_nccl.csv",
    tables=(Table("nccl.csv"),),
    variant=lambda row: "all_to_all" if row["op"] == "all_to_all" else None,
    shapes=("num_gpus", "bytes"),
    ranges=("num_gpus", "bytes"),
    unseen=("num_gpus", "bytes"),
    lengths=(1.0, 2.5),
    bounds=_bounds,
    arguments=columns("num_gpus", "bytes"),
)
