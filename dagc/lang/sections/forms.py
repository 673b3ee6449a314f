"""Values that are a word with arguments: `poisson(12 req/s)`, `uniform(80%, 100%)`, `burst`."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import record
from ...base.schema.attribute import REQUIRED, Attribute
from ...base.source import Span
from ...base.syntax import ast
from ..typed import default_of, typed
from ..values.evaluate import Value, evaluate
from ..values.functions import env
from ..values.names import Names

Forms = Mapping[str, Mapping[str, Attribute]]


@record
class Form:
    """A word, the values of its arguments (None: not given, and without a default), and where those that are given stand."""

    word: str
    values: Mapping[str, Value | None]
    spans: Mapping[str, Span]


def read_form(name: str, expr: ast.Expr, forms: Forms, names: Names) -> Form | None:
    """The value of attribute `name`, or None after reporting what is wrong with it."""
    out = names.out
    call = isinstance(expr, ast.CallExpr)
    word = expr.func.text if isinstance(expr, ast.CallExpr) else expr.text if isinstance(expr, ast.Name) else ""
    if word not in forms:
        near = out.near(word, forms) if word else None
        hint = (
            f"did you mean `{_example(near, forms)}`?"
            if near
            else f"known: {', '.join(_example(w, forms) for w in forms)}"
        )
        out.add(
            "E02" if word else "E08",
            f"`{name}` cannot be `{word}`" if word else f"`{name}` is a word, with its arguments",
            expr.span,
            help=(hint,),
        )
        return None
    takes = forms[word]
    given = _given(name, word, expr, takes, names) if call else {}
    if given is None:
        return None
    values: dict[str, Value | None] = {}
    for argument, attribute in takes.items():
        if argument in given:
            value = evaluate(given[argument], env(names), out)
            values[argument] = None if value is None else typed(argument, attribute, value, given[argument].span, out)
            if values[argument] is None:
                return None
        elif attribute.default is REQUIRED:
            help_ = (f"write `{_example(word, forms)}`",)
            out.add("E10", f"`{word}` needs `{argument}`: {attribute.about}", expr.span, help=help_)
            return None
        else:
            values[argument] = default_of(attribute)
    return Form(word, values, {argument: e.span for argument, e in given.items()})


def _given(
    name: str, word: str, expr: ast.Expr, takes: Mapping[str, Attribute], names: Names
) -> dict[str, ast.Expr] | None:
    """Arguments by name; those without one in their order."""
    assert isinstance(expr, ast.CallExpr)
    out = names.out
    if len(expr.args) > len(takes):
        most = f"`{word}` takes {', '.join(f'`{t}`' for t in takes)}" if takes else f"`{word}` takes no arguments"
        out.add("E08", most, expr.args[len(takes)].span)
        return None
    given = dict(zip(takes, expr.args, strict=False))
    for argument, value in expr.kwargs:
        if argument not in takes:
            near = out.near(argument, takes)
            hint = (f"did you mean `{near}`?" if near else f"it takes {', '.join(f'`{t}`' for t in takes) or 'none'}",)
            out.add("E02", f"`{word}` has no argument `{argument}`", value.span, help=hint)
            return None
        if argument in given:
            out.add("E11", f"`{argument}` of `{word}` is given twice", value.span)
            return None
        given[argument] = value
    return given


_EXAMPLES = {
    "rate": "12 req/s",
    "cv": "2",
    "clients": "64",
    "file": '"F.csv"',
    "low": "80%",
    "high": "100%",
    "layers": "12",
    "share": "10%",
}


def _example(word: str, forms: Forms) -> str:
    needed = [t for t, attribute in forms[word].items() if attribute.default is REQUIRED]
    shown = [f"{t} = {_EXAMPLES[t]}" if t == "cv" else _EXAMPLES[t] for t in needed]
    return f"{word}({', '.join(shown)})" if shown else word
