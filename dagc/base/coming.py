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


TRAINING = Coming(
    "training plans are", "phases are inference: `kind = prefill` or `kind = decode`, without a backward pass"
)
SECTIONS = {
    "train": TRAINING, "optimizer": TRAINING,
}  # fmt: skip
"""Sections at the top of a file."""

_TRAIN = ("schedule", "recompute", "optimizer", "zero")
ATTRIBUTES: dict[str, dict[str, Coming]] = {
    "phase": {
        **dict.fromkeys(_TRAIN, TRAINING),
    },
}  # fmt: skip
"""Kind of a section -> attributes and sections inside it."""

WORDS = {"train": TRAINING, "training": TRAINING}
"""Kinds of phases."""
CHOICES = ("any", "best", "auto", "free")
"""What leaves a placement to a search, or is meant to leave a number or a word to one."""
TEXTS = ((re.compile(r"^[^#\"]*\boptimizer\s*=\s*\w+\s*\{"), TRAINING),)
"""Statements that the grammar does not have yet."""


def refuse(what: Coming, span: Span, out: Collector) -> None:
    """Once per capability, at its first place."""
    out.add_once("E18", f"{what.what} not there yet", span, help=(what.instead,) if what.instead else ())
