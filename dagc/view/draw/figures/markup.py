"""HTML and SVG text. What is not Markup is escaped: a name cannot become a tag."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import accumulate

from ....base.harmless import harmless

VOID = {"br", "meta", "col"}
WIDE = 0x2E80
"""From here on, characters are about twice as wide."""
NARROW = set("ijltfrI.,:;'|!()[]{}/\\ -")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Escaped, in one line; control characters become visible."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(harmless(str(value).replace("\n", " ")), quote=True))


def join(parts: Iterable[object], between: str = "") -> Markup:
    return Markup(between.join(text(p) for p in parts))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """`tag("p", "a < b", cls="note")`. `_` in a name is `-`, `cls` is class; None and False are left out."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{text(number(value))}"')
    head = " ".join(words)
    return Markup(f"<{head}>") if name in VOID else Markup(f"<{head}>{join(children)}</{name}>")


def number(value: object) -> object:
    """Coordinates need no more than a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def width(words: str, size: float = 11) -> float:
    """About how wide a text is, in pixels; never less than it is by much."""
    return sum(map(_ems, words)) * size


def _ems(c: str) -> float:
    return 1.0 if ord(c) >= WIDE else 0.3 if c in NARROW else 0.68 if c.isupper() or c in "mw%" else 0.56


BOLD = 1.08
"""Of the width of the same words when they are bold."""


def fit(words: str, room: float, size: float = 11) -> str:
    """The text, or as much of it as there is room for."""
    words = harmless(words.replace("\n", " "))
    if width(words, size) <= room:
        return words
    ends = accumulate(map(_ems, words))
    kept = sum(1 for end in ends if (end + _ems("…")) * size <= room)
    return words[:kept].rstrip() + "…"


def wrapped(words: str, room: float, size: float, most: int) -> list[str]:
    """Lines broken after commas; the last one is cut."""
    lines: list[str] = []
    for part in words.split(", "):
        if lines and width(f"{lines[-1]}, {part},", size) <= room:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    kept = [*lines[: most - 1], ", ".join(lines[most - 1 :])] if len(lines) > most else lines
    return [fit(f"{line}," if k < len(kept) - 1 else line, room, size) for k, line in enumerate(kept)]
