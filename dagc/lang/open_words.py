"""The words that leave an attribute to a search."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.schema.attribute import ANY
from ..base.syntax import ast
from .body import Body

FOLDS = ("attention", "experts")
"""Sections of a phase whose attributes may be left open."""


def leaves_open(body: Body, constants: Mapping[str, object]) -> bool:
    """Whether a section leaves anything open."""
    inside = (b for fold in FOLDS for s in body.sections.get(fold, ()) for b in s.body if isinstance(b, ast.Assign))
    return any(left_open(assign.value, constants) for group in (body.assigns.values(), inside) for assign in group)


def left_open(value: ast.Expr, constants: Mapping[str, object]) -> bool:
    """`any` or `any(...)`, where no constant has that name."""
    func = value.func if isinstance(value, ast.CallExpr) else value
    return isinstance(func, ast.Name) and func.text == ANY and ANY not in constants
