"""Files that a text names, as links."""

from __future__ import annotations

from ..base.frozen import record
from .buffer import Document
from .library_files import named_path, strings_of, unquoted


@record
class Link:
    """Characters between quotes, and the file."""

    start: int
    end: int
    path: str


def links(document: Document) -> list[Link]:
    """Imports, presets, configs: those that are there and may be read."""
    found = []
    for kind, token in strings_of(document.statements):
        path = named_path(document, kind, unquoted(token))
        if path is not None:
            found.append(Link(token.start + 1, token.start + 1 + len(unquoted(token)), path))
    return found
