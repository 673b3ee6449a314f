"""How wide the words of an SVG drawing are at most, and which of them run into each other: by the widths of Helvetica's letters."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SVG = "{http://www.w3.org/2000/svg}"
INHERITED = ("font-size", "text-anchor", "font-weight")
MOVE = re.compile(r"translate\((\S+) (\S+)\)")
WIDTHS = {
    **dict.fromkeys("ijl'", 222), **dict.fromkeys(" .,:;/!ftI[]|", 278), **dict.fromkeys("()r-", 333),
    **dict.fromkeys("ckJsvxyz", 500), **dict.fromkeys("0123456789abdeghnopquL_$", 556), **dict.fromkeys("+<=>~×", 584),
    **dict.fromkeys("FTZ", 611), **dict.fromkeys("ABEKPSVXY", 667), **dict.fromkeys("wCDHNRU", 722), **dict.fromkeys("GOQ", 778),
    **dict.fromkeys("mM", 833), "%": 889, "W": 944,
}  # fmt: skip
"""Of Helvetica, in thousandths of the size; all else is as wide as high. Arial and Liberation Sans have the same."""
BOLD, SPARE = 1.1, 1.03


@dataclass(frozen=True)
class Line:
    """The box of a line of text."""

    left: float
    right: float
    top: float
    bottom: float
    text: str

    def meets(self, other: Line) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def wide(text: str, size: float, *, bold: bool = False) -> float:
    return sum(WIDTHS.get(c, 1000) for c in text) / 1000 * size * SPARE * (BOLD if bold else 1.0)


def lines(svg: str) -> list[Line]:
    """Every line of text of a document whose elements have presentation attributes."""
    return list(
        _lines(ET.fromstring(svg), 0.0, 0.0, {"font-size": "16", "text-anchor": "start", "font-weight": "normal"})
    )


def _lines(element: ET.Element, x: float, y: float, above: Mapping[str, str]) -> Iterator[Line]:
    look = {name: element.get(name, above[name]) for name in INHERITED}
    if moved := MOVE.match(element.get("transform", "")):
        x, y = x + float(moved[1]), y + float(moved[2])
    if element.tag == f"{SVG}text" and (text := element.text or ""):
        size = float(look["font-size"])
        w = wide(text, size, bold=look["font-weight"] == "bold")
        left = x + float(element.get("x", 0)) - {"start": 0.0, "middle": w / 2, "end": w}[look["text-anchor"]]
        base = y + float(element.get("y", 0))
        yield Line(left, left + w, base - 0.72 * size, base + 0.2 * size, text)
    for child in element:
        yield from _lines(child, x, y, look)


def clashes(svg: str) -> list[tuple[str, str]]:
    """Texts that overlap, and those that leave the drawing, with an empty one."""
    found = lines(svg)
    width = float(ET.fromstring(svg).get("width", 0))
    outside = [(one.text, "") for one in found if one.left < 0 or one.right > width]
    rows = sorted(found, key=lambda one: one.top)
    near = (
        (a, b) for k, a in enumerate(rows) for b in itertools.takewhile(lambda b, a=a: b.top < a.bottom, rows[k + 1 :])
    )  # type: ignore[misc]
    return outside + [(a.text, b.text) for a, b in near if a.meets(b)]
