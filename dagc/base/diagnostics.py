"""Diagnostics: one record type with a stable code, collected rather than raised one by one.

Codes and what each means: `codes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from .codes import TABLE
from .diagnostic import Diagnostic as Diagnostic
from .diagnostic import Label as Label
from .frozen import field, mutable
from .source import Span

FATAL = frozenset(entry.code for entry in TABLE if entry.code.startswith("E") and entry.exit > 1)
"""Errors that leave no plan to speak of."""


class SpecError(Exception):
    """The spec is wrong. Carries every diagnostic found up to the point where going on made no sense; `file`, `line`, `column`,
    `code` and `help` are of the first error among them."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        """A line per diagnostic: `file:line:column: code message`, and its help."""
        from .render import render

        return "\n".join(
            line for d in self.diagnostics for line in (render([d], "concise"), *(f"  help: {text}" for text in d.help))
        )

    @property
    def first(self) -> Diagnostic | None:
        """The first error, or else the first diagnostic."""
        return next((d for d in self.diagnostics if d.is_error), next(iter(self.diagnostics), None))

    @property
    def file(self) -> str:
        return self.first.file if self.first else ""

    @property
    def line(self) -> int:
        return self.first.line if self.first else 0

    @property
    def column(self) -> int:
        return self.first.column if self.first else 0

    @property
    def code(self) -> str:
        return self.first.code if self.first else ""

    @property
    def help(self) -> tuple[str, ...]:
        return self.first.help if self.first else ()

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback: the spec, and what is wrong with it."""
        from .render import render

        return render(self.diagnostics).split("\n")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that is meant, or None when nothing is near."""
    from .suggest import did_you_mean

    return did_you_mean(word, known)


MAX_STEPS = 4_000_000
"""Operands, and items of lists and ranges, that the expressions of one run may have: seconds of work."""


MAX_DIAGNOSTICS = 500
"""Of one run: nobody reads more, and a file of a megabyte can have as many as lines."""


MAX_KNOWN = 300
"""Names among which a suggestion is looked for."""
MAX_SUGGESTED = 64
"""Letters of a word for which one is."""


@mutable
class Collector:
    """Gathers diagnostics of a run; `check` raises once any of them is an error that leaves no plan."""

    items: list[Diagnostic] = field(default_factory=list)
    unread: bool = False  # a file that the spec imports could not be read
    steps: int = 0  # of evaluated expressions, over the whole run
    errors: int = 0  # all that were found, also those that are not kept
    _seen: set[Diagnostic] = field(default_factory=set, repr=False, compare=False)
    _codes: set[str] = field(default_factory=set, repr=False, compare=False)

    def step(self, count: int, span: Span) -> bool:
        """May expressions take so many steps more? The first time that they may not is reported."""
        if self.steps > MAX_STEPS:
            return False
        self.steps += count
        if self.steps > MAX_STEPS:
            self.add("E09", f"the expressions of this spec take more than {MAX_STEPS:,} steps", span)
        return self.steps <= MAX_STEPS

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
        self.take(diagnostic)

    def take(self, diagnostic: Diagnostic) -> None:
        """One that was made elsewhere; each is kept once. Of thousands the first are kept, and that there are more."""
        if diagnostic.is_error and diagnostic not in self._seen:
            self.errors += 1
        if diagnostic in self._seen or (len(self._seen) > MAX_DIAGNOSTICS and diagnostic.code in self._codes):
            return
        if len(self._seen) == MAX_DIAGNOSTICS:
            about = Diagnostic("W06", f"more than {MAX_DIAGNOSTICS} diagnostics: of the rest, one per code is shown")
            self.items.append(about)
        self._seen.add(diagnostic)
        self._codes.add(diagnostic.code)
        self.items.append(diagnostic)

    def add_once(self, code: str, message: str, span: Span | None, *, help: Iterable[str] = ()) -> None:
        """Nothing where the same was already reported for another place."""
        if all((d.code, d.message) != (code, message) for d in self.items):
            self.add(code, message, span, help=help)

    def near(self, word: str, known: Iterable[str]) -> str | None:
        """The known word that is meant; None where a suggestion would not be shown, or needs a search among thousands."""
        if len(self.items) > MAX_DIAGNOSTICS or len(word) > MAX_SUGGESTED:
            return None
        return did_you_mean(word, islice(known, MAX_KNOWN))

    def retell(self, first: int, change: Callable[[Diagnostic], Diagnostic]) -> None:
        """Changes those from the `first` on."""
        told = list(map(change, self.items[first:]))
        self.items[first:] = [d for i, d in enumerate(told) if d not in self.items[:first] and d not in told[:i]]
        self._seen.update(told)

    @property
    def failed(self) -> bool:
        return not self._codes.isdisjoint(FATAL)

    @property
    def incomplete(self) -> bool:
        """Some of the text did not parse, or asks for what is not there yet: what seems to be missing may be there."""
        return self.unread or not self._codes.isdisjoint(("E01", "E18"))

    def check(self) -> None:
        if self.failed:
            raise SpecError(in_order(self.items))


def in_order(items: Iterable[Diagnostic]) -> list[Diagnostic]:
    """As a reader of the files meets them: by file and place; what has no place comes last."""
    ordered = list(items)
    files = {d.span.source.name: i for i, d in reversed(list(enumerate(ordered))) if d.span is not None}

    def place(d: Diagnostic) -> tuple[int, int]:
        return (len(ordered), 0) if d.span is None else (files[d.span.source.name], d.span.start)

    return sorted(ordered, key=place)
