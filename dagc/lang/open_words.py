"""The words that leave an attribute to a search."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.schema import ANY
from ..base.syntax import ast


def left_open(value: ast.Expr, constants: Mapping[str, object]) -> bool:
    """`any` or `any(...)`, where no constant has that name."""
    func = value.func if isinstance(value, ast.CallExpr) else value
    return isinstance(func, ast.Name) and func.text == ANY and ANY not in constants
