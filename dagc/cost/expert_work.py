"""What the expert ranks of a layer have to do, as figures."""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..calib.expert_rows import ExpertRows

Floats = NDArray[np.float64]


@record
class RankWork:
    """Work of each expert rank [ranks], in the order that the op splits experts: `relative` rows over the mean,
    `read` the share of its slots whose weights are read, `slot_rows` [ranks, slots] the rows of each slot, `kernel` what
    the fused kernel does with them, `missed` the share of its slots whose weights are not there. `distinct`: experts read
    by all ranks; `plain`: rows of the busiest rank over the mean; `dropped`: share of the choices
    beyond an expert's capacity; `error`: relative standard error of the busiest rank."""

    relative: Floats
    read: Floats
    slot_rows: Floats
    kernel: ExpertRows
    missed: Floats
    distinct: float
    plain: float
    dropped: float
    error: float

    @property
    def lacking(self) -> float:
        """Of the experts that all ranks read, the share that is not there."""
        needed = float(self.read.sum())
        return float(self.missed.sum()) / needed if needed else 0.0
