"""The text of a spec with values in place of its choices: an edit per place, then `dagc fmt`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..base.source import Source, Span
from ..base.syntax import ast
from ..spec.choice import Choice, Chosen
from .body import Body
from .choices import OpenKind, written
from .open_words import FOLDS


@dataclass(slots=True)
class Rewrite:
    """Edits of one file. `constants`: names that a word must not be taken for."""

    source: Source
    constants: Mapping[str, object]
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    def text(self) -> str:
        """The formatted file."""
        from ..base.syntax.format import format_source

        out, at = [], 0
        for start, end, new in sorted(self.edits):
            out += [self.source.text[at:start], new]
            at = end
        return format_source(Source(self.source.name, "".join([*out, self.source.text[at:]])))

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
            if value is not None:
                self.replace(choice.span, written(choice.path, value, self.constants, kind))
            else:
                self.leave_out(self._assign(body, section, name).span)
        if strategy is not None and any(choice.freed for choice in choices):
            self._strategy(strategy, body, added)

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
                opened = self.source.text.index("{", section.kind_span.end) + 1
                self.edits.append((opened, opened, f" {', '.join(new)}{',' if section.body else ''} "))
        alone = self._alone(strategy.span)
        self.replace(strategy.span, ("\n" if alone else ", ").join(statements))

    def _alone(self, span: Span) -> bool:
        """Whether the statement has its line for itself."""
        text = self.source.text
        before = text[text.rfind("\n", 0, span.start) + 1 : span.start]
        after = text[span.end :].split("\n", 1)[0]
        return not before.strip() and not after.split("#")[0].strip(" \t\r\f,")

    def leave_out(self, span: Span) -> None:
        """A statement, and one comma beside it."""
        if span.source != self.source:
            return
        text = self.source.text
        after = re.compile(r"[ \t]*,[ \t]*").match(text, span.end)
        if after is not None:
            self.edits.append((span.start, after.end(), ""))
            return
        before = re.search(r"[ \t]*,[ \t]*$", text[: span.start])
        self.edits.append((span.start if before is None else before.start(), span.end, ""))
