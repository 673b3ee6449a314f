"""Diagnostics of one text as plain data, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .codes import TABLE
from .diagnostic import Diagnostic, Label
from .source import Source, Span

Place = Callable[[int], int | None]
"""Where a place of one text is in another one; None: it is not there."""


def data_of(diagnostics: Sequence[Diagnostic], source: Source, place: Place = lambda at: at) -> list[Any] | None:
    """None where one of them points to another text, or to what has no `place`."""
    spans = [d.span for d in diagnostics if d.span is not None] + [label.span for d in diagnostics for label in d.also]
    if any((span.source.name, span.source.text) != (source.name, source.text) for span in spans):
        return None
    places = {at: place(at) for span in spans for at in (span.start, span.end)}
    if None in places.values():
        return None
    return [
        [
            d.code,
            d.message,
            None if d.span is None else [places[d.span.start], places[d.span.end]],
            d.label,
            [[places[label.span.start], places[label.span.end], label.text] for label in d.also],
            list(d.because),
            list(d.help),
        ]
        for d in diagnostics
    ]


def diagnostics_from(data: Any, source: Source, place: Place = lambda at: at) -> tuple[Diagnostic, ...]:
    """`place`: of each that was kept. Raises ValueError or TypeError where the data has another form."""
    if type(data) is not list:
        raise ValueError("not a list")

    def span(start: Any, end: Any) -> Span:
        if type(start) is not int or type(end) is not int:
            raise ValueError("no place in the text")
        first, last = place(start), place(end)
        if first is None or last is None or not 0 <= first <= last <= len(source.text):
            raise ValueError("no place in the text")
        return Span(source, first, last)

    return tuple(_diagnostic(*row, spanned=span) for row in data)


def _diagnostic(
    code: Any, message: Any, place: Any, label: Any, also: Any, because: Any, help: Any, *, spanned: Callable[[Any, Any], Span]
) -> Diagnostic:  # fmt: skip
    if code not in _CODES:
        raise ValueError("no such code")
    _texts(message, label, *because, *help)
    span = None if place is None else spanned(*place)
    return Diagnostic(
        code, message, span, label, tuple(_label(*one, spanned=spanned) for one in also), tuple(because), tuple(help)
    )


_CODES = frozenset(entry.code for entry in TABLE)


def _label(start: Any, end: Any, text: Any, *, spanned: Callable[[Any, Any], Span]) -> Label:
    _texts(text)
    return Label(spanned(start, end), text)


def _texts(*values: Any) -> None:
    if any(type(value) is not str for value in values):
        raise ValueError("not a text")
