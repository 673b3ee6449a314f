"""The knee: the highest load at which a serving still keeps every requirement, and what breaks first above it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from ..base.frozen import record
from .result import ServeResult

DIGITS = 2
"""Loads have one digit before the point and so many behind it."""
TURNS = 20
"""Doublings, or halvings, after which no knee is looked for."""

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
    """The highest rung that is not above a load."""
    low, high = (1, 10**5) if whole else (-(10**5), 10**5)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rung(middle, whole) <= load * (1 + 1e-12) else (low, middle)
    return low


def knee(
    run: Run, broken: Broken, start: float, *, whole: bool = False, told: Callable[[float], None] = lambda load: None
) -> Knee:
    """Doubles or halves the load from `start` until one keeps everything and one does not, then halves what is between them, down
    to neighbours in three digits. That what breaks at a load breaks above it too is assumed: with the arrivals of one seed, whose gaps
    are scaled, it holds but for chance. `whole`: the load is a number of clients; `told`: hears of every load before it is simulated."""
    found: dict[int, Point] = {}

    def at(number: int) -> Point:
        if number not in found:
            load = rung(number, whole)
            told(load)
            result = run(load)
            found[number] = Point(load, result, broken(result))
        return found[number]

    number = rung_of(start, whole)
    good = number if not at(number).broken else None
    bad = None if good is not None else number
    for _ in range(TURNS):
        load = rung(number, whole) * (0.5 if good is None else 2.0)
        if (
            (good is not None and bad is not None)
            or (whole and load < 1)
            or (good is None and _alone(found[number].result))
        ):
            break
        number = rung_of(load, whole)
        if at(number).broken:
            bad = number
        else:
            good = number
    while good is not None and bad is not None and bad - good > 1:
        middle = (good + bad) // 2
        if at(middle).broken:
            bad = middle
        else:
            good = middle
    points = tuple(found[k] for k in sorted(found))
    return Knee(found[good] if good is not None else None, found[bad] if bad is not None else None, points)


def _alone(result: ServeResult) -> bool:
    """Never more than one request at a time: what breaks now breaks at any load."""
    return result.running_most <= 1 and result.queue_most <= 1
