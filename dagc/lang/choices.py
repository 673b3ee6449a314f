"""Attributes that a phase or a serving leaves to a search: `tp = any`, `slots = any(64, 128)`, `strategy = any`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..base.axes import ATTENTION_SIDE, AXES, IN_EXPERTS
from ..base.diagnostics import Collector, Label
from ..base.frozen import mutable, record, replace
from ..base.schema.attribute import Attribute
from ..base.schema.phase import OPEN, PHASE, STRATEGY
from ..base.schema.phase_sections import FOLD_ATTENTION, FOLD_EXPERTS
from ..base.schema.serve import OPEN_IN_SERVINGS, SERVE
from ..base.source import Span
from ..base.syntax import ast
from ..base.units import TOKENS, Quantity
from ..spec.choice import Choice, Chosen
from ..spec.hardware import Hardware
from .body import Body
from .open_words import FOLDS, left_open
from .pools import Pools
from .typed import typed
from .values.evaluate import Env, evaluate
from .values.functions import env
from .values.names import Names


@record
class OpenKind:
    """A kind of section whose attributes may be left open. `schemas`: its own under no name, those of sections inside by their
    names; `open`: those of its own that may be."""

    schemas: Mapping[str, Mapping[str, Attribute]]
    open: tuple[str, ...]

    def attribute(self, path: str) -> Attribute:
        """The schema's entry of a path."""
        section, _, name = path.rpartition(".")
        return self.schemas[section][name]


PHASES = OpenKind({"": PHASE, "attention": FOLD_ATTENTION, "experts": FOLD_EXPERTS}, OPEN)
SERVINGS = OpenKind({"": SERVE}, OPEN_IN_SERVINGS)
HARDWARE = "hardware"
MAX_VALUES = 10_000
"""Of one choice."""
FREED = (
    *STRATEGY, *(f"attention.{axis}" for axis in ATTENTION_SIDE), *(f"experts.{axis}" for axis in IN_EXPERTS)
)  # fmt: skip
"""Paths that `strategy = any` leaves open."""


@mutable
class ChoiceReader:
    """The choices of one phase or serving, called `owner`."""

    kind: OpenKind
    owner: str
    body: Body
    names: Names
    pools: Pools

    @property
    def hardware(self) -> Hardware | None:
        """The pool, where there is no choice of it."""
        return self.pools.meant_by(self.body)

    @property
    def out(self) -> Collector:
        return self.names.out

    def read(self) -> tuple[Choice, ...]:
        """In the order of the schema, those that `strategy = any` frees last. What is wrong with them is reported."""
        own = {choice.path: choice for choice in self._written()}
        strategy = self.body.assigns.get("strategy")
        if strategy is None or self.kind is not PHASES or not left_open(strategy.value, self.names.constants):
            return tuple(own.values())
        span = strategy.value.span
        if isinstance(strategy.value, ast.CallExpr):
            self.out.add(
                "E08", "`strategy = any` takes no values", span, help=("restrict an attribute: `pp = any(1, 2)`",)
            )
        self._flat(span)
        said = {*own, *self._said()}
        return (*own.values(), *(Choice(self.owner, path, (), span, freed=True) for path in FREED if path not in said))

    def _written(self) -> Iterator[Choice]:
        for section, schema in self.kind.schemas.items():
            body = self.body.sub(section, self.out) if section else self.body
            for name in (schema if section else self.kind.open) if body is not None else ():
                assert body is not None
                assign = body.assigns.get(name)
                if assign is not None and left_open(assign.value, self.names.constants):
                    path = f"{section}.{name}" if section else name
                    values = self._values(name, path, assign.value)
                    if values is not None:
                        yield Choice(self.owner, path, values, assign.value.span)

    def _values(self, name: str, path: str, value: ast.Expr) -> tuple[int | str | bool, ...] | None:
        """Those of `any(...)`, each as the attribute takes it; None after reporting what is wrong."""
        if path == HARDWARE and self.pools.sure and not self.pools.several:
            self.out.add("E12", "there is one pool of GPUs: nothing is left open", value.span)
            return None
        if not isinstance(value, ast.CallExpr):
            return tuple(self.pools.known) if path == HARDWARE else ()
        if value.kwargs:
            self.out.add("E08", "`any(...)` takes values alone", value.kwargs[0][1].span)
            return None
        if not value.args:
            self.out.add(
                "E10", "`any()` has no values", value.span, help=(f"`{name} = any` leaves all open that it can be",)
            )
            return None
        attribute = self._attribute(path)
        found: dict[int | str | bool, Span] = {}
        lookup = env(self.names, words=attribute.kind in ("word", "dtype", "list"))
        for arg in value.args:
            read = None if self._long(arg, lookup) else evaluate(arg, lookup, self.out)
            items = read if isinstance(read, tuple) and attribute.kind != "list" else (read,)
            if self._long(arg, lookup) or len(found) + len(items) > MAX_VALUES:
                self.out.add("E09", f"a choice has at most {MAX_VALUES:,} values", value.span)
                return None
            if path == "gpus" and isinstance(arg, ast.Range) and arg.low == ast.Number(arg.span, 0.0):
                help_ = (
                    "`gpus = any(8, 16)`: ids 0..7, or 0..15",
                    f"given ids are no choice: `gpus = {arg.span.text}`",
                )
                self.out.add("E08", "`gpus = any(...)` says how many", arg.span, "these are ids", help=help_)
                return None
            for item in items:
                if item is None or (one := typed(name, attribute, item, arg.span, self.out)) is None:
                    return None
                if isinstance(one, tuple):
                    if not all(isinstance(each, str) for each in one):
                        more = (f"write `{name} = any(none, moe, [gqa, moe], full)`",)
                        self.out.add("E08", f"`{name}` takes names", arg.span, help=more)
                        return None
                    one = list_word([str(each) for each in one])
                plain = int(one.value) if isinstance(one, Quantity) else one
                assert not isinstance(plain, (tuple, range))
                if path == HARDWARE and self.pools.sure and plain not in self.pools.known:
                    meant = self.pools.meant(str(plain), self.out)
                    self.out.add("E02", f"there is no pool `{plain}`", arg.span, help=(meant,))
                    return None
                if plain in found:
                    also = (Label(found[plain], "first here"),)
                    self.out.add("E11", f"`{shown(plain)}` is given twice", arg.span, "again here", also=also)
                    return None
                found[plain] = arg.span
        return tuple(found)

    def _long(self, arg: ast.Expr, lookup: Env) -> bool:
        """Whether it is a range of more values than a choice has, which is told without counting them."""
        if not isinstance(arg, ast.Range):
            return False
        low, high = (evaluate(end, lookup, Collector()) for end in (arg.low, arg.high))
        return isinstance(low, Quantity) and isinstance(high, Quantity) and high.value - low.value >= MAX_VALUES

    def _attribute(self, path: str) -> Attribute:
        """As a value of a choice is read: of `gpus` it is how many."""
        if path != "gpus":
            return self.kind.attribute(path)
        most = self.pools.most(self.body) or 1e6
        return Attribute("how many GPUs", "count", low=1, high=most, open_low=False)

    def _flat(self, span: Span) -> None:
        """Degrees that a folded strategy does not have."""
        for axis in AXES:
            if axis in STRATEGY or axis not in self.body.assigns:
                continue
            side = "attention" if axis in ATTENTION_SIDE else "experts"
            help_ = (f"write `{side} {{ {axis} = {self.body.assigns[axis].value.span.text} }}`",)
            also = (Label(span, "gives attention and experts degrees of their own"),)
            self.out.add(
                "E12",
                f"`{axis}` says nothing beside `strategy = any`",
                self.body.assigns[axis].span,
                also=also,
                help=help_,
            )

    def _said(self) -> Iterator[str]:
        """Paths that the phase gives itself."""
        yield from (name for name in STRATEGY if name in self.body.assigns)
        yield from (name for name in STRATEGY if name in self.body.bare)
        for section in FOLDS:
            schema = self.kind.schemas[section]
            inner = self.body.sub(section, self.out)
            for name in schema if inner is not None else ():
                assert inner is not None
                if name in inner.bare:
                    self.out.add(
                        "E10",
                        f"`{name}` has no value",
                        inner.bare[name].span,
                        help=("`strategy = any` frees what is left out",),
                    )
                if name in inner.assigns or name in inner.bare:
                    yield f"{section}.{name}"


def closed(owner: str, body: Body, kind: OpenKind, names: Names, pools: Pools) -> tuple[Body, bool]:
    """A body without its choices, for a command that needs one plan and refuses them; and whether there are any."""
    errors = names.out.errors
    choices = ChoiceReader(kind, owner, body, names, pools).read()
    if names.out.errors == errors:
        refuse(choices, kind, names.out)
    return body_with(body, choices, defaults(choices, kind, pools.meant_by(body)), kind), names.out.errors > errors


def refuse(choices: Sequence[Choice], kind: OpenKind, out: Collector) -> None:
    """What a command that needs one plan says of choices: once for each that is written."""
    for choice in {c.span: c for c in reversed(choices)}.values():
        name = choice.path.rpartition(".")[2]
        instead = f"one value: `{name} = {_example(choice, kind)}`"
        if choice.freed:
            name, instead = "strategy", "degrees: `pp = 2`, `tp = 4`"
        help_ = (f"`dagc search {choice.span.source.name}` finds the best", f"one plan has {instead}")
        out.add("E19", f"`{name}` is left open", choice.span, "a search decides", help=help_)


def _example(choice: Choice, kind: OpenKind) -> str:
    if choice.path == "gpus":
        return "0..7"
    attribute = kind.attribute(choice.path)
    if choice.values:
        return written(choice.path, choice.values[0], {}, kind)
    if attribute.words:
        return attribute.words[0]
    if attribute.kind == "list":
        return NONE
    return "true" if attribute.kind == "flag" else "2048 tok" if attribute.dim == TOKENS else "4"


def defaults(choices: Sequence[Choice], kind: OpenKind, hardware: Hardware | None) -> dict[str, Chosen | None]:
    """Values of choices that nobody makes, by path."""
    return {choice.path: _default(choice, kind, hardware) for choice in choices}


def _default(choice: Choice, kind: OpenKind, hardware: Hardware | None) -> Chosen | None:
    """The first that is listed, or what the attribute is when it is not given (None: such)."""
    if choice.values:
        return choice.values[0]
    if choice.path == "gpus":
        return 1 if hardware is None else hardware.gpus
    value = kind.attribute(choice.path).default
    return value if isinstance(value, (int, str, bool)) else None


def body_with(body: Body, choices: Sequence[Choice], values: Mapping[str, Chosen | None], kind: OpenKind) -> Body:
    """The body of a phase with values in place of its choices, by path; None leaves the attribute out."""
    assigns = dict(body.assigns)
    if any(choice.freed for choice in choices):
        del assigns["strategy"]
    inner: dict[str, dict[str, ast.Assign]] = {}
    for choice in choices:
        section, _, name = choice.path.rpartition(".")
        value = values[choice.path]
        into = inner.setdefault(section, {}) if section else assigns
        into.pop(name, None)
        if value is not None:
            node = literal(choice.path, value, choice.span, kind)
            into[name] = ast.Assign(choice.span, name, node, choice.span)
    sections = dict(body.sections)
    for section, given in inner.items():
        free = {choice.path.rpartition(".")[2] for choice in choices if choice.path.startswith(f"{section}.")}
        written = sections.get(section, [])
        kept = tuple(
            replace(s, body=tuple(b for b in s.body if not (isinstance(b, ast.Assign) and b.name in free)))
            for s in written
        )
        span = next(iter(given.values())).span if given else body.span
        new = kept[-1] if kept else ast.Section(span, section, None, None, (), span)
        sections[section] = [*kept[:-1], replace(new, body=(*new.body, *given.values()))]
    return Body(body.span, body.partial, assigns, sections, body.directives, body.bare)


NONE = "none"
"""The word of an empty list."""


def list_word(names: Sequence[str]) -> str:
    """A list of names as one value of a choice, as a spec writes it: `none`, `moe`, `[gqa, moe]`."""
    own = [*dict.fromkeys(name for name in names if name != NONE)]
    return (own[0] if own else NONE) if len(own) < 2 else f"[{', '.join(own)}]"


def list_names(word: str) -> tuple[str, ...]:
    """The names of such a value."""
    return () if word == NONE else tuple(word.strip("[]").split(", "))


def literal(path: str, value: Chosen, span: Span, kind: OpenKind) -> ast.Expr:
    """The value as an expression."""
    if path != "gpus" and kind.attribute(path).kind == "list":
        return ast.ListExpr(span, tuple(ast.String(span, name) for name in list_names(str(value)) or (NONE,)))
    if path == "gpus":
        ids = value if isinstance(value, range) else range(int(value))
        low, high = (ast.Number(span, float(n), None, str(n)) for n in (ids.start, ids.stop - 1))
        return ast.Range(span, low, high)
    if isinstance(value, bool):
        return ast.Bool(span, value)
    if isinstance(value, int):
        return ast.Number(span, float(value), "tok" if kind.attribute(path).dim == TOKENS else None, str(value))
    return ast.String(span, str(value))


def written(path: str, value: Chosen, constants: Mapping[str, object], kind: OpenKind) -> str:
    """The value as text. A word that is a constant's name too is quoted."""
    if path == "gpus":
        ids = value if isinstance(value, range) else range(int(value))
        return f"{ids.start}..{ids.stop - 1}"
    if isinstance(value, str) and value in constants:
        return f'"{value}"'
    return shown(value) + (" tok" if not isinstance(value, (str, bool)) and kind.attribute(path).dim == TOKENS else "")


def shown(value: Chosen) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
