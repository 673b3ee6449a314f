"""Elaboration of `routing`: how the tokens of a workload, or of one phase, choose experts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...base.files import Unreadable, read_text
from ...base.frozen import replace
from ...base.schema.attribute import LARGE
from ...base.schema.workload import ROUTINGS
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.workload import Routing
from ..body import Body
from ..values.evaluate import Value, evaluate
from ..values.functions import env
from ..values.names import Names

if TYPE_CHECKING:
    from .loads_file import Loads

FORMS = '`uniform`, `zipf(s)` or `power_law(s)` with s from 0 to 10, `histogram([...])`, `histogram("file")`, or `loads("file")`'


def read_routing(body: Body, names: Names, base: Path | None) -> Routing | None:
    """`routing` of a section that has it, or None when it is wrong."""
    value = body.assigns["routing"].value
    if isinstance(value, ast.Name) and value.text == "uniform":
        return Routing()
    known = isinstance(value, ast.CallExpr) and value.func.text in {*ROUTINGS} - {"uniform"}
    if isinstance(value, ast.CallExpr) and known and len(value.args) == 1 and not value.kwargs:
        given = evaluate(value.args[0], env(names), names.out)
        if given is None:
            return None
        if value.func.text == "histogram":
            shares = _histogram(given, names, base, value.args[0].span)
            return None if shares is None else Routing("histogram", 0.0, shares)
        if value.func.text == "loads":
            return _loads(given, names, base, value.args[0].span)
        if isinstance(given, Quantity) and 0 <= given.value <= 10:
            return Routing(value.func.text, given.value)
    word = value.func.text if isinstance(value, ast.CallExpr) else value.text if isinstance(value, ast.Name) else ""
    near = names.out.near(word, ROUTINGS) if word else None
    help_ = (f"did you mean `{ROUTINGS[near]}`?",) if near is not None else ()
    names.out.add("E08", f"`routing` is {FORMS}", value.span, help=help_)
    return None


def _read(what: str, name: str, names: Names, base: Path | None, span: Span) -> str | None:
    try:
        return read_text(names.find(name, base))
    except Unreadable as error:
        names.out.add("E05", f"cannot read the {what} `{name}`: {error}", span, help=error.help)
        return None


def _histogram(shares: Value, names: Names, base: Path | None, span: Span) -> tuple[float, ...] | None:
    """Shares of the experts: a list, or a text file of numbers."""
    if isinstance(shares, str):
        text = _read("histogram", shares, names, base, span)
        if text is None:
            return None
        try:
            shares = tuple(Quantity(float(word)) for word in text.split())
        except ValueError:  # whose message would quote the file
            names.out.add("E05", f"the histogram `{shares}` contains something that is not a number", span)
            return None
    numbers = _numbers(shares)
    if not numbers or not all(0 <= n <= LARGE for n in numbers) or max(numbers) <= 0:
        names.out.add("E08", "a histogram is a list of numbers of at least 0, not all of them 0", span)
        return None
    return numbers


def _loads(given: Value, names: Names, base: Path | None, span: Span) -> Routing | None:
    """Loads of each layer: a list of lists, or a file of comma-separated values."""
    from .loads_file import LoadsError, parse_loads

    try:
        if isinstance(given, str):
            text = _read("loads", given, names, base, span)
            if text is None:
                return None
            found = parse_loads(text)
        else:
            found = _listed(given)
    except LoadsError as error:
        shown = f"the loads `{given}`" if isinstance(given, str) else "the loads"
        names.out.add("E05", f"{shown}: {error}", span)
        return None
    made = Routing("loads", 0.0, (), found.layers, found.numbers)
    return replace(made, where=found.where, span=span)


def _listed(given: Value) -> Loads:
    from .loads_file import Loads, LoadsError, checked

    rows = given if isinstance(given, tuple) else ()
    layers = tuple(_numbers(row) or () for row in rows)
    if not layers or not all(layers):
        raise LoadsError("", "they are a file, or a list with a list of numbers for each layer")
    where = tuple(f"list {n}" for n in range(1, len(layers) + 1))
    for row, place in zip(layers, where, strict=True):
        checked(row, place)
        if len(row) != len(layers[0]):
            raise LoadsError(place, f"it has {len(row)} values, the first {len(layers[0])}")
    return Loads(layers, (), where)


def _numbers(value: Value) -> tuple[float, ...] | None:
    """The numbers of a list of nothing else."""
    if not isinstance(value, tuple):
        return None
    numbers = tuple(v.value for v in value if isinstance(v, Quantity))
    return numbers if len(numbers) == len(value) else None
