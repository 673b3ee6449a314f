"""A figure as a file of its own has it."""

from __future__ import annotations

from ....base.frozen import record
from .svg import Figure, Keys


@record
class Sheet:
    """A figure with what is above and below it."""

    heading: list[str]
    figure: Figure
    keys: Keys
