"""Tables that scroll where the page is narrow, and cards of facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...draw.figures.markup import Markup, join, tag

Row = Sequence[object]


def fact_cards(facts: Iterable[tuple[object, object, object]]) -> Markup:
    """What each is, its value, and a line about it."""
    cards = (tag("div", tag("dt", a), tag("dd", tag("b", b), tag("span", c))) for a, b, c in facts)
    return tag("dl", join(cards), cls="cards")


def table(head: Row, rows: Sequence[Row], cls: str = "", numbers: Sequence[int] = ()) -> Markup:
    """`numbers`: columns that are set flush right."""

    def cell(kind: str, k: int, value: object) -> Markup:
        return tag(kind, value, cls="n" if k in numbers else None, scope="col" if kind == "th" else None)

    top = tag("thead", tag("tr", join(cell("th", k, v) for k, v in enumerate(head))))
    body = tag("tbody", join(tag("tr", join(cell("td", k, v) for k, v in enumerate(row))) for row in rows))
    return tag("div", tag("table", top, body, cls=cls or None), cls="scroll")
