"""The noise floor: how far repeats of one configuration lie apart."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

Group = list[tuple[float, float]]
OTHER = ("row", "backend_version", "measured_ttft_ms", "measured_tpot_ms")
"""Columns that repeats may differ in."""
SAME = 1e-3
"""Both figures within this share of another row's: one run, listed twice."""


def repeats(file: Path) -> list[Group]:
    """(TTFT, TPOT) of runs that differ in nothing but the engine's version and the day; two of them or more."""
    alike: dict[tuple[str, ...], Group] = defaultdict(list)
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            key = tuple(value for name, value in row.items() if name not in OTHER)
            run = (float(row["measured_ttft_ms"] or 0), float(row["measured_tpot_ms"] or 0))
            if min(run) > 0 and not any(_same(run, other) for other in alike[key]):
                alike[key].append(run)
    return [group for group in alike.values() if len(group) > 1]


def _same(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(abs(x / y - 1) < SAME for x, y in zip(a, b, strict=True))


def deviations(values: Sequence[float]) -> list[float]:
    """The median of the others over each figure: what a model that knew them would be off by."""
    return [median([*values[:i], *values[i + 1 :]]) / value for i, value in enumerate(values)]
