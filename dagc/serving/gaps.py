"""The histogram of the gaps between tokens: bins of equal ratio, so that every gap is known to the same share of itself."""

from __future__ import annotations

from math import exp, floor, log

RATIO = 1.02
"""Upper edge of a bin over its lower one; bin 0 begins at one second, shorter gaps have negative numbers."""
RESOLUTION = (RATIO - 1) / 2
"""What the centre of a bin is off by at most, relative."""
_STEP = log(RATIO)
LEAST_S = 1e-9
"""Shorter gaps, and those between tokens of one step, are in the bin of this one."""


def number(gap_s: float) -> int:
    """The bin of a gap."""
    return floor(log(max(gap_s, LEAST_S)) / _STEP)


def seconds(number: int) -> float:
    """The centre of a bin."""
    return exp((number + 0.5) * _STEP)
