"""Reads the attributes of a section against its schema, reporting everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ..base import coming
from ..base.by_identity import ByIdentity
from ..base.diagnostics import Collector
from ..base.frozen import field, mutable
from ..base.schema.attribute import ANY, REQUIRED, Attribute
from ..base.schema.homes import HOMES
from ..base.schema.phase import OPEN
from ..base.source import Span
from ..base.syntax import ast
from .body import Body
from .open_words import left_open
from .typed import default_of, number_meant, typed
from .values.evaluate import Value, evaluate, whole_range
from .values.functions import env
from .values.names import Names


def _of_schema(schema: Mapping[str, Attribute]) -> tuple[dict[str, Value | None], frozenset[str]]:
    """The values of attributes that nobody gives, and which have to be given."""
    defaults = {name: default_of(attribute) for name, attribute in schema.items()}
    return defaults, frozenset(name for name, attribute in schema.items() if attribute.default is REQUIRED)


_of_schemas = ByIdentity(_of_schema, most=64)


@mutable
class Reader:
    """One section's attributes by its schema. `section` names it in messages."""

    section: str
    body: Body
    schema: Mapping[str, Attribute]
    names: Names
    sections: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    open: Collection[str] = ()  # attributes that may be left to a search
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
        defaults, required = _of_schemas(self.schema)
        values = dict(defaults)
        said = {*required, *self.body.assigns, *self.body.bare}
        for name in [name for name in defaults if name in said]:
            values[name] = self.one(name, self.schema[name])
        if self.free:
            for name, assign in self.body.assigns.items():
                if name not in self.schema:
                    values[name] = self._free(name, assign)
        return values

    def _free(self, name: str, assign: ast.Assign) -> Value | None:
        """An attribute that is not in the schema; the word `none` leaves it out."""
        value = evaluate(assign.value, env(self.names, words=True), self.out)
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
        if attribute.kind in ("routing", "form", "series"):
            return None  # read apart: it may be a call
        if self._left_open(name, attribute, assign.value):
            return None
        names = env(self.names, words=attribute.kind in ("word", "dtype", "list"))
        value: Value | None
        if attribute.kind == "counts" and isinstance(assign.value, ast.Range):
            value = whole_range(assign.value, names, self.out)
        else:
            value = evaluate(assign.value, names, self.out)
        return None if value is None else typed(name, attribute, value, assign.value.span, self.out)

    def _slip(self, name: str) -> ast.Assign | None:
        """Where any attribute is allowed: the one that probably means what is missing."""
        missing = [n for n, a in self.schema.items() if a.default is REQUIRED and n not in self.body.assigns]
        others = (a for n, a in self.body.assigns.items() if self.free and n not in self.schema)
        return next((a for a in others if self.out.near(a.name, missing) == name), None)

    def _left_open(self, name: str, attribute: Attribute, value: ast.Expr) -> bool:
        """`tp = any`, which a search decides; `tp = auto`, which means that; `kind = train`, which is not there yet."""
        constants = self.names.constants
        if left_open(value, constants):
            if name in self.open:
                return True  # what is wrong with it is told
            if ANY not in attribute.words and attribute.kind in ("number", "count", "counts", "word", "dtype", "flag"):
                what = f"a search chooses what a phase leaves open: {', '.join(OPEN)}"
                self.out.add("E12", f"`{name}` of `{self.section}` cannot be left open", value.span, help=(what,))
                return True
        if (
            name in self.open
            and isinstance(value, (ast.ListExpr, ast.Range))
            and attribute.kind not in ("counts", "list")
        ):
            values = value.span.text.strip("[]").strip()
            several = f"a search chooses from several: `{name} = {ANY}({values})`"
            swept = "`dagc sweep` goes through the domain of a param"
            self.out.add("E08", f"`{name}` is one value, not a list", value.span, help=(several, swept))
            return True
        joined = value.span.text
        if attribute.words and re.fullmatch(r"\w+(-\w+)+", joined) and (near := self.out.near(joined, attribute.words)):
            self.out.add("E02", f"`{name}` cannot be `{joined}`", value.span, help=(f"did you mean `{near}`?",))
            return True
        if not isinstance(value, ast.Name) or value.text in constants or value.text in attribute.words:
            return False
        if attribute.kind == "count" and (help_ := number_meant(name, value.text.lower())):
            self.out.add("E08", f"`{name}` is a number, not the word `{value.text}`", value.span, help=help_)
            return True
        if self.kind == "phase" and name == "kind" and value.text in coming.WORDS:
            coming.refuse(coming.WORDS[value.text], value.span, self.out)
            return True
        if (
            name in self.open
            and (value.text in coming.CHOICES or value.text.lower() == ANY)
            and not any(word.startswith(value.text) for word in attribute.words)  # a slip: `free` for `freed`
        ):
            help_ = (f"did you mean `{name} = {ANY}`, which leaves it to `dagc search`?",)
            self.out.add("E02", f"`{name}` cannot be `{value.text}`", value.span, help=help_)
            return True
        return False

    def _unknown(self) -> None:
        known = [*self.schema, *self.sections, *self.directives]
        for name, assign in self.body.assigns.items():
            if name in self.sections and name not in self.schema and not self.free:
                self.out.add(
                    "E08", f"`{name}` is a section, not a value", assign.span, help=(f"write `{name} {{ ... }}`",)
                )
            elif name not in self.schema and not self.free:
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


def homes(name: str, section: str) -> list[str]:
    """Sections that an attribute belongs to, where it is in another one."""
    return [owner for owner, schema in HOMES.items() if name in schema and owner != f"the {section.split(' ')[0]}"]
