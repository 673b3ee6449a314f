"""The statements of a section, its preset's and its own merged."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.diagnostics import Collector, Label
from ..base.frozen import field, mutable
from ..base.schema.homes import LISTS
from ..base.source import Span
from ..base.syntax import ast


@mutable
class Body:
    """Statements of one section, preset and override merged: attributes, sub-sections, directives, bare names."""

    span: Span
    partial: bool = False  # its preset could not be read: what it lacks may be there
    assigns: dict[str, ast.Assign] = field(default_factory=dict)
    sections: dict[str, list[ast.Section]] = field(default_factory=dict)
    directives: dict[str, ast.Directive] = field(default_factory=dict)
    bare: dict[str, ast.Bare] = field(default_factory=dict)

    def add(self, statements: Sequence[ast.Statement], out: Collector) -> None:
        """Later bodies override earlier ones; within one body a name occurs once."""
        own: dict[str, Span] = {}
        for s in _without_open_lists(statements, out):
            if isinstance(s, ast.Assign):
                self._once(own, s.name, s.name_span, out)
                self.assigns[s.name] = s
                self.bare.pop(s.name, None)
                self.sections.pop(s.name, None)
            elif isinstance(s, ast.Bare):
                self._once(own, s.name, s.span, out)
                self.bare[s.name] = s
            elif isinstance(s, ast.Directive):
                self._once(own, f"{s.keyword} {s.name}", s.span, out)
                self.directives[f"{s.keyword} {s.name}"] = s
            elif isinstance(s, ast.Section):
                key = s.kind if s.name is None else f"{s.kind} {s.name}"
                self._once(own, key, s.kind_span, out)
                self.sections.setdefault(key, []).append(s)
                self.assigns.pop(key, None)
            else:
                if not out.incomplete:  # else a brace is probably missing
                    out.add("E12", "this statement belongs at the top of the file", s.span)

    @staticmethod
    def _once(own: dict[str, Span], name: str, span: Span, out: Collector) -> None:
        if name in own:
            out.add("E11", f"`{name}` is given twice", span, "again here", also=(Label(own[name], "first here"),))
        own.setdefault(name, span)

    def sub(self, key: str, out: Collector) -> Body | None:
        """The merged body of a sub-section."""
        if key not in self.sections:
            return None
        body = Body(self.sections[key][-1].kind_span)
        for section in self.sections[key]:
            body.add(section.body, out)
        return body

    def span_of(self, name: str) -> Span:
        if name in self.assigns:
            return self.assigns[name].value.span
        if name in self.directives:
            return self.directives[name].span
        if name in self.sections:
            return self.sections[name][-1].kind_span
        return self.bare[name].span if name in self.bare else self.span

    def spans(self) -> dict[str, Span]:
        out = {name: a.value.span for name, a in self.assigns.items()}
        out |= {name: s[-1].kind_span for name, s in self.sections.items()}
        return out | {name.split(" ")[0]: d.span for name, d in self.directives.items()}

    def first_of(self, *names: str) -> Span:
        """Of the first of these attributes that was written; else of the section."""
        for name in names:
            if name in self.assigns or name in self.sections:
                return self.span_of(name)
        return self.span

    def inner_spans(self) -> dict[str, Span]:
        """Of the attributes of its sections: `attention.heads`, the last that is given."""
        parts = ((key, one) for key, sections in self.sections.items() for section in sections for one in section.body)
        return {f"{key}.{one.name}": one.value.span for key, one in parts if isinstance(one, ast.Assign)}


def _without_open_lists(statements: Sequence[ast.Statement], out: Collector) -> list[ast.Statement]:
    """`order = pp, dp, ep` reads as an attribute and names without a value: a list that lacks its brackets."""
    kept: list[ast.Statement] = []
    items: list[str] = []
    for s in statements:
        last = kept[-1] if kept else None
        listed = isinstance(last, ast.Assign) and isinstance(last.value, ast.Name) and last.name in LISTS
        if isinstance(s, ast.Bare) and listed and s.span.source.position(s.span.start)[0] == _line(last):
            items = items or [last.value.span.text]  # type: ignore[union-attr]
            items.append(s.name)
            continue
        if items:
            _report_list(kept.pop(), items, out)
            items = []
        kept.append(s)
    if items:
        _report_list(kept.pop(), items, out)
    return kept


def _line(statement: ast.Statement | None) -> int:
    return 0 if statement is None else statement.span.source.position(statement.span.start)[0]


def _report_list(assign: ast.Statement, items: Sequence[str], out: Collector) -> None:
    assert isinstance(assign, ast.Assign)
    help_ = f"write `{assign.name} = [{', '.join(items)}]`"
    out.add("E01", f"the list of `{assign.name}` has no brackets", assign.span, help=(help_,))
