"""Reads the attributes of a section against its schema, reporting everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..base import coming
from ..base.diagnostics import Collector, Label
from ..base.dtypes import FORMS, find
from ..base.files import Reach
from ..base.schema import HOMES, LISTS, REQUIRED, Attribute
from ..base.source import Span
from ..base.suggest import products
from ..base.synonyms import SYNONYMS
from ..base.syntax import ast
from ..base.units import BYTE_RATE, BYTES, EXAMPLES, SCALAR, Dim, Quantity, dim_name, dim_words
from ..spec.model import AttrValue
from .huggingface.config import Config
from .values import builtins as functions
from .values.evaluate import Env, Value, evaluate, kind_of


@dataclass(slots=True)
class Names:
    """What expressions may name: constants, and (per call) some more. Bare words are allowed where asked."""

    constants: Mapping[str, AttrValue]
    out: Collector
    extra: Mapping[str, AttrValue] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)  # constants that failed: already reported
    config: Config | None = None  # the config.json that a model comes from
    reach: Reach | None = None  # the files that the spec may name

    def env(self, words: bool = False) -> Env:
        def lookup(node: ast.Name | ast.Call) -> Value | None:
            if isinstance(node, ast.Call):
                return functions.call(self, node, words)
            if node.parts[0] == "config" and self.config is not None:
                return self.config.value(node.parts[1:], node.span, self.out)
            if node.text in self.extra:
                return self.extra[node.text]
            if node.text in self.constants:
                return self.constants[node.text]
            if node.text in self.unknown:
                return None
            if words and len(node.parts) == 1:
                return node.text
            if self.out.incomplete:
                return None
            self.unknown.add(node.text)  # once is enough
            near = self.out.near(node.text, [*self.constants, *self.extra, "true", "false"])
            self.out.add(
                "E02",
                f"unknown name `{node.text}`",
                node.span,
                help=(f"did you mean `{near}`?",) if near else (),
            )
            return None

        return lookup

    def find(self, given: str, base: Path | None) -> Path:
        """A file that the spec names. Raises Unreadable when it may not be read."""
        return (self.reach or Reach.of(None)).find(given, base)


@dataclass(slots=True)
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


@dataclass(slots=True)
class Reader:
    """One section's attributes by its schema. `section` names it in messages."""

    section: str
    body: Body
    schema: Mapping[str, Attribute]
    names: Names
    sections: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    free: bool = False  # further attributes are allowed: numbers, words or flags
    taken: set[str] = field(default_factory=set)  # what an unknown name probably means: it is not missing

    @property
    def out(self) -> Collector:
        return self.names.out

    @property
    def lacking(self) -> bool:
        """What is missing may be where nothing could be read."""
        return self.out.incomplete or self.body.partial

    @property
    def kind(self) -> str:
        """Kind of the section: `phase` of `phase decode`."""
        return self.section.split(" ")[0]

    def read(self) -> dict[str, Value | None]:
        """Every attribute of the schema, defaults filled in; None where it is wrong or absent."""
        self._unknown()
        values: dict[str, Value | None] = {}
        for name, attribute in self.schema.items():
            values[name] = self.one(name, attribute)
        if self.free:
            for name, assign in self.body.assigns.items():
                if name not in self.schema:
                    values[name] = self._free(name, assign)
        return values

    def _free(self, name: str, assign: ast.Assign) -> Value | None:
        """An attribute that is not in the schema; the word `none` leaves it out."""
        value = evaluate(assign.value, self.names.env(words=True), self.out)
        if isinstance(value, tuple):
            self.out.add("E08", f"`{name}` is one value, not a list", assign.value.span)
            return None
        return None if value == "none" else value

    def one(self, name: str, attribute: Attribute) -> Value | None:
        assign = self.body.assigns.get(name)
        if assign is None:
            if name in self.body.bare and self.free is False and attribute.kind == "flag":
                return True
            if attribute.default is REQUIRED and name not in {*self.body.sections, *self.taken} and not self.lacking:
                if (slip := self._slip(name)) is not None:
                    self.out.add(
                        "E02",
                        f"`{self.section}` has no `{slip.name}`",
                        slip.name_span,
                        help=(f"did you mean `{name}`?",),
                    )
                else:
                    self.out.add("E10", f"`{self.section}` needs `{name}`: {attribute.about}", self.body.span)
            return default_of(attribute)
        if attribute.kind == "routing":
            return None  # read apart: it may be a call
        if self._left_open(name, attribute, assign.value):
            return None
        value = evaluate(assign.value, self.names.env(words=attribute.kind in ("word", "dtype", "list")), self.out)
        return None if value is None else typed(name, attribute, value, assign.value.span, self.out)

    def _slip(self, name: str) -> ast.Assign | None:
        """Where any attribute is allowed: the one that probably means what is missing."""
        missing = [n for n, a in self.schema.items() if a.default is REQUIRED and n not in self.body.assigns]
        others = (a for n, a in self.body.assigns.items() if self.free and n not in self.schema)
        return next((a for a in others if self.out.near(a.name, missing) == name), None)

    def _left_open(self, name: str, attribute: Attribute, value: ast.Expr) -> bool:
        """`tp = any`, `kind = train`: what is not there yet."""
        if not isinstance(value, ast.Name) or value.text in (*self.names.constants, *attribute.words):
            return False
        what = coming.WORDS.get(value.text) if self.kind == "phase" and name == "kind" else None
        if (
            self.kind in ("phase", *FOLDS)
            and value.text in coming.CHOICES
            and attribute.kind in ("count", "counts", "word", "dtype")
            and not any(word.startswith(value.text) for word in attribute.words)  # a slip: `free` for `freed`
        ):
            what = coming.FREE
        if what is not None:
            coming.refuse(what, value.span, self.out)
        return what is not None

    def _unknown(self) -> None:
        known = [*self.schema, *self.sections, *self.directives]
        for name, assign in self.body.assigns.items():
            if name not in self.schema and not self.free:
                self._complain(name, assign.name_span, known)
        for key, sections in self.body.sections.items():
            if key not in self.sections:
                self._complain(key, sections[-1].kind_span, known)
        for key, directive in self.body.directives.items():
            if key not in self.directives and not self.out.incomplete:
                self._complain(key, directive.span, known)
        for name, bare in self.body.bare.items():
            if not (name in self.schema and self.schema[name].kind == "flag"):
                if self.out.incomplete and not self.schema.get(name):
                    continue  # its brace is missing
                near = self.out.near(name, known)
                hint = f"did you mean `{near} = ...`?" if near else f"`{self.section}` takes {', '.join(known)}"
                self.out.add("E10", f"`{name}` has no value", bare.span, help=(hint,))

    def _complain(self, name: str, span: Span, known: Sequence[str]) -> None:
        if (what := coming.ATTRIBUTES.get(self.kind, {}).get(name)) is not None:
            coming.refuse(what, span, self.out)
            return
        if (elsewhere := homes(name, self.section)) and not self.out.incomplete:
            owner = " or ".join(elsewhere)
            self.out.add(
                "E12", f"`{self.section}` has no `{name}`", span, help=(f"`{name}` is an attribute of {owner}",)
            )
            return
        near = self.out.near(name, known)
        if near is not None:
            self.taken.add(near)
        hint = f"did you mean `{near}`?" if near else f"`{self.section}` takes {', '.join(known)}"
        self.out.add("E02", f"`{self.section}` has no `{name}`", span, help=(hint,))


FOLDS = ("attention", "experts")


def homes(name: str, section: str) -> list[str]:
    """Sections that an attribute belongs to, where it is in another one."""
    return [owner for owner, schema in HOMES.items() if name in schema and owner != f"the {section.split(' ')[0]}"]


def typed(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    """The value as the attribute's kind, within its range; None after reporting that it is not."""
    if attribute.kind in ("number", "count"):
        return _number(name, attribute, value, span, out)
    if attribute.kind in ("word", "dtype"):
        return _word(name, attribute, value, span, out)
    if attribute.kind == "flag" and not isinstance(value, bool):
        out.add("E08", f"`{name}` is true or false, not {kind_of(value)}", span)
        return None
    if attribute.kind == "counts":
        return _counts(name, attribute, value, span, out)
    if attribute.kind == "list" and not isinstance(value, tuple):
        return (value,)
    return value


def _counts(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    """A list of plain whole numbers from 0."""
    items = value if isinstance(value, tuple) else (value,)
    plain = (isinstance(v, Quantity) and v.dim == SCALAR and v.value >= 0 and v.value == int(v.value) for v in items)
    if items and all(plain):
        return items
    dash = re.fullmatch(r"(\d+)\s*-\s*(\d+)", span.text)
    help_ = (f"a range is written `{dash[1]}..{dash[2]}`",) if dash else ()
    out.add("E08", f"`{name}` is a list of whole numbers: {attribute.about}", span, help=help_)
    return None


def _number(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    if not isinstance(value, Quantity):
        one = ("write one value; `dagc sweep` goes through the domain of a param",) if isinstance(value, tuple) else ()
        out.add("E08", f"`{name}` is a number, not {kind_of(value)}", span, help=one)
        return None
    plain_count = attribute.kind == "count" and value.dim == SCALAR
    if value.dim != attribute.dim and not plain_count:
        expected = dim_words(attribute.dim)
        help_ = _unit_help(attribute.dim, value.dim, span)
        out.add(
            "E08",
            f"`{name}` is {expected}, found {dim_words(value.dim)}",
            span,
            f"expected {dim_name(attribute.dim)}",
            help=help_,
        )
        return None
    if attribute.kind == "count" and value.value != int(value.value):
        out.add("E08", f"`{name}` is a whole number", span, f"this is {value.value:g}")
        return None
    low = value.value <= attribute.low if attribute.open_low else value.value < attribute.low
    if low or value.value > attribute.high:
        bound = f"more than {attribute.low:g}" if attribute.open_low else f"at least {attribute.low:g}"
        out.add(
            "E09",
            f"`{name}` must be {bound} and at most {attribute.high:g}",
            span,
            f"this is {value.value:g}",
            help=(f"write `{span.text}%`",) if attribute.high == 1 and _percentage(value.value, span) else (),
        )
        return None
    return Quantity(value.value, attribute.dim)


def _percentage(value: float, span: Span) -> bool:
    """`90` where 90 % is meant."""
    return 1 < value <= 100 and re.fullmatch(r"[0-9][0-9_.]*", span.text) is not None


def _unit_help(wanted: Dim, found: Dim, span: Span) -> tuple[str, ...]:
    """How to write what was meant."""
    literal = re.fullmatch(r"([0-9][0-9_.]*)[ \t]*([A-Za-z/]+)", span.text)
    if wanted == SCALAR and found == BYTES and literal:
        power = {"kB": "e3", "MB": "e6", "GB": "e9", "TB": "e12"}.get(literal[2], "e9")
        return (f"`{literal[2]}` is bytes; a billion is written `1e9`: {literal[1]}{power}",)
    if found == SCALAR and wanted in EXAMPLES:
        return (f"write a unit, e.g. `{EXAMPLES[wanted]}`",)
    if (found, wanted) == (BYTES, BYTE_RATE) and literal:
        return (f"a bandwidth is written `{literal[1]} {literal[2]}/s`",)
    return ()


def _word(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    if not isinstance(value, str):
        out.add("E08", f"`{name}` is a word, not {kind_of(value)}", span)
        return None
    known = find(value) is not None if attribute.kind == "dtype" else value in attribute.words
    if attribute.words and not known:
        near = out.near(value, attribute.words)
        if attribute.kind == "dtype" and value not in SYNONYMS:  # `fp6` is no `fp64`
            near = next(iter(products(value, attribute.words)), None)
        more = f", {FORMS}" if attribute.kind == "dtype" else ""
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(attribute.words)}{more}"
        out.add("E02", f"`{name}` cannot be `{value}`", span, help=(hint,))
        return None
    return value


def default_of(attribute: Attribute) -> Value | None:
    """The value of an attribute that nobody gives."""
    value = attribute.default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Quantity(float(value), attribute.dim)
    return value if isinstance(value, (str, bool)) else None
