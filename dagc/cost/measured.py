"""measured: times of kernels that somebody measured, and the record in which a segment's are gathered.

`products.py` and `attention.py` find which kernels the ops run as; `match.py` says which kinds of op each looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from ..base.frozen import record
from ..calib import load
from ..calib.calibration_file import Calibration
from ..calib.constants import Entry
from ..ir.graph import Op, Segment
from ..ir.mesh import Mesh
from ..ir.ops.kind import Fuse
from ..ir.ops.op_set import OPS, local_flops
from ..ir.ops.sequence import Array
from ..ir.routed_dims import Rows
from ..spec.hardware import Hardware
from ..spec.model import Model
from ..spec.phase import Phase
from .expert_load import ExpertLoad
from .local_shapes import LocalShapes

C = TypeVar("C")
SCALED = {"math_flops": "compute", "tile_flops": "compute", "hbm_Bps": "hbm", "link_Bps": "link"}
"""Constants that follow a hardware section whose rates are not the calibrated GPU's."""


@record
class Measured:
    """Time of an op over its ranks. `family`: table and variant; `error`: median relative error there, on rows that the
    fit did not see; `outside`: sizes beyond what was measured."""

    time_s: Array
    family: str
    error: float
    outside: tuple[str, ...] = ()

    def times(self, share: float) -> Measured:
        return Measured(self.time_s * share, self.family, self.error, self.outside)


RIDING = Measured(np.zeros(1), "fused", 0.0)
"""Of an op that the kernel of another one does too: that one's time includes it."""


def scaled(constants: C, calibration: Calibration, hardware: Hardware) -> C:
    """Constants of a kernel, its rates scaled to the hardware section's."""
    device = calibration.device
    scale = {
        "compute": hardware.peak_flops("bf16") / device.flops["bf16"],
        "hbm": hardware.hbm_Bps / device.hbm_Bps,
        "link": hardware.node.bandwidth_Bps / device.link_Bps,
    }
    c: Any = constants
    changed = {
        n: getattr(c, n) * scale[by] for n, by in _rates(tuple(f.name for f in fields(c))) if abs(scale[by] - 1) > 1e-3
    }
    return replace(c, **changed) if changed else c  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _rates(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Rates among the constants of a family, and what they follow."""
    return tuple((name, SCALED[name]) for name in names if name in SCALED)


@dataclass
class Match:
    """The measured times of one segment, while they are being gathered. `loads`: the work of the expert ranks of each of its
    routers; `times`: op -> time over its ranks, for every op that a measured kernel does."""

    segment: Segment
    mesh: Mesh
    model: Model
    phase: Phase
    hardware: Hardware
    loads: Mapping[Rows, ExpertLoad]
    times: dict[str, Measured] = field(default_factory=dict)
    calibration: Calibration = field(init=False)
    shapes: LocalShapes = field(init=False)

    def __post_init__(self) -> None:
        assert self.hardware.calibration is not None
        self.calibration = load(self.hardware.calibration)
        self.shapes = LocalShapes(self.segment, self.mesh, self.model, self.phase)

    def constants(self, entry: Entry[C]) -> C:
        return scaled(entry.constants, self.calibration, self.hardware)

    def ride(self, op: Op, kernel: Fuse) -> bool:
        """Whether a fused kernel does this op too, by the op's record; if so its time is there."""
        if kernel not in OPS[op.kind].rides_in:
            return False
        self.times.setdefault(op.name, RIDING)
        return True

    def share(self, group: Sequence[Op], found: Measured) -> None:
        """The time of one kernel, shared among its products by their FLOPs."""
        flops = [local_flops(self.segment, op, self.mesh) for op in group]
        for op, each in zip(group, flops, strict=True):
            self.times[op.name] = found.times(each / (sum(flops) or 1.0))
