"""A figure of the page as an SVG file of its own, with its title, colours and legend."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources

from ...ir.result import PhaseResult
from ...plan import Plan
from . import layers, memory, tracks, waterfall
from .markup import Markup, fit, tag, width
from .svg import Keys, rect, words

PAD = 16
ROW = 18
SIZE = re.compile(r'viewBox="0 0 (\d+) (\d+)"')


def _heaviest(result: PhaseResult) -> Markup:
    """The figure of the first of the layers that there are most of."""
    return max(layers.draw(result), key=lambda found: found[1])[2]


FIGURES: dict[str, tuple[str, Callable[[PhaseResult], Markup], Callable[[PhaseResult], Keys]]] = {
    "timeline": ("timeline of one pass", tracks.draw, tracks.keys),
    "memory": ("memory of a GPU", memory.draw, memory.keys),
    "path": ("critical path, alike executions added up", waterfall.draw, waterfall.keys),
    "folded": ("one layer, alike ranks folded", _heaviest, layers.keys),
}
"""View -> its title, figure and legend."""


def svg(plan: Plan, phase: str, view: str) -> str:
    """An SVG document; light or dark as the reader's screen is."""
    title, draw, keys = FIGURES[view]
    drawing = draw(plan.phases[phase])
    found = SIZE.search(drawing)
    assert found is not None
    w, h = int(found[1]), int(found[2])
    body = drawing[drawing.index(">", drawing.index("<svg")) + 1 : drawing.rindex("</svg>")]
    entries, lines = _legend(keys(plan.phases[phase]), w)
    height = h + 2 * PAD + 34 + ROW * lines
    head = fit(f"{plan.spec.model.name}, {phase}: {title}", w, 14)
    style = (resources.files(__package__) / "figures.css").read_text(encoding="utf-8")
    document = tag(
        "svg",
        tag("style", Markup(style + ".head { font-size: 14px; font-weight: bold; } .paper { fill: var(--paper); }")),
        rect(0, 0, w + 2 * PAD, height, "paper"),
        words(PAD, PAD + 12, head, "head"),
        tag("g", Markup(body), transform=f"translate({PAD} {PAD + 26})"),
        tag("g", *entries, transform=f"translate({PAD} {PAD + 34 + h})"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {w + 2 * PAD} {height}",
        width=w + 2 * PAD,
        height=height,
        cls="fig",
        role="img",
        aria_label=head,
    )
    return f"{document}\n"


def _legend(entries: Keys, room: float) -> tuple[list[Markup], int]:
    """Swatches in as many lines as they need."""
    out: list[Markup] = []
    x, line = 0.0, 0
    for cls, what in entries:
        need = width(what, 12) + 36
        if x and x + need > room:
            x, line = 0.0, line + 1
        out += [rect(x, line * ROW, 11, 11, cls), words(x + 16, line * ROW + 10, what)]
        x += need
    return out, line + 1
