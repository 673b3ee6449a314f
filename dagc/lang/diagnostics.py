"""Diagnostics: one record type with a stable code, collected rather than raised one by one.

Codes and what each means: `codes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from .source import Span


@dataclass(frozen=True, slots=True)
class Label:
    """A secondary span with a few words."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """`label` stands beside the caret; `because` and `help` are whole lines below the snippet."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    also: tuple[Label, ...] = ()
    because: tuple[str, ...] = ()
    help: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        return {"E": "error", "W": "warning", "R": "failed"}[self.code[0]]


class SpecError(Exception):
    """The spec is wrong. Carries every diagnostic found up to the point where going on made no sense."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("; ".join(d.message for d in self.diagnostics))


@dataclass(slots=True)
class Collector:
    """Gathers diagnostics of a run; `check` raises once any of them is an error."""

    items: list[Diagnostic] = field(default_factory=list)

    def add(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        label: str = "",
        *,
        also: Iterable[Label] = (),
        because: Iterable[str] = (),
        help: Iterable[str] = (),
    ) -> None:
        diagnostic = Diagnostic(code, message, span, label, tuple(also), tuple(because), tuple(help))
        if diagnostic not in self.items:
            self.items.append(diagnostic)

    @property
    def failed(self) -> bool:
        return any(d.code.startswith("E") for d in self.items)

    @property
    def incomplete(self) -> bool:
        """Some of the text did not parse: what seems to be missing may stand there."""
        return any(d.code == "E01" for d in self.items)

    def check(self) -> None:
        if self.failed:
            raise SpecError(self.items)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The closest known word, or None when nothing is near."""
    candidates = list(known)
    lowered = {c.lower(): c for c in candidates}
    if word.lower() in lowered:
        return lowered[word.lower()]
    found = get_close_matches(word, candidates, n=1, cutoff=0.6)
    return found[0] if found else None
