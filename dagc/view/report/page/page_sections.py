"""How a page begins and is gone through: its answer, its sections, and the way to each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....base.frozen import record
from ...draw.figures.markup import Markup, join, tag
from ...facts.plan_answer import PASSED, Answer

PLAIN = re.compile(r"[^\w.-]+")


@record
class Section:
    """`key`: its anchor, which stays as long as what it is of has its name; `short`: its name in the navigation, nothing where it is
    reached from none."""

    key: str
    title: str
    body: Markup
    short: str = ""
    cls: str | None = None

    def drawn(self) -> Markup:
        return tag("section", tag("h2", self.title), self.body, id=self.key, cls=self.cls)


def anchor_of(kind: str, name: str) -> str:
    """`phase-decode`"""
    return f"{kind}-{PLAIN.sub('-', name)}"


def opening(name: str, found: Answer, more: Sequence[str] = ()) -> Markup:
    """The verdict, what limits the plan, and its three figures; `more`: lines below, of what does not fit."""
    good = found.state == PASSED
    return tag(
        "header",
        tag("h1", name),
        tag("p", f"{'✓' if good else '✗'} {found.verdict}", cls=f"verdict {'pass' if good else 'fail'}"),
        tag("ul", join(tag("li", line) for line in found.limits), cls=f"binding{' good' if good else ''}")
        if found.limits
        else "",
        _figures(found),
        join(tag("p", line) for line in more),
    )


def _figures(found: Answer) -> Markup:
    if not found.figures:
        return Markup("")
    cards = []
    for one in found.figures:
        mark = "✓ " if one.holds else "✗ not "
        asked = tag("span", f"{mark}{one.required}", cls="pass" if one.holds else "fail") if one.required else ""
        cards.append(tag("div", tag("dt", one.name), tag("dd", tag("b", one.value), asked)))
    return tag("dl", join(cards), cls="cards three")


def gone_through(sections: Sequence[Section]) -> tuple[Markup, Markup]:
    """The navigation, which stays in sight and marks the section that is read, and the sections."""
    links = (tag("a", one.short, href=f"#{one.key}") for one in sections if one.short)
    ways = tag("nav", join(links, " "), aria_label="sections", cls="ways")
    return ways, tag("main", join(one.drawn() for one in sections))
