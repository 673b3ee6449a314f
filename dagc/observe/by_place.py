"""Kernels whose class follows from where they run rather than from their names: activations and casts between two products of experts, and
unknown kernels on streams that only exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from .kernel_classes import COMPUTE, EXCHANGE, UNKNOWN, KernelClass, classes

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


def of_streams(
    of: NDArray[Any], device: NDArray[Any], stream: NDArray[Any], found: tuple[KernelClass, ...]
) -> tuple[NDArray[np.intp], tuple[KernelClass, ...]]:
    """The classes of kernels, with unknown ones counted as exchanges where all else on their stream but copies are exchanges; and the table of
    classes, which may have one more."""
    names = [one.name for one in found]
    out = np.asarray(of, np.intp)
    if UNKNOWN not in names or not any(one.part == EXCHANGE for one in found):
        return out, found
    part = np.array([one.part for one in found])[out]
    unknown = out == names.index(UNKNOWN)
    _, number = np.unique(np.stack([device, stream]), axis=1, return_inverse=True)
    number = number.reshape(-1)
    exchanges = np.bincount(number, weights=part == EXCHANGE) > 0
    computes = np.bincount(number, weights=(part == COMPUTE) & ~unknown) > 0
    chosen = unknown & (exchanges & ~computes)[number]
    if not chosen.any():
        return out, found
    if EXCHANGE not in names:
        found = (*found, classes().by_name[EXCHANGE])
        names.append(EXCHANGE)
    return np.where(chosen, names.index(EXCHANGE), out), found
