"""Values between compiled ones: linear between knots, which stand closer where a value between them shows it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from math import sqrt

DEPTH = 4
"""How often an interval between base knots is halved at most."""
KEPT = 0.125
"""Of the tolerance: a checked value that is off by less is no knot, so that lines are long."""


class Errors:
    """What checks found: the largest relative error of interpolation, and how many values were checked."""

    def __init__(self, tolerance: float | None) -> None:
        self.tolerance = tolerance
        self.largest = 0.0
        self.checked = 0

    def note(self, found: float, actual: float) -> float:
        """The relative error of an interpolated value."""
        self.checked += 1
        return abs(found - actual) / actual if actual else 0.0

    def accept(self, error: float) -> None:
        self.largest = max(self.largest, error)


def middle(low: float, high: float, unit: float = 1.0) -> float | None:
    """A multiple of the unit between both, near their geometric mean; None where there is none."""
    found = round(sqrt(low * high) / unit) * unit
    return found if low < found < high else None


class Ladder:
    """Knots of one variable. `check(low, high, mid)`: (interpolated, actual) value at `mid`. Intervals are refined when they are
    first asked for, each on its own, so that what is found does not depend on the order of questions. Beyond the last
    knot follow others, each `factor` times the one before: nothing is extrapolated. Below the first one it is taken."""

    def __init__(
        self,
        base: Iterable[float],
        check: Callable[[float, float, float], tuple[float, float]],
        errors: Errors,
        unit: Callable[[float], float] = lambda _: 1.0,
        factor: float = 4.0,
    ) -> None:
        self.base = sorted(set(base))
        self.check, self.errors, self.unit, self.factor = check, errors, unit, factor
        self.parts: dict[int, list[float]] = {}

    def around(self, x: float) -> tuple[float, float]:
        """The knots on both sides of a value; the same one twice below the first."""
        base = self.base
        if x < base[0]:
            return base[0], base[0]
        while x >= base[-1]:  # a line that begins at the last knot has an end too
            base.append(base[-1] * self.factor)
        i = bisect_right(base, x) - 1
        knots = self.parts.get(i)
        if knots is None:
            knots = self.parts[i] = self.refined(base[i], base[i + 1], 0)
        if len(knots) == 2:
            return knots[0], knots[1]
        j = bisect_right(knots, x)
        return knots[j - 1], knots[j]

    def refined(self, low: float, high: float, depth: int) -> list[float]:
        """Knots from `low` to `high`."""
        tolerance = self.errors.tolerance
        if tolerance is None:
            return [low, high]
        mid = middle(low, high, self.unit(low))
        if mid is None:
            return [low, high]
        error = self.errors.note(*self.check(low, high, mid))
        if error > tolerance and depth < DEPTH:
            return [*self.refined(low, mid, depth + 1)[:-1], *self.refined(mid, high, depth + 1)]
        self.errors.accept(error)
        return [low, mid, high] if error > KEPT * tolerance else [low, high]


class Curve:
    """A function of one variable on a ladder of its own."""

    def __init__(
        self, f: Callable[[float], float], base: Iterable[float], errors: Errors, offset: float = 0.0, **ladder: object
    ) -> None:
        """`offset`: added to values where errors are judged: what else the step takes."""
        self.f = f
        self.values: dict[float, float] = {}
        self.offset = offset
        self.ladder = Ladder(base, self.check, errors, **ladder)  # type: ignore[arg-type]

    def at(self, x: float) -> float:
        """The value at a knot."""
        found = self.values.get(x)
        if found is None:
            found = self.values[x] = self.f(x)
        return found

    def check(self, low: float, high: float, mid: float) -> tuple[float, float]:
        return between(mid, low, self.at(low), high, self.at(high)) + self.offset, self.at(mid) + self.offset

    def piece(self, x: float) -> tuple[float, float, float, float]:
        """(value at 0, slope, since, until) of the line that holds at x."""
        low, high = self.ladder.around(x)
        at_low = self.at(low)
        if low == high:
            return at_low, 0.0, 0.0, low
        slope = (self.at(high) - at_low) / (high - low)
        return at_low - slope * low, slope, low, high

    def __call__(self, x: float) -> float:
        low, high = self.ladder.around(x)
        return self.at(low) if low == high else between(x, low, self.at(low), high, self.at(high))


def between(x: float, low: float, at_low: float, high: float, at_high: float) -> float:
    """On the line through two points; exactly their values there."""
    if x == low or low == high:
        return at_low
    if x == high:
        return at_high
    return at_low + (at_high - at_low) * ((x - low) / (high - low))
