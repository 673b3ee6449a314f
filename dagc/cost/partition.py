"""partition: layers in a row cut into stages, so that the stage that has most has as little as can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base.arrays import NDArray

Ranges = NDArray[np.float64]
"""[i, j]: of the layers from the i-th to before the j-th; infinite where they may not be a stage."""
SAME = 1e-12
"""Relative difference below which two cuts are as good."""


def least_most(ranges: Sequence[Ranges], stages: int) -> tuple[int, ...] | None:
    """The edges of a cut: where each stage begins, and the end of the last. Its largest range is as small as can be by the first of
    the matrices; of such cuts, by the second, and so on; of equal ones it is the most even. None where there is no cut. A matrix is of
    all stages, or has one for each.

    Exact: `best[k][j]`, the least largest range of any cut of the first j layers into k stages, follows from that of k - 1."""
    size = ranges[0].shape[-1]
    allowed = np.isfinite(ranges[0])
    for own in ranges:
        masked = np.where(allowed, own, np.inf)
        best = np.full(size, np.inf)
        best[0] = -np.inf
        for of_stage in np.broadcast_to(masked, (stages, size, size)):
            best = np.maximum(best[:, None], of_stage).min(axis=0)
        least = best[-1]
        if not np.isfinite(least):
            return None
        allowed &= masked <= least + abs(least) * SAME
    return _most_even(allowed, stages)


def _most_even(allowed: NDArray[np.bool_], stages: int) -> tuple[int, ...]:
    """The cut of least squared lengths."""
    size = allowed.shape[-1]
    lengths = np.arange(size)[None, :] - np.arange(size)[:, None]
    cost = np.where(allowed, lengths.astype(float) ** 2, np.inf)
    best = np.full(size, np.inf)
    best[0] = 0.0
    came: list[NDArray[np.intp]] = []
    for of_stage in np.broadcast_to(cost, (stages, size, size)):
        through = best[:, None] + of_stage
        came.append(through.argmin(axis=0))
        best = through.min(axis=0)
    edges = [size - 1]
    for before in reversed(came):
        edges.append(int(before[edges[-1]]))
    return tuple(reversed(edges))
