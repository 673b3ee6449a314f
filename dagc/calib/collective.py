"""NCCL all-reduce, all-gather and reduce-scatter in one node.

    t = launch + (n - 1) step_s + f S / link_Bps (1 + (half_B / S)^falloff) (n / 4)^(spread - 1)
    f = 2 (n - 1) / n for all_reduce, (n - 1) / n otherwise

Latency and bus factors: nccl-tests, doc/PERFORMANCE.md. Bandwidth that sets in with size, and its change with the
ranks, are this project's form. Fitted on 2, 4 and 8 ranks of one node.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import US, Bounds, Family, Table, columns, share
from .shape import Floats, floats


@record
class CollectiveConstants:
    """`bus_factor`: 2 for all_reduce, else 1."""

    bus_factor: float
    launch_s: float
    step_s: float
    link_Bps: float
    half_B: float
    falloff: float
    spread: float


def time_s(c: CollectiveConstants, ranks: ArrayLike, size_B: ArrayLike) -> Floats:
    """Seconds of one call. `size_B` as nccl-tests counts it: the buffer of an all-reduce, the gathered output of an
    all-gather, the whole input of a reduce-scatter. One rank takes no time."""
    n, size = floats(ranks), floats(size_B)
    wire_B = c.bus_factor * (n - 1) / n
    # S (1 + (half / S)^g) written so that no bytes take no time.
    felt_B = size + c.half_B**c.falloff * size ** (1 - c.falloff)
    moving = wire_B * felt_B / c.link_Bps * (n / 4) ** (c.spread - 1)
    return floats((c.launch_s + (n - 1) * c.step_s + moving) * (n > 1))


def bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (6 * US, 0.1 * US, 100 * US),
        "step_s": (US, 1e-10, 50 * US),
        "link_Bps": share(device.link_Bps, 0.8, 0.02),
        "half_B": (4e6, 1.0, 1e9),
        "falloff": (0.4, 0.05, 0.95),
        "spread": (1.0, 0.4, 2.0),
    }


def bus_factor(device: Device, variant: str) -> dict[str, float]:
    return {"bus_factor": 1.0 if variant in ("all_gather", "reduce_scatter") else 2.0}


FAMILY = Family(
    name="collective",
    constants=CollectiveConstants,
    time_s=time_s,
    file="op_nccl.csv",
    tables=(Table("nccl.csv"),),
    variant=lambda row: None if row["op"] == "all_to_all" else row["op"],
    shapes=("num_gpus", "bytes"),
    ranges=("num_gpus", "bytes"),
    unseen=("num_gpus", "bytes"),
    lengths=(1.0, 2.5),
    bounds=bounds,
    facts=bus_factor,
    arguments=columns("num_gpus", "bytes"),
)
