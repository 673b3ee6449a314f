"""Words of the language's next versions: each is refused in one sentence at its statement, and with nothing behind it.

A word leaves this table when the language learns it: what a section's schema has is never looked up here.
"""

from __future__ import annotations

import re

from .diagnostics import Collector
from .frozen import record
from .source import Span


@record
class Coming:
    """`what`: the capability, with its verb; `instead`: what can be done today."""

    what: str
    instead: str = ""


SECTIONS = {
    "train": Coming("sections of training are", "a phase trains: `phase train { ... }`"),
    "optimizer": Coming("sections of an optimizer are", "write `optimizer = adamw` in a training phase"),
}
"""Sections at the top of a file."""

ATTRIBUTES: dict[str, dict[str, Coming]] = {
    "phase": {},
}  # fmt: skip
"""Kind of a section -> attributes and sections inside it."""

WORDS: dict[str, Coming] = {}
"""Kinds of phases."""
CHOICES = ("any", "best", "auto", "free")
"""What leaves a placement to a search, or is meant to leave a number or a word to one."""
TEXTS = (
    (
        re.compile(r"^[^#\"]*\boptimizer\s*=\s*\w+\s*\{"),
        Coming("settings of an optimizer are", "they change neither time nor memory: write `optimizer = adamw`"),
    ),
)
"""Statements that the grammar does not have yet."""


def refuse(what: Coming, span: Span, out: Collector) -> None:
    """Once per capability, at its first place."""
    out.add_once("E18", f"{what.what} not there yet", span, help=(what.instead,) if what.instead else ())
