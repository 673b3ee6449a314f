"""The page of a search: the answer, the plans, what became of all others, why, and both pictures."""

from __future__ import annotations

from collections.abc import Iterator

from ....base.picture_words import Theme
from ....base.version import VERSION
from ....plan.searched import Findings, Space
from ...draw.figures.markup import Markup, join, tag
from ...draw.figures.searched import cells, front
from ...draw.figures.svg import legend
from ...facts import found_plans as said
from .html_tables import Row, table
from .page import written
from .page_sections import Section, anchor_of, gone_through, opening


def page(found: Findings, theme: Theme = "auto") -> str:
    """One HTML document that loads nothing."""
    sections = list(_sections(found))
    opened = opening(said.spec_name(found), said.answer(found))
    body = join([opened, *gone_through(sections), tag("footer", f"dagc {VERSION}")])
    return written(f"{said.spec_name(found)}: dagc search", body, theme)


def _sections(found: Findings) -> Iterator[Section]:
    if found.plans:
        yield Section("plans", "Plans", join(_plans(found)), "plans")
    if why := join(_why(found)):
        yield Section("why", "Why", why, "why")
    for space in found.spaces:
        drawn = [one for one in found.maps if one.phase == space.phase]
        body = [_certificate(space)]
        if space.legal:
            body += [
                tag("h3", f"Tokens per second and GPU, and {front.axis_name(space)}"),
                front.draw(found, space).framed(),
                legend(front.keys(found, space)),
            ]
            words = (
                "Plans that a bound excluded are worse in what was searched for and are not drawn; some of them may be on the front of both "
                "figures: a search for both, with two objectives, finds it whole."
            )
            body.append(tag("p", words if space.bounded else "", cls="soft"))
        for one in drawn:
            body += [
                tag("h3", f"The space over {one.across[0]} and {one.up[0]}"),
                cells.draw(one).framed(),
                legend(cells.keys(one)),
            ]
        name = f"space of {space.phase}"
        yield Section(anchor_of("space", space.phase), f"The {name}", join(body), name)
    if found.best is not None:
        spec = tag("pre", _lines(found.best.spec), cls="listing")
        yield Section("spec", "The best plan as a spec", spec, "best plan")


def _lines(spec: str) -> Markup:
    return join((tag("code", line) for line in spec.splitlines()), "\n")


def _plans(found: Findings) -> Iterator[Markup]:
    paths = tuple(dict.fromkeys(path for own in said.varied(found).values() for path in own))
    head, rows = said.head(found), said.rows(found)
    made: list[Row] = [[*own, *(one.choices.get(path, "") for path in paths)] for own, one in rows]
    numbers = [k for k, name in enumerate(head) if name not in ("", "phase", "alternative")]
    yield table([*head, *paths], made, "plans", numbers)
    for name, same in said.common(found).items():
        if same:
            of = f"{name}: " if len(said.phases(found)) > 1 else ""
            yield tag("p", f"{of}all with {said.choices_text(same)}".replace(said.TIED, " "), cls="soft")
    if words := said.equal_text(found):
        yield tag("p", words)
    if found.joined is not None:
        yield tag("p", said.joined_text(found.joined), cls="soft")
        for near in found.joined.near:
            yield tag("p", f"nearest: {said.near_text(*near)}".replace(said.TIED, " "))


def _why(found: Findings) -> Iterator[Markup]:
    reasons = list(said.reasons(found))
    if reasons:
        yield tag("ul", join(tag("li", reason) for reason in reasons))
    for served in found.served:
        yield tag("p", said.served_versus_text(served))
        yield table(["figure", "best plan", served.name], said.served_versus_rows(served), numbers=(1, 2))
    for one in found.versus:
        yield tag("p", said.versus_text(one))
        yield table(
            ["class of ops on the critical path", "best plan", one.name, "change"],
            said.versus_rows(one, 12),
            numbers=(1, 2, 3),
        )


def _certificate(space: Space) -> Markup:
    rows: list[Row] = [
        [f"{count:,}", what, example.replace(said.TIED, " ")] for count, what, example in said.counts(space)
    ]
    whole = tag(
        "p", f"{said.counted(space.size, 'plan')}, each counted once", "" if space.complete else "; not complete"
    )
    return join([whole, table(["plans", "what became of them", "such as"], rows, numbers=(0,))])
