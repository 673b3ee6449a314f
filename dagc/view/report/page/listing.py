"""The spec with colours, and every diagnostic at its line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ....base.diagnostics import Diagnostic
from ....base.source import Source, Span
from ....plan.plan import CompiledPlan
from ...draw.figures.markup import Markup, join, tag, text

TOKEN = re.compile(
    r"(?P<comment>#.*)|(?P<string>\"[^\"]*\")|(?P<number>\b[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<other>\s+|.)"
)
KEYWORDS = frozenset(
    ("moe", "import", "let", "param", "in", "require", "from", "true", "false", "block", "layer", "return")
)
SECTIONS = frozenset(("hardware", "model", "workload", "phase", "attention", "experts", "link", "place"))
MAX_LINES = 1500


def sources(plan: CompiledPlan) -> list[Source]:
    """The files that the plan is written in; the library's own are left out."""
    spec = plan.spec
    spans: list[Span | None] = [p.span for p in spec.phases]
    spans += [r.span for r in spec.requirements] + [d.span for d in plan.diagnostics]
    spans += [*(own.span for own in spec.pools.values()), spec.model.span, spec.workload.span]
    listed: list[Source] = []
    for span in spans:
        if span is not None and span.source not in listed and not span.source.name.startswith("library/"):
            listed.append(span.source)
    return listed


def anchor(found: Sequence[Source], span: Span | None) -> str:
    """Id of the line that a span starts on."""
    if span is None or span.source not in found:
        return ""
    return f"L{found.index(span.source)}-{span.source.position(span.start)[0]}"


def draw(source: Source, number: int, diagnostics: Iterable[Diagnostic]) -> Markup:
    """A numbered listing; what is not in this file is left out."""
    mine: dict[int, list[Diagnostic]] = {}
    for d in diagnostics:
        if d.span is not None and d.span.source is source:
            mine.setdefault(source.position(d.span.start)[0], []).append(d)
    lines = []
    for n in range(1, min(source.line_count, MAX_LINES) + 1):
        words = source.line(n)
        if n == source.line_count and not words:
            break
        marks = [d for d in mine.get(n, ())]
        kinds = "".join(f" {d.severity}" for d in marks[:1])
        code = tag("code", join(_colours(words)) if words else Markup(" "))
        lines.append(tag("li", code, *(note(d) for d in marks), id=f"L{number}-{n}", cls=f"line{kinds}"))
    more = source.line_count - MAX_LINES
    rest = tag("p", f"{more} more lines", cls="soft") if more > 0 else ""
    return Markup(tag("ol", join(lines), cls="listing") + rest)


def _colours(line: str) -> Iterator[Markup]:
    for match in TOKEN.finditer(line):
        kind, words = str(match.lastgroup), match.group()
        if kind == "word":
            part = line[match.end() :].startswith(".")  # of a dotted name
            kind = "other" if part else "keyword" if words in KEYWORDS else "section" if words in SECTIONS else "other"
        yield text(words.replace("\t", " ")) if kind == "other" else tag("span", words, cls=f"t-{kind}")


def note(d: Diagnostic) -> Markup:
    """A diagnostic with its reasons and help."""
    more = [tag("span", f"because: {b}") for b in d.because] + [tag("span", f"help: {h}") for h in d.help]
    head = tag("b", f"{'requirement' if d.severity == 'failed' else d.severity} {d.code}")
    label = f": {d.label}" if d.label else ""
    return tag(
        "div",
        head,
        f" {d.message}{label}",
        join(part for m in more for part in (tag("br"), m)),
        cls=f"note {d.severity}",
        role="note",
    )
