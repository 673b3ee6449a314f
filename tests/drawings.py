"""An SVG document of dagc as shapes and words at their places, with the colours and sizes that their attributes give."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dagc.view.draw.figures.markup import BOLD, width

SVG = "{http://www.w3.org/2000/svg}"
INHERITED = ("fill", "font-size", "text-anchor", "font-weight")
MOVE = re.compile(r"translate\((\S+) (\S+)\)")
STEP = re.compile(r"([MLHVChvz])([^MLHVChvz]*)")


@dataclass(frozen=True)
class Shape:
    """What is filled, as the box round it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    classes: str
    kind: str

    def has(self, x: float, y: float) -> bool:
        return self.x <= x <= self.x + self.width and self.y <= y <= self.y + self.height


@dataclass(frozen=True)
class Words:
    """A line of text: a point of its middle height, a little inside of its first or last letter; from where to where it goes."""

    x: float
    y: float
    size: float
    fill: str
    text: str
    begin: float
    end: float


def parts(svg: str) -> list[Shape | Words]:
    """In the order in which they are painted."""
    root = ET.fromstring(svg)
    return list(
        _parts(root, 0.0, 0.0, {"fill": "#000000", "font-size": "16", "text-anchor": "start", "font-weight": "normal"})
    )


def _parts(element: ET.Element, x: float, y: float, above: Mapping[str, str]) -> Iterator[Shape | Words]:
    look = {name: element.get(name, above[name]) for name in INHERITED}
    if moved := MOVE.match(element.get("transform", "")):
        x, y = x + float(moved[1]), y + float(moved[2])
    kind = element.tag.removeprefix(SVG)
    if kind in ("defs", "title", "style"):
        return
    if kind == "text":
        inside = {"start": 3.0, "middle": 0.0, "end": -3.0}[look["text-anchor"]]
        size = float(look["font-size"])
        at = x + float(element.get("x", 0)) + inside, y + float(element.get("y", 0)) - 0.35 * size
        text = element.text or ""
        wide = width(text, size) * (BOLD if look["font-weight"] == "bold" else 1)
        begin = x + float(element.get("x", 0)) - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[look["text-anchor"]]
        yield Words(*at, size, look["fill"], text, begin, begin + wide)
    elif look["fill"] != "none":
        for box in _boxes(kind, element):
            yield Shape(x + box[0], y + box[1], box[2], box[3], look["fill"], element.get("class", ""), kind)
    for child in element:
        yield from _parts(child, x, y, look)


def _boxes(kind: str, element: ET.Element) -> Iterator[tuple[float, float, float, float]]:
    def number(name: str) -> float:
        return float(element.get(name, 0))

    if kind == "rect":
        yield number("x"), number("y"), number("width"), number("height")
    elif kind == "circle":
        yield number("cx") - number("r"), number("cy") - number("r"), 2 * number("r"), 2 * number("r")
    elif kind == "path":
        for part in re.findall(r"M[^M]+", element.get("d", "")):
            across, up = zip(*_points(part), strict=True)
            yield min(across), min(up), max(across) - min(across), max(up) - min(up)


def _points(path: str) -> Iterator[tuple[float, float]]:
    x = y = 0.0
    for letter, rest in STEP.findall(path):
        numbers = [float(n) for n in re.findall(r"-?[0-9.]+", rest)]
        if letter in "MLC" and numbers:
            x, y = numbers[-2:]
        elif letter in "Hh" and numbers:
            x = numbers[-1] + (x if letter == "h" else 0)
        elif letter in "Vv" and numbers:
            y = numbers[-1] + (y if letter == "v" else 0)
        yield x, y


def behind(words: Words, painted: list[Shape | Words]) -> str:
    """The colour that a text stands on."""
    before = painted[: painted.index(words)]
    return next(one.fill for one in reversed(before) if isinstance(one, Shape) and one.has(words.x, words.y))


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 defines it: from 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _left(words: Words, box: Shape) -> bool:
    """Whether the words begin in a box and go beyond it."""
    return "box" in box.classes.split() and box.has(words.x, words.y) and words.end > box.x + box.width


def faults(svg: str) -> list[str]:
    """Words that are too small, too pale for what they stand on, outside of the drawing, or longer than the box that they begin in."""
    painted = parts(svg)
    root = ET.fromstring(svg)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    found = []
    for one in painted:
        if isinstance(one, Words) and one.text.strip():
            if one.size < 11:
                found.append(f"{one.text!r} has {one.size} px")
            if not (0 <= one.x <= width and 0 <= one.y <= height):
                found.append(f"{one.text!r} is outside")
            elif (ratio := contrast(one.fill, behind(one, painted))) < 4.5:
                found.append(f"{one.text!r}: {one.fill} on {behind(one, painted)} has {ratio:.2f}")
            elif over := [box for box in painted if isinstance(box, Shape) and _left(one, box)]:
                found.append(
                    f"{one.text!r} leaves its box by {max(one.end - box.x - box.width for box in over):.0f} px"
                )
    return found
