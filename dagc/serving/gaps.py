"""The histogram of the gaps between tokens: bins of equal ratio, so that every gap is known to the same share of itself."""

from __future__ import annotations

from math import exp, floor, log

RATIO = 1.01
"""Upper edge of a bin over its lower one; bin 0 begins at one second, shorter gaps have negative numbers."""
RESOLUTION = (RATIO - 1) / 2
"""What the centre of a bin is off by at most, relative."""
PER_BIN = 1 / log(RATIO)
LEAST_S = 1e-9
"""Shorter gaps, and those between tokens of one step, are in the bin of this one."""


def number(gap_s: float) -> int:
    """The bin of a gap."""
    return floor(log(gap_s if gap_s > LEAST_S else LEAST_S) * PER_BIN)


def seconds(number: int) -> float:
    """The centre of a bin."""
    return exp((number + 0.5) / PER_BIN)


def add_run(gaps: dict[int, float], first_s: float, more_s: float, steps: int, weight: float) -> None:
    """Adds the gaps `first_s + i more_s` of `steps` steps, `more_s` >= 0, each `weight` times: a few operations per bin, not per step."""
    at, index = 0, number(first_s)
    last = number(first_s + more_s * (steps - 1)) if steps > 1 else index
    while index != last:
        low, high = at, steps - 1  # the bin of `low` is `index`, that of `high` is not
        while high - low > 1:
            middle = (low + high) // 2
            if number(first_s + more_s * middle) == index:
                low = middle
            else:
                high = middle
        gaps[index] = gaps.get(index, 0) + weight * (high - at)
        at, index = high, number(first_s + more_s * high)
    gaps[index] = gaps.get(index, 0) + weight * (steps - at)


def add_runs(gaps: dict[int, float], runs: list[float]) -> None:
    """As `add_run` for many: `runs` has first, more, steps and weight of each, one after the other. It is empty afterwards."""
    import numpy as np  # many at once

    if not runs:
        return
    table = np.array(runs, dtype=float).reshape(-1, 4)
    runs.clear()
    first, more, steps, weight = table.T
    low = np.floor(np.log(np.maximum(first, LEAST_S)) * PER_BIN).astype(np.int64)
    high = np.floor(np.log(np.maximum(first + more * (steps - 1), LEAST_S)) * PER_BIN).astype(np.int64)
    same = low == high
    least = int(low.min())
    counts = np.bincount(low[same] - least, (steps * weight)[same])
    for index in np.flatnonzero(counts).tolist():
        gaps[index + least] = gaps.get(index + least, 0) + float(counts[index])
    for run in table[~same].tolist():
        add_run(gaps, run[0], run[1], int(run[2]), run[3])
