"""One diagnostic: a stable code, where it is, and what to write instead. What each code means: `codes`."""

from __future__ import annotations

from .frozen import record
from .source import Span


@record
class Label:
    """A secondary span with a few words."""

    span: Span
    text: str


MAX_TEXT = 2000


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


@record
class Diagnostic:
    """`label` is printed next to the caret; `because` and `help` are whole lines below the snippet."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    also: tuple[Label, ...] = ()
    because: tuple[str, ...] = ()
    help: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """No text of a diagnostic is longer than a screen, whatever it quotes."""
        for name in ("message", "label"):
            object.__setattr__(self, name, _clipped(getattr(self, name)))
        for name in ("because", "help"):
            object.__setattr__(self, name, tuple(map(_clipped, getattr(self, name))))

    @property
    def severity(self) -> str:
        return {"E": "error", "W": "warning", "R": "failed"}[self.code[0]]

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    @property
    def file(self) -> str:
        """Name of the source, empty where it is of no place."""
        return self.span.source.name if self.span is not None else ""

    @property
    def line(self) -> int:
        """Counted from 1; 0 where it is of no place."""
        return self._position[0]

    @property
    def column(self) -> int:
        """Counted from 1; 0 where it is of no place."""
        return self._position[1]

    @property
    def _position(self) -> tuple[int, int]:
        return self.span.source.position(self.span.start) if self.span is not None else (0, 0)
