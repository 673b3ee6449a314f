"""The space over two choices: the best figure of each pair of values, or what refuses all plans that have them."""

from __future__ import annotations

from .....plan.searched import Cell, SpaceMap
from ....facts.found_plans import cell_figure, measure_name, why_text
from ..markup import Markup, width
from ..svg import Figure, Keys, figure, rect, title, words

BOX, ROW, TOP = 68, 30, 30
SHADES = 5
COLOURS = 8
"""Of reasons; rarer ones share the last."""


def draw(one: SpaceMap) -> Figure:
    """Stronger colours are better; letters are reasons of the legend."""
    name, values = one.up
    left = max(60.0, width(name, 12) + 14, *(width(v, 12) + 14 for v in values))
    height = TOP + ROW * len(values)
    reasons = _reasons(one)
    shades = _shades(one)
    body: list[Markup] = [words(left - 8, TOP - 10, name, "strong end")]
    for j, value in enumerate(values):
        body.append(words(left - 8, TOP + ROW * (len(values) - 1 - j) + 20, value, "soft end"))
    for cell in one.cells:
        body += _cell(one, cell, left, height, reasons, shades)
    across, shown = one.across
    room = BOX * len(shown)
    for i, value in enumerate(shown):
        body.append(words(left + BOX * (i + 0.5), height + 17, value, "soft mid", room=BOX - 4))
    body.append(words(left + room / 2, height + 36, across, "strong mid"))
    label = f"{one.phase} over {across} and {name}: best {measure_name(one.measure)}, or what refuses it"
    return figure("space-map", left + max(room, width(across, 12)) + 20, height + 44, label, *body)


def keys(one: SpaceMap) -> Keys:
    reasons = _reasons(one)
    named: dict[str, list[str]] = {}
    for why, (letter, cls) in reasons.items():
        named.setdefault(cls, []).append(f"{letter}: {why_text(why)}")
    best = [(f"m{SHADES - 1}", f"best {measure_name(one.measure)} of these plans: the stronger the colour, the better")]
    return [*(best if _shades(one) else []), *((cls, "; ".join(texts)) for cls, texts in named.items())]


def _reasons(one: SpaceMap) -> dict[str, tuple[str, str]]:
    """Reason -> its letter and class, the most frequent first."""
    counts: dict[str, int] = {}
    for cell in one.cells:
        if cell.figure is None:
            counts[cell.why] = counts.get(cell.why, 0) + 1
    order = sorted(counts, key=lambda why: -counts[why])
    return {why: (chr(ord("A") + min(k, 25)), f"w{min(k, COLOURS - 1)}") for k, why in enumerate(order)}


def _shades(one: SpaceMap) -> dict[float, int]:
    """Figure -> how dark: by its share of the best."""
    figures = {cell.figure for cell in one.cells if cell.figure is not None}
    if not figures:
        return {}
    best = max(figures) if one.measure.better == "higher" else min(figures)
    share = {v: (v / best if one.measure.better == "higher" else best / v) if v and best else 1.0 for v in figures}
    return {v: min(SHADES - 1, int(share[v] * SHADES)) for v in figures}


def _cell(
    one: SpaceMap, cell: Cell, left: float, height: float, reasons: dict[str, tuple[str, str]], shades: dict[float, int]
) -> list[Markup]:
    x, y = left + BOX * cell.across, height - ROW * (cell.up + 1)
    chosen = f"{one.across[0]} {one.across[1][cell.across]}, {one.up[0]} {one.up[1][cell.up]}"
    if cell.figure is None:
        letter, cls = reasons[cell.why]
        hint = f"{chosen}: {why_text(cell.why)}"
        return [rect(x, y, BOX - 2, ROW - 2, cls, title(hint)), words(x + BOX / 2 - 1, y + 19, letter, "mid")]
    text = cell_figure(one.measure, cell.figure)
    box = rect(x, y, BOX - 2, ROW - 2, f"m{shades[cell.figure]}", title(f"{chosen}: {text}"))
    look = "strong mid" if shades[cell.figure] == SHADES - 1 else "mid"
    return [box, words(x + BOX / 2 - 1, y + 19, text, look, room=BOX - 6, size=12)]
