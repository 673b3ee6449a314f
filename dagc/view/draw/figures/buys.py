"""What faster hardware would buy, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from ....plan.result import Sensitivity
from ..dot import identifier
from .markup import Markup
from .svg import Figure, figure, rect, title, words

LABEL, BAR, ROW = 170, 420, 22


def draw(phase: str, buys: Sequence[Sensitivity]) -> Figure:
    """A bar a change, as long as the time that it saves."""
    most = max([abs(s.change) for s in buys] + [0.01])
    body: list[Markup] = []
    for k, s in enumerate(buys):
        y = ROW * k
        w = abs(s.change) / most * BAR
        body += [words(0, y + 14, s.name), rect(LABEL, y + 3, BAR, ROW - 7, "trough")]
        hint, key = title(f"{s.name}: {s.change:+.2%} time"), identifier(phase, "buys", s.name)
        body.append(rect(LABEL, y + 3, w, ROW - 7, "gain" if s.change <= 0 else "loss", hint, id=key))
        body.append(words(LABEL + BAR + 8, y + 14, f"{s.change:+.1%}" if abs(s.change) >= 0.0005 else "none"))
    label = f"what would help {phase}: " + ", ".join(f"{s.name} {s.change:+.1%}" for s in buys)
    return figure("buys", LABEL + BAR + 70, ROW * len(buys) + 2, label, *body)
