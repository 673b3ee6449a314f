"""Elaboration of the workload: its sequences, and the distribution of its routing."""

from __future__ import annotations

from pathlib import Path

from ...base import coming
from ...base.files import Unreadable, read_text
from ...base.schema import LARGE, WORKLOAD
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.workload import Routing, Workload
from ..body import Body
from ..reader import Reader
from ..values.evaluate import Value, evaluate
from ..values.functions import env
from ..values.names import Names


def read_workload(body: Body, names: Names, base: Path | None, span: Span) -> Workload | None:
    """The batch and how its tokens choose experts, or None when something is wrong or missing."""
    values = Reader("workload", body, WORKLOAD, names).read()
    routing = _routing(body, names, base)
    counts = [values[k] for k in ("sequences", "prompt", "output")]
    if routing is None or not all(isinstance(v, Quantity) for v in counts):
        return None
    sequences, prompt, output = (int(v.value) for v in counts if isinstance(v, Quantity))
    return Workload(sequences, prompt, output, routing, span)


def _routing(body: Body, names: Names, base: Path | None) -> Routing | None:
    assign = body.assigns.get("routing")
    if assign is None:
        return Routing()
    value = assign.value
    if isinstance(value, ast.CallExpr) and value.func.text in coming.CALLS:
        coming.refuse(coming.CALLS[value.func.text], value.span, names.out)
        return None
    if isinstance(value, ast.Name) and value.text == "uniform":
        return Routing()
    known = isinstance(value, ast.CallExpr) and value.func.text in ("zipf", "power_law", "histogram")
    if isinstance(value, ast.CallExpr) and known and len(value.args) == 1 and not value.kwargs:
        given = evaluate(value.args[0], env(names), names.out)
        if given is None:
            return None
        if value.func.text == "histogram":
            shares = _histogram(given, names, base, value.args[0].span)
            return None if shares is None else Routing("histogram", 0.0, shares)
        if isinstance(given, Quantity) and 0 <= given.value <= 10:
            return Routing(value.func.text, given.value)
    forms = '`uniform`, `zipf(s)` or `power_law(s)` with s from 0 to 10, or `histogram([...])`, `histogram("file")`'
    word = value.func.text if isinstance(value, ast.CallExpr) else value.text if isinstance(value, ast.Name) else ""
    near = names.out.near(word, ROUTINGS) if word else None
    help_ = (f"did you mean `{ROUTINGS[near]}`?",) if near is not None else ()
    names.out.add("E08", f"`routing` is {forms}", value.span, help=help_)
    return None


ROUTINGS = {
    "uniform": "uniform", "zipf": "zipf(1.0)", "power_law": "power_law(1.0)", "histogram": 'histogram("FILE")',
}  # fmt: skip
"""Word -> an example."""


def _histogram(shares: Value, names: Names, base: Path | None, span: Span) -> tuple[float, ...] | None:
    """Shares of the experts: a list, or a text file of numbers."""
    if isinstance(shares, str):
        try:
            text = read_text(names.find(shares, base))
            shares = tuple(Quantity(float(word)) for word in text.split())
        except Unreadable as error:
            names.out.add("E05", f"cannot read the histogram `{shares}`: {error}", span, help=error.help)
            return None
        except ValueError:  # whose message would quote the file
            names.out.add("E05", f"the histogram `{shares}` contains something that is not a number", span)
            return None
    numbers = tuple(v.value for v in shares if isinstance(v, Quantity)) if isinstance(shares, tuple) else ()
    if (
        not isinstance(shares, tuple)
        or len(numbers) != len(shares)
        or not numbers
        or not all(0 <= n <= LARGE for n in numbers)
        or max(numbers) <= 0
    ):
        names.out.add("E08", "a histogram is a list of numbers of at least 0, not all of them 0", span)
        return None
    return numbers
