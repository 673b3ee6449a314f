"""Lists of numbers as one text, `1 1.05 2.5`: attributes of models and ops are single values."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

MOST = 4096
"""Numbers of one text."""


def text_of(numbers: Iterable[float]) -> str:
    """The shortest that reads back as the same numbers: a text of a spec may not be long."""
    return " ".join(repr(float(number)).removesuffix(".0") for number in numbers)


def numbers_of(text: str) -> tuple[float, ...]:
    """Raises ValueError unless these are positive numbers, and at most so many."""
    words = text.split(maxsplit=MOST)
    found = tuple(float(word) for word in words[:MOST])
    if len(words) > MOST or not all(isfinite(number) and number > 0.0 for number in found):
        raise ValueError(f"at most {MOST} positive numbers")
    return found


def are_numbers(text: str) -> bool:
    try:
        numbers_of(text)
    except ValueError:
        return False
    return True
