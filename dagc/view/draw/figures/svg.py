"""Pieces of SVG that every figure is made of. How a part looks is said by classes, which `looks.py` knows."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor, log10

from ....base.frozen import record
from ....base.units import TIME, show
from .looks import TEXT
from .markup import Markup, fit, join, tag

Keys = list[tuple[str, str]]
"""Entries of a legend: (class, words)."""


@record
class Figure:
    """A drawing of `width` by `height` pixels; with `zoom` the page's script lets it pan and zoom."""

    name: str
    width: float
    height: float
    label: str
    body: Markup
    zoom: bool = False

    def framed(self) -> Markup:
        """As a part of a page, in a frame that scrolls where the page is narrow."""
        drawing = tag(
            "svg",
            self.body,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {self.width:.0f} {self.height:.0f}",
            width=f"{self.width:.0f}",
            height=f"{self.height:.0f}",
            role="img",
            aria_label=self.label,
            cls=f"fig {self.name}",
        )
        return tag("div", drawing, cls="figure", data_zoom=self.zoom, tabindex="0" if self.zoom else None)


def figure(name: str, width: float, height: float, label: str, *body: object, zoom: bool = False) -> Figure:
    """A figure of some elements, in the order in which they are painted."""
    return Figure(name, width, height, label, join(body), zoom)


def gathered(name: str, first: Figure, second: Figure, *, beside: bool, gap: float) -> Figure:
    """Two figures as one, side by side or one below the other."""
    x, y = (first.width + gap, 0.0) if beside else (0.0, first.height + gap)
    moved = tag("g", second.body, transform=f"translate({x:.0f} {y:.0f})")
    w, h = max(first.width, x + second.width), max(first.height, y + second.height)
    return figure(name, w, h, f"{first.label}; {second.label}", first.body, moved)


def rect(x: float, y: float, w: float, h: float, cls: str, *children: object, **more: object) -> Markup:
    return tag("rect", *children, x=x, y=y, width=max(0.0, float(w)), height=h, cls=cls, **more)


def words(x: float, y: float, what: str, cls: str = "", *, room: float = 0, size: float = TEXT) -> Markup:
    """A line of text, cut where it has too little room."""
    return tag("text", fit(what, room, size) if room else what, x=x, y=y, cls=cls or None)


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> Markup:
    return tag("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", cls=cls)


def hatch(x: float, y: float, w: float, h: float, step: float = 7.0) -> Iterator[str]:
    """Paths of slanted lines in a box, cut at its edges."""
    for k in range(1, int((w + h) / step) + 1):
        at = k * step  # where the line meets the top, from the left
        left, right = max(0.0, at - h), min(w, at)
        if right - left > 1:
            yield f"M{x + left:.1f} {y + at - left:.1f}L{x + right:.1f} {y + at - right:.1f}"


def title(what: str) -> Markup:
    """The tooltip of the element that contains it."""
    return tag("title", what)


def moment_text(seconds: float, apart_s: float = 0.0) -> str:
    """A time on an axis, with digits enough to tell it from others `apart_s` away."""
    digits = max(3, ceil(log10(seconds / apart_s) - 1e-9) + 1) if 0 < apart_s < seconds else 3
    return show(seconds, TIME, digits) if seconds else "0"


def ticks(end: float, most: int = 8) -> list[float]:
    """Round moments from zero to the end."""
    if end <= 0:
        return [0.0]
    raw = end / most
    magnitude = 10.0 ** floor(log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw)
    return [k * step for k in range(int(end / step * (1 + 1e-9)) + 1)]


def legend(entries: Keys) -> Markup:
    """A line of swatches."""
    return tag(
        "p", join(tag("span", tag("i", cls=f"sw {cls}"), what, cls="key") for cls, what in entries), cls="legend"
    )
