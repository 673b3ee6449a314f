"""Diagnostics of one text as plain data, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .codes import TABLE
from .diagnostic import Diagnostic, Label
from .source import Source, Span


def data_of(diagnostics: Sequence[Diagnostic], source: Source) -> list[Any] | None:
    """None where one of them points to another text."""
    spans = [d.span for d in diagnostics if d.span is not None] + [label.span for d in diagnostics for label in d.also]
    if any((span.source.name, span.source.text) != (source.name, source.text) for span in spans):
        return None
    return [
        [
            d.code,
            d.message,
            None if d.span is None else [d.span.start, d.span.end],
            d.label,
            [[label.span.start, label.span.end, label.text] for label in d.also],
            list(d.because),
            list(d.help),
        ]
        for d in diagnostics
    ]


def diagnostics_from(data: Any, source: Source) -> tuple[Diagnostic, ...]:
    """Raises ValueError or TypeError where the data has another form."""
    if type(data) is not list:
        raise ValueError("not a list")
    return tuple(_diagnostic(*row, source=source) for row in data)


def _diagnostic(
    code: Any, message: Any, place: Any, label: Any, also: Any, because: Any, help: Any, *, source: Source
) -> Diagnostic:
    if code not in _CODES:
        raise ValueError("no such code")
    _texts(message, label, *because, *help)
    span = None if place is None else _span(*place, source=source)
    return Diagnostic(
        code, message, span, label, tuple(_label(*one, source=source) for one in also), tuple(because), tuple(help)
    )


_CODES = frozenset(entry.code for entry in TABLE)


def _label(start: Any, end: Any, text: Any, *, source: Source) -> Label:
    _texts(text)
    return Label(_span(start, end, source=source), text)


def _span(start: Any, end: Any, *, source: Source) -> Span:
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(source.text):
        raise ValueError("no place in the text")
    return Span(source, start, end)


def _texts(*values: Any) -> None:
    if any(type(value) is not str for value in values):
        raise ValueError("not a text")
