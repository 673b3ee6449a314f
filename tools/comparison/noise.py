"""The noise floor: how far repeats of one configuration lie apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from .rows import Serving


def repeats(servings: Sequence[Serving], metric: str) -> list[list[float]]:
    """Figures of rows that differ in nothing but the engine's version and the day."""
    alike: dict[Serving, list[float]] = defaultdict(list)
    for serving in servings:
        if serving.metric == metric:
            alike[replace(serving, value=0.0)].append(serving.value)
    return [values for values in alike.values() if len(values) > 1]


def deviations(groups: Sequence[Sequence[float]]) -> list[float]:
    """Each figure over the median of the others of its configuration: what a model that knew them would be off by."""
    found = []
    for values in groups:
        for i, value in enumerate(values):
            others = [*values[:i], *values[i + 1 :]]
            found.append(median(others) / value)
    return found


def spreads(groups: Sequence[Sequence[float]]) -> list[float]:
    """Largest over smallest of each configuration, less one."""
    return [max(values) / min(values) - 1 for values in groups]
