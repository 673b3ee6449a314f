"""Rows of the experts of one rank, as kernels of experts see them: row tiles, and experts with any row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.arrays import ArrayLike, NDArray

Floats = NDArray[np.float64]

TILE = 64
"""Rows of a tile: a grouped GEMM rounds each expert up to it."""
_LOGISTIC = 1.702  # slope that best fits a normal distribution by a logistic one


class ExpertRows(NamedTuple):
    """Rows of one rank: in all, tiles that cover each expert's, and the experts that have any."""

    rows: Floats
    row_tiles: Floats
    distinct: Floats


def expected_rows(mean_rows: ArrayLike) -> ExpertRows:
    """From mean rows of each local expert [..., experts], each Poisson (independent tokens)."""
    mean = np.asarray(mean_rows, dtype=np.float64)[..., None]
    hit = -np.expm1(-mean)
    more = np.arange(1, 17) * TILE
    exceed = 1 / (1 + np.exp(np.clip(_LOGISTIC * (more + 0.5 - mean) / np.sqrt(np.maximum(mean, 1e-9)), -500, 500)))
    # Beyond the listed tiles an expert's last tile is half full on average.
    covering = np.where(mean > 12 * TILE, mean / TILE + 0.5, hit + exceed.sum(-1, keepdims=True))
    return ExpertRows(*(np.asarray(each.sum((-1, -2)), dtype=np.float64) for each in (mean, covering, hit)))
