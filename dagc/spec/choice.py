"""What a phase or a serving leaves to a search."""

from __future__ import annotations

from ..base.frozen import field, record
from ..base.source import Span

Chosen = int | str | bool | range
"""A value in place of a choice: a number, a word, a flag. Of `gpus` a count, whose ids begin at 0, or a range of ids."""


ALTERNATIVE = "alternative"
"""The path of the choice among alternatives of a phase."""


@record
class Alternatives:
    """Names of the layouts that a phase may have, and that which it has."""

    names: tuple[str, ...]
    chosen: str


@record
class Choice:
    """`tp = any(1, 2, 4)` of a phase, or `slots = any` of a serving, by its name. `path`: the attribute, after a dot where it is in a section (`tp`,
    `attention.tp`, `gpus`). `values`: those that it may have, in the order written; none: all that it can be. `span`: what was written;
    those that are `freed` by `strategy = any` share it."""

    phase: str
    path: str
    values: tuple[int | str | bool, ...]
    span: Span = field(compare=False, repr=False)
    freed: bool = False
