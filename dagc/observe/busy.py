"""How long something was going on: lengths of unions of spans, and of what two unions have in common."""

from __future__ import annotations

import numpy as np

from ..base.frozen import record
from .kernel_classes import COMPUTE, COPY, EXCHANGE
from .rank_trace import Floats


def union(start_s: Floats, end_s: Floats) -> tuple[Floats, Floats]:
    """Spans that do not overlap, in order, over the same moments."""
    if not len(start_s):
        return start_s, end_s
    order = np.argsort(start_s, kind="stable")
    start, end = start_s[order], np.maximum.accumulate(end_s[order])
    first = np.concatenate(([True], start[1:] > end[:-1]))
    last = np.concatenate((first[1:], [True]))
    return start[first], end[last]


def length_s(start_s: Floats, end_s: Floats) -> float:
    """Of the union of spans."""
    start, end = union(start_s, end_s)
    return float((end - start).sum())


@record
class Activity:
    """What the streams of a GPU, or of several moments of it, did together. `span_s`: from the first beginning to the last end, with `idle_s`
    in which nothing ran. `compute_s`, `copy_s`, `exchange_s`: in which at least one such kernel ran; `overlap_s`: in which both
    compute and exchange ran. (As HolisticTraceAnalysis counts them.)"""

    span_s: float
    busy_s: float
    compute_s: float
    copy_s: float
    exchange_s: float
    overlap_s: float

    @property
    def idle_s(self) -> float:
        return max(0.0, self.span_s - self.busy_s)

    @property
    def exposed_s(self) -> float:
        """Exchange under which nothing is computed."""
        return max(0.0, self.exchange_s - self.overlap_s)

    def plus(self, other: Activity, weight: float = 1.0) -> Activity:
        """Both, one after the other; the other `weight` times."""
        mine, others = self.values, other.values
        return Activity(*(a + weight * b for a, b in zip(mine, others, strict=True)))

    @property
    def values(self) -> tuple[float, ...]:
        return self.span_s, self.busy_s, self.compute_s, self.copy_s, self.exchange_s, self.overlap_s


NOTHING = Activity(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def activity(start_s: Floats, end_s: Floats, part: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Activity:
    """Of spans, of which each is of a part: `compute`, `copy` or `exchange`."""
    if not len(start_s):
        return NOTHING
    compute, copy, exchange = (part == name for name in (COMPUTE, COPY, EXCHANGE))
    compute_s, copy_s, exchange_s = (length_s(start_s[which], end_s[which]) for which in (compute, copy, exchange))
    together = compute | exchange
    overlap_s = compute_s + exchange_s - length_s(start_s[together], end_s[together])
    span_s = float(end_s.max() - start_s.min())
    return Activity(span_s, length_s(start_s, end_s), compute_s, copy_s, exchange_s, max(0.0, overlap_s))
