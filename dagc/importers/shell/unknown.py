"""What only the run itself would know, inside of words: an unset variable, the output of a program."""

from __future__ import annotations

import re

OPEN, CLOSE = "\x00", "\x01"
"""Around the text of what is unknown: characters that no script has."""
_MARKED = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")


def unknown(text: str) -> str:
    """A word of something that is unknown, as `$NODE` or `$(hostname)`."""
    return f"{OPEN}{text.replace(OPEN, '').replace(CLOSE, '')}{CLOSE}"


def is_known(word: str) -> bool:
    return OPEN not in word


def named(word: str) -> tuple[str, ...]:
    """What is unknown in it."""
    return tuple(_MARKED.findall(word)) if OPEN in word else ()


def shown(word: str) -> str:
    """As it was written."""
    return _MARKED.sub(r"\1", word) if OPEN in word else word


def split_marks(word: str) -> list[tuple[bool, str]]:
    """Its pieces, each with whether it is unknown; none is empty."""
    pieces = _MARKED.split(word)
    return [(bool(k % 2), text) for k, text in enumerate(pieces) if text]
