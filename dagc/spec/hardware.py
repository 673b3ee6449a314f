"""A pool of equal GPUs and its links, in SI units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from ..base import dtypes
from ..base.frozen import record
from ..base.source import Span


@record
class Link:
    """Per GPU and direction."""

    bandwidth_Bps: float
    latency_s: float


@record
class Hardware:
    """A pool of equal GPUs. `compute_flops` maps dtype -> peak FLOP/s; key "default" serves the rest."""

    name: str
    gpus: int
    per_node: int
    compute_flops: Mapping[str, float]
    mfu: float
    memory_B: float
    hbm_Bps: float
    mbu: float
    launch_s: float
    reserve_B: float
    node: Link
    cluster: Link
    calibration: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    def peak_flops(self, dtype: str) -> float:
        """Datasheet peak for a dtype, FLOP/s."""
        found = dtypes.find(dtype)
        known = dtype if dtype in self.compute_flops or found is None else found.unit
        return self.compute_flops.get(known, self.compute_flops["default"])
