"""measured: times of kernels that somebody measured, and the record in which a segment's are gathered.

`products.py` and `attention.py` find which kernels the ops run as; `match.py` says which kinds of op each looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

import numpy as np

from ..base.frozen import field, fields_of, mutable, record, replace
from ..base.traced import called
from ..calib import load
from ..calib.calibration import Calibration
from ..calib.constants import Device, Entry
from ..calib.family import Family
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.kind import Fuse
from ..ir.ops.op_set import OPS, local_flops
from ..ir.ops.sequence import Array
from ..ir.routed_dims import Rows
from ..ir.segment import Segment
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
    fit did not see; `outside`: sizes beyond what was measured. `table`: whose table (`vllm on h200_sxm`); `instead_of`: what
    nobody measured and this table takes the place of. `buffer_B`: what a collective sends of its local buffer, where the time is
    of fewer copies than that has; 0: all of it."""

    time_s: Array
    family: str
    error: float
    outside: tuple[str, ...] = ()
    table: str = ""
    instead_of: str = ""
    buffer_B: float = 0.0

    @staticmethod
    def of(time_s: Array, family: str, entry: Entry[Any], outside: Sequence[str] = ()) -> Measured:
        """Priced by an entry."""
        return Measured(time_s, family, entry.error.median, tuple(outside), entry.table, entry.instead_of)

    def times(self, share: float) -> Measured:
        return self.at(self.time_s * share)

    def at(self, time_s: Array) -> Measured:
        return replace(self, time_s=time_s)


RIDING = Measured(np.zeros(1), "fused", 0.0)
"""Of an op that the kernel of another one does too: that one's time includes it."""


def over_dimensions(times: dict[str, Measured], dimensions: int) -> dict[str, Measured]:
    """With so many dimensions, as a mesh has; what rides has none."""
    alike = (1,) * dimensions
    return {
        name: each if each is RIDING or each.time_s.size > 1 else each.at(each.time_s.reshape(alike))
        for name, each in times.items()
    }


Faster = tuple[float, float, float]
"""How many times the rates of another GPU: compute, memory, innermost links."""


def faster(calibration: Calibration, hardware: Hardware) -> Faster | None:
    """The hardware section than the calibrated GPU; None where they are the same."""
    device = calibration.device
    ratios = (
        hardware.peak_flops("bf16") / device.flops["bf16"],
        hardware.hbm_Bps / device.hbm_Bps,
        hardware.node.bandwidth_Bps / device.link_Bps,
    )
    return None if all(abs(ratio - 1) <= 1e-3 for ratio in ratios) else ratios


def scaled(entry: Entry[C], by: Faster | None) -> Entry[C]:
    """An entry, its rates and the peaks that bound them scaled."""
    return entry if by is None else _scaled(entry, by)


@lru_cache(maxsize=1024)
def _scaled(entry: Entry[C], by: Faster) -> Entry[C]:
    compute, hbm, link = by
    scale = {"compute": compute, "hbm": hbm, "link": link}
    c: Any = entry.constants
    changed = {n: getattr(c, n) * scale[by] for n, by in _rates(tuple(fields_of(type(c)))) if abs(scale[by] - 1) > 1e-3}
    old = entry.device
    peaks = {dtype: peak * compute for dtype, peak in old.flops.items()}
    device = Device(peaks, old.hbm_Bps * hbm, old.link_Bps * link, old.sms)
    return replace(entry, constants=replace(c, **changed), device=device)


@called
def estimate_s(family: Family[C], entry: Entry[C], *arguments: Any) -> Array:
    """Seconds of a kernel. The same kernels are asked for again and again: of scalars the answer is kept."""
    if all(isinstance(each, (int, float)) for each in arguments):
        return _kept(family, entry, arguments)
    return family.estimate_s(entry, *arguments)


@lru_cache(maxsize=1 << 15)
def _kept(family: Family[Any], entry: Entry[Any], arguments: tuple[float, ...]) -> Array:
    found = family.estimate_s(entry, *arguments)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=64)
def _rates(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Rates among the constants of a family, and what they follow."""
    return tuple((name, SCALED[name]) for name in names if name in SCALED)


class Kept(Protocol):
    """Times that plans of one model graph share (`kept_costs.py`). `even`, `placed`: what keys begin with that say by how many ranks, or
    by which, ops are split."""

    even: tuple[Hashable, ...]
    placed: tuple[Hashable, ...]

    def split(self, op: Op) -> tuple[Hashable, ...]: ...

    def placed_split(self, op: Op) -> tuple[Hashable, ...]: ...

    def times(
        self, key: tuple[Hashable, ...], make: Callable[[], dict[str, Measured]], load: ExpertLoad | None = None
    ) -> dict[str, Measured]: ...


@mutable
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
    kept: Kept | None = None
    calibration: Calibration = field(init=False)
    faster: Faster | None = field(init=False)
    shapes: LocalShapes = field(init=False)

    def __post_init__(self) -> None:
        assert self.hardware.calibration is not None
        self.calibration = load(self.hardware.calibration)
        self.faster = faster(self.calibration, self.hardware)
        self.shapes = LocalShapes(self.segment, self.mesh, self.model, self.phase)

    def find(self, family: Family[C], variants: str | tuple[str, ...]) -> Entry[C] | None:
        """The entry of the first of the variants that was measured of the phase's engine, else the nearest; scaled to
        the hardware."""
        entry = self.calibration.find(family, variants, self.phase.engine)
        return scaled(entry, self.faster) if entry is not None else None

    def keep(self, key: tuple[Hashable, ...], match: Callable[[], None], load: ExpertLoad | None = None) -> None:
        """Gather what `match` finds, or found in another plan of the same key and load."""
        if self.kept is None:
            match()
            return
        for name, each in self.kept.times(key, partial(self._alone, match), load).items():
            if each is RIDING:
                self.times.setdefault(name, each)
            else:
                self.times[name] = each

    def _alone(self, match: Callable[[], None]) -> dict[str, Measured]:
        before, self.times = self.times, {}
        match()
        found, self.times = self.times, before
        return found

    def ride(self, op: Op, kernel: Fuse) -> bool:
        """Whether a fused kernel does this op too, by the op's record; if so its time is there."""
        if kernel not in OPS[op.kind].rides_in or self.phase.fuse == ():
            return False
        self.times.setdefault(op.name, RIDING)
        return True

    def share(self, group: Sequence[Op], found: Measured) -> None:
        """The time of one kernel, shared among its products by their FLOPs."""
        flops = [local_flops(self.segment, op, self.mesh) for op in group]
        for op, each in zip(group, flops, strict=True):
            self.times[op.name] = found.times(each / (sum(flops) or 1.0))
