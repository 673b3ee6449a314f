"""Attributes that a phase leaves to a search: `tp = any`, `microbatches = any(1, 2, 4)`, `strategy = any`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..base.axes import ATTENTION_SIDE, AXES, IN_EXPERTS
from ..base.diagnostics import Collector, Label
from ..base.schema import FOLD_ATTENTION, FOLD_EXPERTS, OPEN, PHASE, STRATEGY, Attribute
from ..base.source import Span
from ..base.syntax import ast
from ..base.units import TOKENS, Quantity
from ..spec.choice import Choice, Chosen
from ..spec.hardware import Hardware
from .body import Body
from .open_words import left_open
from .typed import typed
from .values.evaluate import evaluate
from .values.functions import env
from .values.names import Names

FOLDS: dict[str, Mapping[str, Attribute]] = {"attention": FOLD_ATTENTION, "experts": FOLD_EXPERTS}
MAX_VALUES = 10_000
"""Of one choice."""
FREED = (
    *STRATEGY, *(f"attention.{axis}" for axis in ATTENTION_SIDE), *(f"experts.{axis}" for axis in IN_EXPERTS)
)  # fmt: skip
"""Paths that `strategy = any` leaves open."""


def attribute_of(path: str) -> Attribute:
    """The schema's entry of a path."""
    section, _, name = path.rpartition(".")
    return FOLDS[section][name] if section else PHASE[name]


@dataclass(slots=True)
class ChoiceReader:
    """The choices of one phase."""

    phase: str
    body: Body
    names: Names
    hardware: Hardware | None

    @property
    def out(self) -> Collector:
        return self.names.out

    def read(self) -> tuple[Choice, ...]:
        """In the order of the schema, those that `strategy = any` frees last. What is wrong with them is reported."""
        own = {choice.path: choice for choice in self._written()}
        strategy = self.body.assigns.get("strategy")
        if strategy is None or not left_open(strategy.value, self.names.constants):
            return tuple(own.values())
        span = strategy.value.span
        if isinstance(strategy.value, ast.CallExpr):
            self.out.add(
                "E08", "`strategy = any` takes no values", span, help=("restrict an attribute: `pp = any(1, 2)`",)
            )
        for choice in own.values():
            if choice.path in FREED and not choice.values:
                first = (Label(span, "frees it already"),)
                self.out.add("E11", f"`{choice.path}` is left open twice", choice.span, "again here", also=first)
        self._flat(span)
        said = {*own, *self._said()}
        return (*own.values(), *(Choice(self.phase, path, (), span) for path in FREED if path not in said))

    def _written(self) -> Iterator[Choice]:
        for section, body in (("", self.body), *((fold, self.body.sub(fold, self.out)) for fold in FOLDS)):
            schema = FOLDS.get(section, PHASE)
            for name in schema if body is not None else ():
                assert body is not None
                assign = body.assigns.get(name)
                if assign is None or name not in (*OPEN, *FOLDS.get(section, ())):
                    continue
                if left_open(assign.value, self.names.constants):
                    path = f"{section}.{name}" if section else name
                    values = self._values(name, path, assign.value)
                    if values is not None:
                        yield Choice(self.phase, path, values, assign.value.span)

    def _values(self, name: str, path: str, value: ast.Expr) -> tuple[int | str | bool, ...] | None:
        """Those of `any(...)`, each as the attribute takes it; None after reporting what is wrong."""
        if not isinstance(value, ast.CallExpr):
            return ()
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
        for arg in value.args:
            read = evaluate(arg, env(self.names, words=attribute.kind in ("word", "dtype")), self.out)
            items = read if isinstance(read, tuple) else (read,)
            if len(found) + len(items) > MAX_VALUES:
                self.out.add("E09", f"a choice has at most {MAX_VALUES:,} values", value.span)
                return None
            for item in items:
                if item is None or (one := typed(name, attribute, item, arg.span, self.out)) is None:
                    return None
                plain = int(one.value) if isinstance(one, Quantity) else one
                assert not isinstance(plain, tuple)
                if plain in found:
                    also = (Label(found[plain], "first here"),)
                    self.out.add("E11", f"`{shown(plain)}` is given twice", arg.span, "again here", also=also)
                    return None
                found[plain] = arg.span
        return tuple(found)

    def _attribute(self, path: str) -> Attribute:
        """As a value of a choice is read: of `gpus` it is how many."""
        if path != "gpus":
            return attribute_of(path)
        most = 1e6 if self.hardware is None else self.hardware.gpus
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
        for section, schema in FOLDS.items():
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


def default(choice: Choice, hardware: Hardware | None) -> Chosen | None:
    """The value of a choice that nobody makes: the first, or what the attribute is when it is not given (None: such)."""
    if choice.values:
        return choice.values[0]
    if choice.path == "gpus":
        return 1 if hardware is None else hardware.gpus
    value = attribute_of(choice.path).default
    return value if isinstance(value, (int, str, bool)) else None


def body_with(body: Body, choices: Sequence[Choice], values: Mapping[str, Chosen | None]) -> Body:
    """The body of a phase with values in place of its choices, by path; None leaves the attribute out."""
    assigns = {name: assign for name, assign in body.assigns.items() if name != "strategy"}
    inner: dict[str, dict[str, ast.Assign]] = {}
    for choice in choices:
        section, _, name = choice.path.rpartition(".")
        value = values[choice.path]
        into = inner.setdefault(section, {}) if section else assigns
        into.pop(name, None)
        if value is not None:
            node = literal(choice.path, value, choice.span)
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


def literal(path: str, value: Chosen, span: Span) -> ast.Expr:
    """The value as an expression."""
    if path == "gpus":
        ids = value if isinstance(value, range) else range(int(value))
        low, high = (ast.Number(span, float(n), None, str(n)) for n in (ids.start, ids.stop - 1))
        return ast.Range(span, low, high)
    if isinstance(value, bool):
        return ast.Bool(span, value)
    if isinstance(value, int):
        return ast.Number(span, float(value), "tok" if attribute_of(path).dim == TOKENS else None, str(value))
    return ast.String(span, str(value))


def written(path: str, value: Chosen, constants: Mapping[str, object]) -> str:
    """The value as text. A word that is a constant's name too is quoted."""
    if path == "gpus":
        ids = value if isinstance(value, range) else range(int(value))
        return f"{ids.start}..{ids.stop - 1}"
    if isinstance(value, str) and value in constants:
        return f'"{value}"'
    return shown(value) + (" tok" if not isinstance(value, (str, bool)) and attribute_of(path).dim == TOKENS else "")


def shown(value: Chosen) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
