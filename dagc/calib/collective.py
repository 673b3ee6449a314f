"""NCCL all-reduce, all-gather and reduce-scatter in one node.

    t = launch + (n - 1) step_s + f S / link_Bps (1 + (half_B / S)^falloff) (n / 4)^(spread - 1)
    f = 2 (n - 1) / n for all_reduce, (n - 1) / n otherwise

Latency and bus factors: nccl-tests, doc/PERFORMANCE.md. Bandwidth that sets in with size, and its change with the
ranks, are this project's form. Fitted on 2, 4 and 8 ranks of one node.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from .shape import Floats, floats


@dataclass(frozen=True, slots=True)
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
