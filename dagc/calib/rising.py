"""Times of one kernel over the size of its message, made to rise: what was learned from rows has their scatter in it, and a
smaller message that takes longer than a larger one would mislead whoever compares two plans.

The nearest rising curve in squared logarithms, by pooling adjacent violators (Barlow et al. 1972), on two sizes an octave.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .constants import Entry
from .family import Family
from .shape import Floats

PER_OCTAVE, FIRST, LAST = 2, -4, 40
"""Sizes of the curve: from 2^FIRST to 2^LAST, tokens or bytes."""


def rising_s(family: Family[Any], entry: Entry[Any], at: int, *arguments: float) -> Floats:
    """`family.estimate_s`, rising with argument number `at`; the others are kept as they are. Beyond the curve's ends, its
    formula's own change."""
    size = float(arguments[at])
    others = _with(arguments, at, 1.0)
    logs = _curve(family, entry, at, others)
    where = np.log2(size) if size > 0 else -np.inf
    inside = np.exp(np.interp(where, SIZES, logs))
    if where > LAST:
        plain = [family.time_s(entry.constants, *_with(arguments, at, each)) for each in (2.0**LAST, size)]
        inside = inside * plain[1] / plain[0]
    return np.asarray(inside)


SIZES = np.arange(FIRST, LAST + 1 / PER_OCTAVE, 1 / PER_OCTAVE)


def _with(arguments: tuple[float, ...], at: int, size: Any) -> tuple[Any, ...]:
    return (*arguments[:at], size, *arguments[at + 1 :])


@lru_cache(maxsize=4096)
def _curve(family: Family[Any], entry: Entry[Any], at: int, others: tuple[float, ...]) -> Floats:
    times = family.estimate_s(entry, *_with(others, at, 2.0**SIZES))
    return pooled(np.log(np.maximum(times, 1e-12)))


def pooled(values: Floats) -> Floats:
    """The nearest values, in squares, that never fall."""
    sums: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        sums.append(value)
        counts.append(1)
        while len(sums) > 1 and sums[-2] / counts[-2] > sums[-1] / counts[-1]:
            last, count = sums.pop(), counts.pop()
            sums[-1] += last
            counts[-1] += count
    return np.repeat(np.array(sums) / np.array(counts), counts)
