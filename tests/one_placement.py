"""The busiest rank of one placement, as numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagc.cost.busiest import busiest_ranks


class Most(NamedTuple):
    rows: float
    row_tiles: float
    distinct: float
    dropped: float
    error: float


def busiest_rank(p: NDArray[np.float64], slots: NDArray[np.int64], tokens: int, **how: Any) -> Most:
    """`p` [experts], `slots` [ranks, slots]."""
    found = busiest_ranks(p[None], slots[None], tokens, **how)
    return Most(*(float(getattr(found, name)[0]) for name in Most._fields))
