"""A document formatted as `dagc fmt` does."""

from __future__ import annotations

from ..base.diagnostics import Collector
from .buffer import Document, Edit


def formatting(document: Document) -> list[Edit]:
    """Edits of the lines that change; none for a text that does not parse, or is too long to wait for."""
    from ..base.syntax.format import format_source
    from ..base.syntax.parse import parse

    if document.too_long:
        return []
    out = Collector()
    parse(document.source, out)
    if out.failed:
        return []
    return line_edits(document.text, format_source(document.source))


def line_edits(before: str, after: str) -> list[Edit]:
    """What makes one text of another, by runs of lines: places elsewhere, a cursor's too, stay."""
    from difflib import SequenceMatcher

    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    starts = [0]
    for line in old:
        starts.append(starts[-1] + len(line))
    changes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [
        Edit(starts[i], starts[j], "".join(new[k:m])) for word, i, j, k, m in changes if word != "equal"
    ]  # fmt: skip
