"""Values between compiled ones: linear between knots, which stand closer where a value between them shows it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from math import inf, nextafter, sqrt
from typing import NamedTuple

DEPTH = 3
"""How often an interval between base knots is halved at most."""
KEPT = 0.125
"""Of the tolerance: a checked value that is off by less is no knot, so that lines are long."""


class Errors:
    """What checks found: the largest relative error of interpolation, and how many values were checked. `tolerance`: error at which
    knots stand close enough; None: nothing is checked."""

    def __init__(self, tolerance: float | None) -> None:
        self.tolerance = tolerance
        self.largest = 0.0
        self.checked = 0

    def of(self, found: float, actual: float) -> float:
        """The relative error of an interpolated value."""
        self.checked += 1
        return abs(found - actual) / actual if actual else 0.0

    def accept(self, error: float) -> None:
        """An error that stays."""
        self.largest = max(self.largest, error)


def middle(low: float, high: float, unit: float = 1.0) -> float | None:
    """A multiple of the unit between both, near their geometric mean; None where there is none."""
    found = round(sqrt(low * high) / unit) * unit
    return found if low < found < high else None


def between(x: float, low: float, at_low: float, high: float, at_high: float) -> float:
    """On the line through two points; exactly their values there."""
    if x == low or low == high:
        return at_low
    if x == high:
        return at_high
    return at_low + (at_high - at_low) * ((x - low) / (high - low))


class Ladder:
    """Knots of one variable. `check(low, high, mid)`: (interpolated, actual) value at `mid`. Intervals are refined when they are
    first asked for, each on its own, so that what is found does not depend on the order of questions. Beyond the last
    knot follow others, each `factor` times the one before: nothing is extrapolated. What is below the first is taken for it. `closed`: the last
    knot belongs to the interval below it."""

    def __init__(
        self,
        base: Iterable[float],
        check: Callable[[float, float, float], tuple[float, float]],
        errors: Errors,
        unit: Callable[[float], float] = lambda _: 1.0,
        factor: float = 4.0,
        *,
        closed: bool = False,
    ) -> None:
        self.base = sorted(set(base))
        self.check, self.errors, self.unit, self.factor, self.closed = check, errors, unit, factor, closed
        self.parts: dict[int, list[float]] = {}

    def around(self, x: float) -> tuple[float, float]:
        """The knots at or below a value, and above it; the first one twice for what is below it."""
        base = self.base
        if x < base[0] or (self.closed and x == base[0]):
            return base[0], base[0]
        while x > base[-1] or (x == base[-1] and not self.closed):  # what begins at the last knot has an end too
            base.append(base[-1] * self.factor)
        i = min(bisect_right(base, x), len(base) - 1) - 1
        knots = self.parts.get(i)
        if knots is None:
            knots = self.parts[i] = self.refined(base[i], base[i + 1], 0)
        j = min(bisect_right(knots, x), len(knots) - 1)
        return knots[j - 1], knots[j]

    def refined(self, low: float, high: float, depth: int) -> list[float]:
        """Knots from `low` to `high`."""
        tolerance = self.errors.tolerance
        mid = middle(low, high, self.unit(low)) if tolerance is not None else None
        if tolerance is None or mid is None:
            return [low, high]
        error = self.errors.of(*self.check(low, high, mid))
        if error > tolerance and depth < DEPTH:
            return [*self.refined(low, mid, depth + 1)[:-1], *self.refined(mid, high, depth + 1)]
        self.errors.accept(error)
        return [low, mid, high] if error > KEPT * tolerance else [low, high]


class Piece(NamedTuple):
    """The line `base + slope x` for `since <= x < until`."""

    base: float
    slope: float
    since: float
    until: float


class Curve:
    """A function of one variable on a ladder, which curves that bend at the same places share. `offset`: what else a step takes, added
    where errors are judged."""

    def __init__(self, f: Callable[[float], float], ladder: Ladder | None = None, offset: float = 0.0) -> None:
        self.f, self.offset = f, offset
        self.values: dict[float, float] = {}
        self._ladder = ladder

    @property
    def ladder(self) -> Ladder:
        assert self._ladder is not None, "a curve that a ladder is checked on has it"
        return self._ladder

    def on(self, base: Iterable[float], errors: Errors) -> Curve:
        """The curve with a ladder that is checked on it."""
        self._ladder = Ladder(base, self.check, errors)
        return self

    def at(self, x: float) -> float:
        """The value at a knot."""
        found = self.values.get(x)
        if found is None:
            found = self.values[x] = self.f(x)
        return found

    def check(self, low: float, high: float, mid: float) -> tuple[float, float]:
        return between(mid, low, self.at(low), high, self.at(high)) + self.offset, self.at(mid) + self.offset

    def piece(self, x: float) -> Piece:
        low, high = self.ladder.around(x)
        at_low = self.at(low)
        if low == high:
            return Piece(at_low, 0.0, 0.0, low)
        slope = (self.at(high) - at_low) / (high - low)
        return Piece(at_low - slope * low, slope, low, high)

    def __call__(self, x: float) -> float:
        low, high = self.ladder.around(x)
        return self.at(low) if low == high else between(x, low, self.at(low), high, self.at(high))


class Chain:
    """A function of one variable by its values at given knots, each worked out when it is first needed; constant beyond both ends."""

    def __init__(self, knots: Sequence[float], value: Callable[[int], float]) -> None:
        self.knots, self.value = knots, value
        self.pieces: list[tuple[float, float] | None] = [None] * (len(knots) + 1)

    def __call__(self, x: float) -> float:
        constant, each = self.pieces[bisect_right(self.knots, x)] or self.piece_at(x)
        return constant + each * x

    def piece_at(self, x: float) -> tuple[float, float]:
        """(value at 0, slope) of the line that holds at x."""
        i = bisect_right(self.knots, x)
        found = self.pieces[i]
        if found is None:
            found = self.pieces[i] = self.piece(i)
        return found

    def piece(self, i: int) -> tuple[float, float]:
        """(value at 0, slope) below knot i."""
        if i == 0 or i == len(self.knots):
            return self.value(max(0, i - 1)), 0.0
        low, high, at_low = self.knots[i - 1], self.knots[i], self.value(i - 1)
        slope = (self.value(i) - at_low) / (high - low)
        return at_low - slope * low, slope


class Patches:
    """A function of two variables, bilinear on rectangles that `make(x, y)` gives: (x0, x1, y0, y1, the values at their corners); a
    rectangle is made when it is first needed. `x0 = x1`: it holds for all x below, as at x0."""

    def __init__(self, make: Callable[[float, float], Patch]) -> None:
        self.make = make
        self.starts: list[float] = []
        self.rows: list[tuple[float, list[float], list[tuple[float, float, float, float, float]]]] = []

    def __call__(self, x: float, y: float) -> float:
        i = bisect_right(self.starts, x) - 1
        if i >= 0:
            end, starts, patches = self.rows[i]
            if x < end:
                j = bisect_right(starts, y) - 1
                if j >= 0:
                    until, k, kx, ky, kxy = patches[j]
                    if y < until:
                        return k + kx * x + (ky + kxy * x) * y
        return self.added(x, y)

    def added(self, x: float, y: float) -> float:
        """A rectangle more."""
        found = self.make(x, y)
        x0, x1, y0, y1 = found[:4]
        if x0 == x1:
            x0 = -inf
        if x >= x1:  # the last knot belongs to what is below it
            x1 = nextafter(x, inf)
        coefficients = _bilinear(found)
        i = bisect_right(self.starts, x0) - 1
        if i < 0 or self.starts[i] != x0:
            i += 1
            self.starts.insert(i, x0)
            self.rows.insert(i, (x1, [], []))
        end, starts, patches = self.rows[i]
        if end < x1:
            self.rows[i] = x1, starts, patches
        j = bisect_right(starts, y0) - 1
        if j < 0 or starts[j] != y0:
            starts.insert(j + 1, y0)
            patches.insert(j + 1, (y1, *coefficients))
        k, kx, ky, kxy = coefficients
        return k + kx * x + (ky + kxy * x) * y


class Patch(NamedTuple):
    """A rectangle and the values at its corners."""

    x0: float
    x1: float
    y0: float
    y1: float
    at_00: float
    at_01: float
    at_10: float
    at_11: float


def _bilinear(p: Patch) -> tuple[float, float, float, float]:
    """(constant, of x, of y, of x y)."""
    height = p.y1 - p.y0
    low = (p.at_01 - p.at_00) / height if height else 0.0
    base = p.at_00 - low * p.y0
    if p.x0 == p.x1:
        return base, 0.0, low, 0.0
    high = (p.at_11 - p.at_10) / height if height else 0.0
    base_x = (p.at_10 - high * p.y0 - base) / (p.x1 - p.x0)
    slope_x = (high - low) / (p.x1 - p.x0)
    return base - base_x * p.x0, base_x, low - slope_x * p.x0, slope_x
