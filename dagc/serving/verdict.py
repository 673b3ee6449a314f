"""Does a plan keep up with the requests that are offered: by how many of them pile up while they still arrive."""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record

Times = NDArray[np.float64]

STABLE, BACKLOGGED, OVERLOADED = "stable", "backlogged", "overloaded"
VERDICTS = (STABLE, BACKLOGGED, OVERLOADED)

PILED = 0.01
"""Share of the arrivals that must pile up."""
SERVED = 0.985
"""Share of the offered rate below which the plan serves less than it is offered."""
TURNED_AWAY = 0.02
"""Share of the arrivals that a full queue turns away."""
LONGER = 3.0
"""The last requests wait so many times longer than the first half."""
TIMES_AS_LONG = 4.0
"""The first half of the arrivals over the time of its requests, from which on a batch that still fills up is not filling up."""
SURE = 2.0
"""Standard deviations of the number in the whole system that are no chance: it varies more than a queue, and for as long as requests take."""
FEWEST = 16
"""Requests below which a run says nothing about growth."""


@record
class Growth:
    """Over the second half of the arrivals. `piled`: by how many requests the number grew that wait for their first token (`whole`:
    that are in the system, where only that grew); `share` of those that arrived; `chance`: standard deviation of what uneven arrivals
    alone would pile up; `served`: rate of first tokens (of ends) over the offered rate."""

    piled: float
    share: float
    chance: float
    served: float
    whole: bool = False

    @property
    def overloaded(self) -> bool:
        chance = SURE * self.chance if self.whole else self.chance
        return self.share > PILED and self.piled > chance and self.served < SERVED


def growth(arrivals: Times, ends: Times, rate_per_s: float = 0.0, *, whole: bool = False) -> Growth:
    """How the number of requests that have arrived and not ended grows. `rate_per_s`: as offered (0: that of the arrivals), which
    a finite sample of random arrivals misses by chance. `whole`: ends are of the requests, not of their first tokens.

    The mean number over the last quarter of the arrivals, less that over the quarter before, is half of the growth over both
    quarters: requests pile up evenly where more come than are served. In what a random walk of the arrivals would give, gaps of variation
    cv count like cv^2 independent ones each. The number in the whole system also varies where nothing grows, by its square root: twice
    the difference of two such numbers has eight times its variance."""
    arrivals, ends = np.sort(arrivals), np.sort(ends)
    count = len(arrivals)
    if count < FEWEST or arrivals[-1] <= arrivals[0]:
        return Growth(0.0, 0.0, 0.0, 1.0)
    first, last = arrivals[0], arrivals[-1]
    middle = (first + last) / 2
    moments = np.linspace(middle, last, 257)
    inside = np.searchsorted(arrivals, moments, "right") - np.searchsorted(ends, moments, "right")
    piled = 2.0 * float(inside[129:].mean() - inside[:128].mean())
    later = count - int(np.searchsorted(arrivals, middle, "right"))
    gaps = np.diff(arrivals)
    variation = float(gaps.std() / gaps.mean())
    offered = rate_per_s or later / (last - middle)
    served = (np.searchsorted(ends, last, "right") - np.searchsorted(ends, middle, "right")) / (last - middle)
    alone = max(1, later) + (8 * float(inside.mean()) if whole else 0.0)
    return Growth(piled, piled / max(1, later), variation * alone**0.5, float(served / offered), whole)


def fuller(first: Growth, whole: Growth, arrivals: Times, e2e_s: Times) -> tuple[Growth, bool]:
    """The growth of those that wait for a first token, or of all in the system where only these grow: where nothing limits how many are
    in decode, each step takes longer and longer. And whether all in the system grow in a run too short to say so: a batch fills up for
    some times as long as its requests take."""
    if not whole.overloaded or first.overloaded:
        return first, False
    span = float(arrivals.max() - arrivals.min())
    early = e2e_s[arrivals <= arrivals.min() + span / 2]
    settled = len(early) > 0 and float(np.percentile(early, 90)) < span / 2 / TIMES_AS_LONG
    return (whole, False) if settled else (first, True)


def waits_grew(arrivals: Times, ttft_s: Times) -> bool:
    """The last tenth of the requests waits several times longer than the first half."""
    waits = ttft_s[np.argsort(arrivals, kind="stable")]
    tenth = len(waits) // 10
    return tenth > 0 and _median(waits[-tenth:]) > LONGER * _median(waits[: len(waits) // 2])


def _median(values: Times) -> float:
    """As `np.median`, which imports `numpy.ma`."""
    ordered = np.sort(values)
    middle = len(values) // 2
    return float(ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def verdict(kind: str, found: Growth, grew: bool, turned_away: float) -> str:
    """`stable`: the queue does not grow. `overloaded`: more is offered than is served, so it grows as long as requests come.
    `backlogged`: it grew, but the run is too short to tell, or what came at once was worked off. Clients of a closed loop wait for one
    another and cannot overload it."""
    if (kind != "closed" and found.overloaded) or turned_away > TURNED_AWAY:
        return OVERLOADED
    if kind == "closed":
        return STABLE
    if kind == "burst" or grew or turned_away > 0 or (found.piled > found.chance and found.share > PILED):
        return BACKLOGGED
    return STABLE
