"""Percentiles of a histogram that another program kept, with what its buckets leave open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import inf, isfinite

from ...base.frozen import record
from .series import Series


@record
class Histogram:
    """`edges`: upper ends of its buckets, rising, the last one infinite; `counts`: of all up to each."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        return self.counts[-1]

    @property
    def mean(self) -> float:
        return self.total / self.count

    def percentile(self, percent: float) -> tuple[float, float, float]:
        """(value, least, most): linear within the bucket, as Prometheus' histogram_quantile; the true one, the smallest that so many are at most, is
        between least and most. In the bucket without an upper end the value is its lower one."""
        rank = percent * self.count / 100
        place = next((i for i, count in enumerate(self.counts) if count >= rank and count > 0), len(self.counts) - 1)
        high = self.edges[place]
        low = self.edges[place - 1] if place else min(0.0, high)
        below = self.counts[place - 1] if place else 0.0
        inside = self.counts[place] - below
        if not isfinite(high):
            return low, low, inf
        return low + (high - low) * ((rank - below) / inside if inside else 1.0), low, high


def histogram(buckets: Iterable[tuple[Mapping[str, str], Series]], total: float) -> Histogram | None:
    """Series of `_bucket` of several ranks or servers as one. Where they have different buckets, the edges that all have count. None where there is
    nothing, or where counts fall."""
    ranks: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    for labels, series in buckets:
        edge = _edge(labels.get("le", ""))
        if edge is None:
            return None
        rank = tuple(item for item in labels.items() if item[0] != "le")
        ranks.setdefault(rank, {})[edge] = series.counted
    if not ranks:
        return None
    edges = sorted(set.intersection(*(set(counts) for counts in ranks.values())))
    if not edges or isfinite(edges[-1]):
        return None
    counts = tuple(sum(one[edge] for one in ranks.values()) for edge in edges)
    if counts[-1] <= 0 or any(low > high for low, high in pairwise(counts)):
        return None
    return Histogram(tuple(edges), counts, total)


def _edge(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if value != value else value
