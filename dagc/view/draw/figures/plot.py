"""Plots: a frame with two axes, and curves in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor, isfinite, log10

from ....base.frozen import record
from .markup import Markup, tag
from .svg import line, rect, ticks, words

Value = Callable[[float], str]
"""A number on an axis in words."""


@record
class Axis:
    """From `low` to `high`, linear or logarithmic, with marks at `marks`."""

    low: float
    high: float
    marks: tuple[float, ...]
    said: Value
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is: 0 at the low end, 1 at the high one; beyond them at the end."""
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        here = log10(max(value, self.low)) if self.log else value
        return min(1.0, max(0.0, (here - low) / (high - low))) if high > low else 0.0


def linear(high: float, said: Value, most: int = 6, low: float = 0.0, least_step: float = 0.0) -> Axis:
    """From zero, or another low end, to a round number not below `high`, with marks `least_step` apart or more."""
    steps = ticks(high - low if high > low else 1.0, most)
    step = max(least_step, steps[1] if len(steps) > 1 else steps[0] or 1.0)
    count = max(1, ceil((high - low) / step - 1e-9))
    return Axis(low, low + count * step, tuple(low + k * step for k in range(count + 1)), said)


def logarithmic(low: float, high: float, said: Value, most: int = 7) -> Axis:
    """Between 1, 2 or 5 times a power of ten; marks there, or at the powers alone where these are many."""
    low, high = (low, high) if 0 < low <= high and isfinite(high) else (1e-3, 1.0)
    powers = range(floor(log10(low)) - 1, ceil(log10(high)) + 2)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        steps = [float(f"{f}e{p}") for p in powers for f in factors]
        first = max(k for k, step in enumerate(steps) if step <= low * (1 + 1e-9))
        last = min(k for k, step in enumerate(steps) if step >= high * (1 - 1e-9))
        last = max(last, first + 1)
        if last - first < most:
            break
    return Axis(steps[first], steps[last], tuple(steps[first : last + 1]), said, log=True)


@record
class Panel:
    """A frame at (`x`, `y`) of `width` by `height` pixels; `across` and `up`: its axes."""

    x: float
    y: float
    width: float
    height: float
    across: Axis
    up: Axis

    def point(self, x: float, y: float) -> tuple[float, float]:
        return self.x + self.across.at(x) * self.width, self.y + self.height * (1 - self.up.at(y))

    def frame(self, name: str, *, bottom: str = "", numbers: bool = True) -> list[Markup]:
        """Grid, numbers and names: `name` above it, `bottom` below the numbers across, which `numbers` leaves away."""
        out = [words(self.x, self.y - 8, name, "strong")]
        last = -1e9
        for mark in self.up.marks:
            _, y = self.point(self.across.low, mark)
            out += [
                line(self.x, y, self.x + self.width, y, "grid"),
                words(self.x - 6, y + 4, self.up.said(mark), "soft end"),
            ]
        for mark in self.across.marks:
            x, _ = self.point(mark, self.up.low)
            out.append(line(x, self.y, x, self.y + self.height, "grid"))
            if numbers and x - last >= 44:
                out.append(words(x, self.y + self.height + 16, self.across.said(mark), "soft mid"))
                last = x
        if bottom:
            out.append(words(self.x + self.width / 2, self.y + self.height + 34, bottom, "soft mid"))
        return [*out, rect(self.x, self.y, self.width, self.height, "frame")]

    def curve(self, points: Iterable[tuple[float, float]], cls: str, *, steps: bool = False) -> Markup:
        """A line through points; `steps`: each value holds until the next. What is not finite is left out."""
        path: list[str] = []
        before = ""
        for x, y in points:
            if not (isfinite(x) and isfinite(y)):
                continue
            a, b = (f"{v:.1f}" for v in self.point(x, y))
            if not path:
                path.append(f"M{a} {b}")
            elif (a, b) != tuple(before.split()):
                path.append(f"H{a}V{b}" if steps else f"L{a} {b}")
            before = f"{a} {b}"
        return tag("path", d="".join(path) or "M0 0", cls=f"curve {cls}")

    def mark(self, x: float, y: float, cls: str, *children: object, hollow: bool = False) -> Markup:
        """A dot."""
        a, b = self.point(x, y)
        return tag("circle", *children, cx=a, cy=b, r=3.2, cls=f"dot {cls}{' hollow' if hollow else ''}")

    def upright(self, x: float, cls: str, what: str = "", *, dy: float = 0.0) -> list[Markup]:
        """A line at a value of the axis across, with words beside its upper end."""
        a, _ = self.point(x, self.up.low)
        left = a > self.x + 0.6 * self.width
        text = [words(a + (-5 if left else 5), self.y + 14 + dy, what, "late end" if left else "late")] if what else []
        return [line(a, self.y, a, self.y + self.height, cls), *text]

    def level(self, y: float, cls: str, what: str = "") -> list[Markup]:
        """A line at a value of the axis up."""
        _, b = self.point(self.across.low, y)
        text = [words(self.x + 5, b - 4, what, "late")] if what else []
        return [line(self.x, b, self.x + self.width, b, cls), *text]


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Places of up to `most` evenly spaced values, the last among them."""
    count = len(values)
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})
