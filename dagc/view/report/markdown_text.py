"""Markdown in which nothing that a spec says is markup, and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...base.harmless import harmless

MARKS = re.compile(r"[\\`*_{}\[\]()#+\-!|~^=:]")
MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def escaped(text: str) -> str:
    """Text in which nothing is markup, a mention or a line's end."""
    plain = "".join(MARKUP.get(c, c) for c in harmless(text.replace("\n", " ")))
    return MARKS.sub(lambda m: m[0] if m[0] in "-:=+()^" else f"\\{m[0]}", plain)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """`align`: < or > a column."""
    rule = ["---:" if a == ">" else "---" for a in align]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *([escaped(c) for c in row] for row in rows))]


def folded(head: str, body: list[str]) -> Iterator[str]:
    """GitHub renders a table inside details when there are blank lines around it."""
    if len(body) > 2:
        yield from (f"<details><summary>{head}</summary>", "", *body, "", "</details>", "")
