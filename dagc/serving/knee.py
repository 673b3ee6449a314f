"""The knee: the highest load at which a serving still keeps every requirement, and what breaks first above it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from ..base.frozen import field, record, replace
from ..spec.serve import Arrivals
from .result import ServeResult

DIGITS = 2
"""Loads have one digit before the point and so many behind it."""
TURNS = 20
"""Doublings, or halvings, after which no knee is looked for."""

BESIDE = (0.25, 0.5, 0.75, 1.25)
"""Shares of the knee that are simulated too: they show how the times get there."""

Run = Callable[[float], ServeResult]
Broken = Callable[[ServeResult], tuple[str, ...]]
"""The requirements that a result breaks, in words."""


@record
class Point:
    """A simulated load, and what breaks there."""

    load: float
    result: ServeResult = field(repr=False)
    broken: tuple[str, ...]


@record
class Knee:
    """`at`: the highest load that keeps everything (None: none does); `above`: the next one, which does not (None: none was
    found); `points`: all that were simulated, lowest first."""

    at: Point | None
    above: Point | None
    points: tuple[Point, ...]


def load_kind(arrivals: Arrivals) -> tuple[str, float]:
    """What raises the load, and how much of it there is: requests per second, clients, or how fast a trace passes."""
    if arrivals.kind == "closed":
        return "clients", float(arrivals.clients)
    return ("speed", arrivals.speed) if arrivals.kind == "trace" else ("rate_per_s", arrivals.rate_per_s)


def loaded(arrivals: Arrivals, load: float) -> Arrivals:
    """The same arrivals under another load: their gaps are scaled."""
    kind, _ = load_kind(arrivals)
    changed: dict[str, Any] = {kind: int(load) if kind == "clients" else load}
    return replace(arrivals, **changed)


def rung(number: int, whole: bool) -> float:
    """Loads that can be told apart: those of three significant digits; `whole`: of clients."""
    of_a_decade = 9 * 10**DIGITS
    if whole:
        # one to a thousand are all there, from there on three digits
        least = 10 ** (DIGITS + 1)
        if number <= least:
            return float(max(1, number))
        number += of_a_decade * (DIGITS + 1) - least
    decade, place = divmod(number, of_a_decade)
    return float(f"{10**DIGITS + place}e{decade - DIGITS}")


def rung_of(load: float, whole: bool) -> int:
    """The highest rung that is not above a load, or the lowest there is."""
    low, high = (1, 10**5) if whole else (-(10**5), 10**5)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rung(middle, whole) <= load * (1 + 1e-12) else (low, middle)
    return low


def knee(
    run: Run,
    broken: Broken,
    start: float,
    *,
    whole: bool = False,
    most: float = inf,
    told: Callable[[float], None] = lambda load: None,
) -> Knee:
    """Doubles or halves the load from `start` until one keeps everything and one does not, then halves what is between them, down
    to neighbours in three digits. That what breaks at a load breaks above it too is assumed: with the arrivals of one seed, whose gaps
    are scaled, it holds but for chance. `whole`: the load is a number of clients; `most`: the highest to look at; `told`: hears of every
    load before it is simulated."""
    found: dict[int, Point] = {}

    def at(number: int) -> Point:
        if number not in found:
            load = rung(number, whole)
            told(load)
            result = run(load)
            found[number] = Point(load, result, broken(result))
        return found[number]

    first = rung_of(min(start, most), whole)
    good, bad = (None, first) if at(first).broken else (first, None)
    for _ in range(TURNS):
        if good is None and bad is not None:
            number = rung_of(rung(bad, whole) / 2, whole)
            if number == bad or _alone(found[bad].result):
                break
        elif good is not None and bad is None:
            number = rung_of(min(2 * rung(good, whole), most), whole)
            if number == good:
                break
        else:
            break
        good, bad = (good, number) if at(number).broken else (number, bad)
    while good is not None and bad is not None and bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if at(middle).broken else (middle, bad)
    if good is not None and bad is not None:
        for share in BESIDE:
            at(rung_of(min(share * rung(good, whole), most), whole))
    points = tuple(found[k] for k in sorted(found))
    return Knee(found[good] if good is not None else None, found[bad] if bad is not None else None, points)


def _alone(result: ServeResult) -> bool:
    """Never more than one request at a time: what breaks now breaks at any load."""
    return result.running_most <= 1 and result.queue_most <= 1
