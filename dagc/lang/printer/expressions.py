"""Expressions as text."""

from __future__ import annotations

from ...base.syntax import ast
from .written import number, value_text

_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}


def expression(e: ast.Expr, outer: int = 0) -> str:
    """An expression with the parentheses it needs, and no more."""
    if isinstance(e, ast.Number):
        return number(e.value, e.unit or "") if e.unit != "%" else f"{number(e.value)}%"
    if isinstance(e, ast.String):
        return f'"{e.value}"'
    if isinstance(e, ast.Bool):
        return value_text(e.value)
    if isinstance(e, ast.Name):
        return e.text
    if isinstance(e, ast.ListExpr):
        return f"[{', '.join(expression(i) for i in e.items)}]"
    if isinstance(e, ast.Range):
        return f"{expression(e.low)}..{expression(e.high)}"
    if isinstance(e, ast.Unary):
        return f"-{expression(e.operand, 3)}"
    if isinstance(e, ast.Indexed):
        return f"{e.name}[{', '.join(e.dims)}]"
    if isinstance(e, ast.CallExpr):
        args = [expression(a) for a in e.args] + [f"{k} = {expression(v)}" for k, v in e.kwargs]
        return f"{e.func.text}({', '.join(args)})"
    strength = _STRENGTH[e.op]
    text = f"{expression(e.left, strength)} {e.op} {expression(e.right, strength + 1)}"
    return f"({text})" if strength < outer else text
