"""The text of a spec with values in place of its choices: an edit per place, then `dagc fmt`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..base.frozen import field, mutable
from ..base.source import Source, Span
from ..base.syntax import ast
from ..spec.choice import Choice, Chosen
from .alternatives import common_of, sections_of
from .body import Body
from .choices import OpenKind, written
from .open_words import FOLDS


def _key(s: ast.Statement) -> str:
    """By what a statement of a section overrides another."""
    if isinstance(s, ast.Directive):
        return f"{s.keyword} {s.name}"
    if isinstance(s, ast.Section):
        return s.kind if s.name is None else f"{s.kind} {s.name}"
    return s.name if isinstance(s, (ast.Assign, ast.Bare)) else ""


_TOKEN = re.compile(r"#[^\n]*|\"[^\"\n]*\"|[,{}()\[\]]|[^,{}()\[\]#\"\s]+")


def without_loose_commas(text: str) -> str:
    """Without commas behind `{`, before `}`, and beside another comma, which statements that went have left."""
    loose: list[int] = []
    before, depth = "", 0
    last = -1  # where a comma is that nothing follows yet
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] == "#":
            continue
        depth += (token in "([") - (token in ")]")
        if token == "," and not depth:
            if before in ("{", ","):
                loose.append(match.start())
                continue
            last = match.start()
        elif token == "}" and before == ",":
            loose.append(last)
        before = token
    parts = [text[a + 1 : b] for a, b in zip([-1, *loose], [*loose, len(text)], strict=True)]
    return "".join(parts)


@mutable
class Rewrite:
    """Edits of one file. `constants`: names that a word must not be taken for."""

    source: Source
    constants: Mapping[str, object]
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    chosen: list[tuple[ast.Section, str]] = field(
        default_factory=list
    )  # phases that get one of their alternatives, by name

    def text(self) -> str:
        """The formatted file."""
        from ..base.syntax.format import format_source

        for phase, name in self.chosen:
            self._unwrap(phase, name)
        self.chosen.clear()
        return format_source(Source(self.source.name, without_loose_commas(self._edited(0, len(self.source.text)))))

    def _edited(self, first: int, last: int) -> str:
        """A part of the text as it is by now; of edits of one place the outer one counts."""
        out, at = [], first
        for start, end, new in sorted(self.edits, key=lambda e: (e[0], -e[1])):
            if first <= start and end <= last and (start >= at or end > at):
                out += [self.source.text[at:start], new]
                at = max(at, end)
        return "".join([*out, self.source.text[at:last]])

    def replace(self, span: Span, new: str) -> None:
        if span.source == self.source:
            self.edits.append((span.start, span.end, new))

    def param(self, s: ast.Param | ast.Let, text: str) -> None:
        """A param as `--set` sets it."""
        if isinstance(s, ast.Param):
            self.replace(s.default.span, text)

    def section(
        self, body: Body, kind: OpenKind, choices: Sequence[Choice], values: Mapping[str, Chosen | None]
    ) -> None:
        """A phase or serving, whose choices have these values."""
        strategy = body.assigns.get("strategy")
        added: dict[str, list[str]] = {}
        for choice in choices:
            section, _, name = choice.path.rpartition(".")
            value = values[choice.path]
            if choice.freed:
                into = added.setdefault(section, [])
                if value is not None and value != kind.attribute(choice.path).default:
                    into.append(f"{name} = {written(choice.path, value, self.constants, kind)}")
                continue
            self._kept_comments(choice.span)
            if value is not None:
                self.replace(choice.span, written(choice.path, value, self.constants, kind))
            else:
                self.leave_out(self._assign(body, section, name).span)
        if strategy is not None and any(choice.freed for choice in choices):
            self._strategy(strategy, body, added)

    def _kept_comments(self, span: Span) -> None:
        """Comments inside what a value takes the place of come on lines of their own above."""
        comments = [match[0].rstrip() for match in _TOKEN.finditer(span.text) if match[0][0] == "#"]
        if comments and span.source == self.source:
            start = self.source.text.rfind("\n", 0, span.start) + 1
            self.edits.append((start, start, "".join(f"{comment}\n" for comment in comments)))

    def _assign(self, body: Body, section: str, name: str) -> ast.Assign:
        if not section:
            return body.assigns[name]
        found = [b for s in body.sections[section] for b in s.body if isinstance(b, ast.Assign) and b.name == name]
        return found[-1]

    def _strategy(self, strategy: ast.Assign, body: Body, added: Mapping[str, Sequence[str]]) -> None:
        """`strategy = any` gives way to what it left open; degrees that join those of a section go there."""
        statements = list(added.get("", ()))
        for fold in FOLDS:
            new = added.get(fold, ())
            if fold not in body.sections:
                statements.append(f"{fold} {{ {', '.join(new) or 'tp = 1'} }}")
            elif new:
                section = body.sections[fold][-1]
                opened = self._brace(section)
                self.edits.append((opened, opened, f" {', '.join(new)}{',' if section.body else ''} "))
        alone = self._alone(strategy.span)
        self.replace(strategy.span, ("\n" if alone else ", ").join(statements))

    def _unwrap(self, phase: ast.Section, chosen: str) -> None:
        """Statements of an alternative come in its place, and those of the phase that they override go."""
        found = sections_of(phase)
        own = next(s for s in found if s.name == chosen)
        common = {_key(s): s for s in common_of(phase)}
        for s in own.body:
            before = common.get(_key(s))
            if isinstance(before, ast.Section) and isinstance(s, ast.Section):
                self._joined(before, s)
            elif before is not None:
                self.leave_out(self._with_comments(before.span))
        for other in found:
            if other is not own:
                self.leave_out(self._with_comments(other.span))
        for span in (
            Span(self.source, own.span.start, self._brace(own)),
            Span(self.source, own.span.end - 1, own.span.end),
        ):
            if not self._cut_line(span):
                self._cut(span.start, span.end)

    def _joined(self, before: ast.Section, after: ast.Section) -> None:
        """What a section of the phase has in addition to that of its alternative comes there."""
        said = {_key(s) for s in after.body}
        for s in before.body:
            if _key(s) in said:
                self.leave_out(self._with_comments(s.span))
        kept = self._edited(self._brace(before), before.span.end - 1)
        if kept.strip(" \t\r\f\n,"):
            opened = self._brace(after)
            end = "\n" if "\n" in kept or "#" in kept else ", "
            self.edits.append((opened, opened, kept.rstrip(" \t\r\f,") + end))
        self.leave_out(before.span)

    def _brace(self, section: ast.Section) -> int:
        """The place behind the brace that opens it."""
        return self.source.text.index("{", section.kind_span.end) + 1

    def _alone(self, span: Span) -> bool:
        """Whether the statement has its line for itself."""
        before, after = self._line(span)
        return not before.strip() and not after.split("#")[0].strip(" \t\r\f,")

    def _line(self, span: Span) -> tuple[str, str]:
        """What is on the lines of a span before and behind it."""
        text = self.source.text
        return text[text.rfind("\n", 0, span.start) + 1 : span.start], text[span.end :].split("\n", 1)[0]

    def _with_comments(self, span: Span) -> Span:
        """With the comment behind it and those on the lines directly above, which speak of it alone; of what begins inside a line none do."""
        if span.source != self.source or self._line(span)[0].strip():
            return span
        text = self.source.text
        behind = re.compile(r"[ \t]*,?[ \t]*#[^\n]*").match(text, span.end)
        start = text.rfind("\n", 0, span.start) + 1
        while start and (above := text[text.rfind("\n", 0, start - 1) + 1 : start]).lstrip().startswith("#"):
            start -= len(above)
        first = span.start if text[start : span.start].isspace() or start == span.start else start
        return Span(self.source, first, behind.end() if behind else span.end)

    def leave_out(self, span: Span) -> None:
        """A statement with its line, or where others are there one comma beside it."""
        if span.source != self.source or self._cut_line(span):
            return
        ahead, behind = self._line(span)
        comma = re.match(r"[ \t]*,[ \t]*", behind) or re.search(r"[ \t]*,[ \t]*$", ahead)
        if comma is None:
            self._cut(span.start, span.end)
        elif comma.string is behind:
            self._cut(span.start, span.end + comma.end())
        else:
            self._cut(span.start - len(ahead) + comma.start(), span.end)

    def _cut_line(self, span: Span) -> bool:
        """Leaves out the whole line of what is alone on it; whether it is."""
        ahead, behind = self._line(span)
        if ahead.strip() or behind.strip(" \t\r\f,"):
            return False
        self._cut(span.start - len(ahead), min(len(self.source.text), span.end + len(behind) + 1))
        return True

    def _cut(self, start: int, end: int) -> None:
        self.edits.append((start, end, ""))
