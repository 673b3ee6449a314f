"""Values of expressions, with units checked. Errors go to the collector with their span; the value is then None."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...base.diagnostics import Collector, Label
from ...base.syntax import ast
from ...base.units import (
    BYTE_RATE,
    BYTES,
    SCALAR,
    TIME,
    TOKEN_RATE,
    TOKENS,
    UNITS,
    DimensionError,
    Quantity,
    dim_words,
    meant_unit,
)
from ...spec.model import AttrValue

Value = AttrValue | tuple["Value", ...] | range
"""A range of whole numbers stays one where an attribute has whole numbers alone (`whole_range`)."""
Env = Callable[[ast.Name | ast.CallExpr], Value | None]
"""Resolves a name or call. It reports an unknown name itself and returns None."""

DEFAULT_TOLERANCE = 0.05
MAX_ITEMS = 1_000_000
"""Of a list or a range: the ids of the largest pool of GPUs."""


def evaluate(expr: ast.Expr, env: Env, out: Collector) -> Value | None:
    """Value of an expression in SI units: Quantity, text, flag, or a tuple for a list or range."""
    if not out.step(1, expr.span):
        return None
    if isinstance(expr, ast.Number):
        return number(expr, out)
    if isinstance(expr, (ast.String, ast.Bool)):
        return expr.value
    if isinstance(expr, (ast.Name, ast.CallExpr)):
        return env(expr)
    if isinstance(expr, ast.ListExpr):
        return _list(expr, env, out)
    if isinstance(expr, ast.Range):
        return _range(expr, env, out)
    if isinstance(expr, ast.Unary):
        value = quantity(expr.operand, env, out)
        return None if value is None else -value
    if isinstance(expr, ast.Binary):
        return _binary(expr, env, out)
    out.add("E08", f"a tensor `{expr.name}` has no value here", expr.span)
    return None


def number(expr: ast.Number, out: Collector) -> Quantity | None:
    """A literal in SI base units."""
    if expr.text and math.isinf(float(expr.text.replace("_", ""))):
        return None  # told where it was read
    if expr.unit is None:
        return Quantity(expr.value)
    if expr.unit not in UNITS:
        meant = meant_unit(expr.unit)
        hint = (
            f"did you mean {meant}?"
            if meant
            else "`dagc list units` shows all: s ms, B GB GiB, bit/s B/s, FLOP/s, tok tok/s, %"
        )
        comma = () if meant else ("if this is a name, a comma or newline is missing before it",)
        out.add("E02", f"unknown unit `{expr.unit}`", expr.span, help=(hint, *comma))
        return None
    factor, dim = UNITS[expr.unit]
    value = expr.value * factor
    if not math.isfinite(value):
        out.add("E01", f"the number {expr.span.text} is too large", expr.span)
        return None
    return Quantity(value, dim)


def quantity(expr: ast.Expr, env: Env, out: Collector) -> Quantity | None:
    """Like evaluate, but a number is required."""
    value = evaluate(expr, env, out)
    if value is None or isinstance(value, Quantity):
        return value
    if isinstance(expr, ast.Name) and value == expr.text:  # a bare word, where words are allowed
        out.add("E02", f"unknown name `{expr.text}`", expr.span)
    else:
        out.add("E08", f"a number was expected, found {kind_of(value)}", expr.span)
    return None


def kind_of(value: Value) -> str:
    """What a value is, in words."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return f"the word `{value}`"
    return "a list" if isinstance(value, (tuple, range)) else dim_words(value.dim)


def shown(value: Value) -> str:
    """A value as a user would write it."""
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return (
        f"{value.value:g}"
        if isinstance(value, Quantity)
        else str(value).lower()
        if value is True or value is False
        else value
    )


def _binary(expr: ast.Binary, env: Env, out: Collector) -> Quantity | None:
    chain = [expr]
    while isinstance(chain[-1].left, ast.Binary):
        chain.append(chain[-1].left)
    left = quantity(chain[-1].left, env, out)
    for part in reversed(chain):
        right = quantity(part.right, env, out)
        left = None if left is None or right is None else _apply(part, left, right, out)
    return left


def _apply(expr: ast.Binary, left: Quantity, right: Quantity, out: Collector) -> Quantity | None:
    try:
        if expr.op == "/" and right.value == 0:
            out.add("E09", "division by zero", expr.span)
            return None
        result = {
            "+": Quantity.__add__,
            "-": Quantity.__sub__,
            "*": Quantity.__mul__,
            "/": Quantity.__truediv__,
        }[expr.op](left, right)
    except DimensionError as error:
        out.add("E08", str(error), expr.span)
        return None
    if not math.isfinite(result.value):
        out.add("E09", "the result is not a finite number", expr.span)
        return None
    return result


def _list(expr: ast.ListExpr, env: Env, out: Collector) -> tuple[Value, ...] | None:
    values: list[Value] = []
    for item in expr.items:
        value = evaluate(item, env, out)
        if value is None:
            return None
        if isinstance(item, ast.Range) and isinstance(value, tuple):
            values.extend(value)
        else:
            values.append(value)
        if len(values) > MAX_ITEMS:
            out.add("E09", f"a list has more than {MAX_ITEMS:,} items", expr.span)
            return None
    return tuple(values)


def _range(expr: ast.Range, env: Env, out: Collector) -> tuple[Value, ...] | None:
    found = whole_range(expr, env, out)
    return None if found is None else tuple(map(Quantity, map(float, found)))


def _with_unit(side: ast.Expr, whole: ast.Range) -> str:
    """A number of a range as it would stand alone, with the unit of the other where it has none."""
    units = [each.unit for each in (side, whole.high, whole.low) if isinstance(each, ast.Number) and each.unit]
    return " ".join([f"{side.value:g}", *units[:1]]) if isinstance(side, ast.Number) else ""


def whole_range(expr: ast.Range, env: Env, out: Collector) -> range | None:
    """The numbers of a range: of a million GPUs nobody needs them one by one."""
    low, high = quantity(expr.low, env, out), quantity(expr.high, env, out)
    if low is None or high is None:
        return None
    if low.dim != SCALAR or high.dim != SCALAR or low.value != int(low.value) or high.value != int(high.value):
        low_text, high_text = (_with_unit(side, expr) for side in (expr.low, expr.high))
        help_ = (f"a list has each value: `[{low_text}, {high_text}]`",) if low_text and high_text else ()
        out.add("E08", "a range consists of whole numbers", expr.span, help=help_)
        return None
    if high.value < low.value or high.value - low.value >= MAX_ITEMS:
        shown = f"{low.value:.6g}..{high.value:.6g}"
        out.add("E09", f"the range {shown} is {'empty' if high.value < low.value else 'too long'}", expr.span)
        return None
    if not out.step(int(high.value - low.value), expr.span):
        return None
    return range(int(low.value), int(high.value) + 1)


def compare(test: ast.Comparison, env: Env, out: Collector) -> tuple[Quantity, Quantity, bool] | None:
    """(left, right, holds). `~` holds within 5% of the right side, or within the tolerance given."""
    left, right = quantity(test.left, env, out), quantity(test.right, env, out)
    tolerance = None if test.tolerance is None else quantity(test.tolerance, env, out)
    if left is None or right is None or (test.tolerance is not None and tolerance is None):
        return None
    if left.dim != right.dim and not _bare_zero(test.left) and not _bare_zero(test.right):
        message = f"`{test.op}` compares {dim_words(left.dim)} with {dim_words(right.dim)}"
        also = (Label(test.left.span, dim_words(left.dim)),)
        out.add(
            "E08", message, test.right.span, dim_words(right.dim), also=also, help=_bound_help(left, right, test.right)
        )
        return None
    return left, right, holds(test.op, left.value, right, tolerance)


_USUAL = {TIME: "ms", BYTES: "GB", BYTE_RATE: "GB/s", TOKENS: "tok", TOKEN_RATE: "tok/s"}


def _bound_help(left: Quantity, right: Quantity, bound: ast.Expr) -> tuple[str, ...]:
    """A bound that lacks its unit, or a percentage of nothing."""
    if not isinstance(bound, ast.Number) or right.dim != SCALAR or left.dim == SCALAR:
        return ()
    if bound.unit == "%":
        whole = "hardware.memory" if left.dim == BYTES else "..."
        return (f"a percentage is of something: `{bound.span.text} * {whole}`",)
    return (f"write the unit: `{bound.span.text} {_USUAL[left.dim]}`",) if left.dim in _USUAL and not bound.unit else ()


def _bare_zero(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Number) and expr.value == 0 and expr.unit is None


def holds(op: str, left: float, bound: Quantity, tolerance: Quantity | None) -> bool:
    """Does the comparison hold? Both sides in the same units."""
    right = bound.value
    if op == "~":
        margin = abs(right) * DEFAULT_TOLERANCE
        if tolerance is not None:
            margin = (
                tolerance.value
                if tolerance.dim != SCALAR and tolerance.dim == bound.dim
                else abs(right) * tolerance.value
            )
        return abs(left - right) <= margin
    close = math.isclose(left, right, rel_tol=1e-12, abs_tol=0.0)
    return {"<=": left <= right or close, ">=": left >= right or close, "<": left < right and not close,
            ">": left > right and not close, "==": close}[op]  # fmt: skip


def names_in(node: ast.Expr | ast.Comparison | None) -> list[ast.Name]:
    """Every dotted name in an expression."""
    names: list[ast.Name] = []
    stack: list[ast.Expr | ast.Comparison | None] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.Name):
            names.append(item)
        elif isinstance(item, ast.Comparison):
            stack += [item.tolerance, item.right, item.left]
        elif isinstance(item, ast.Binary):
            stack += [item.right, item.left]
        elif isinstance(item, ast.Unary):
            stack.append(item.operand)
        elif isinstance(item, ast.ListExpr):
            stack += item.items[::-1]
        elif isinstance(item, ast.Range):
            stack += [item.high, item.low]
        elif isinstance(item, ast.CallExpr):
            stack.append(item.func)
    return names
