"""What a plan must satisfy, judged when all phases are compiled."""

from __future__ import annotations

from ..base.frozen import field, record
from ..base.source import Span
from ..base.syntax.ast import Comparison


@record
class Requirement:
    """One `require`: judged by the last pass. `constants` has the `let`s and params that it may name."""

    label: str
    text: str = field(compare=False)
    test: Comparison
    span: Span | None = field(default=None, compare=False, repr=False)
