"""Kernels that belong to experts by where they run: the activation and the casts between two products of experts, whose names are those of any
feed-forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernel_classes import KernelClass

EXPERTS = "experts"
LIGHT = ("activation", "quantise", "elementwise", "fused")
"""Classes that an engine has between the products of experts."""


def of_experts(
    of: NDArray[Any], device: NDArray[Any], stream: NDArray[Any], found: Sequence[KernelClass]
) -> NDArray[np.intp]:
    """The classes of kernels in the order in which they began, with the light ones that have nothing but experts before and behind them
    on their stream counted as experts."""
    names = [one.name for one in found]
    out = np.asarray(of, np.intp)
    if EXPERTS not in names or not len(out):
        return out
    experts = names.index(EXPERTS)
    order = np.lexsort((np.arange(len(out)), stream, device))
    sorted_of = out[order]
    light = np.isin(sorted_of, [k for k, name in enumerate(names) if name in LIGHT])
    place = np.arange(len(out))
    before = np.maximum.accumulate(np.where(light, -1, place))
    behind = np.minimum.accumulate(np.where(light, len(out), place)[::-1])[::-1]
    inside = light & (before >= 0) & (behind < len(out))
    first, last = order[np.maximum(before, 0)], order[np.minimum(behind, len(out) - 1)]
    for column in (device, stream):
        inside &= (column[first] == column[order]) & (column[last] == column[order])
    inside &= (out[first] == experts) & (out[last] == experts)
    out = out.copy()
    out[order[inside]] = experts
    return out
