"""A syntax tree as nested tuples of plain values and back: a tree that ships with dagc is a constant of a module, of which only
what is asked for becomes records."""

from __future__ import annotations

from typing import Any

from ..frozen import fields_of
from ..source import Source, Span
from . import ast

KINDS: tuple[Any, ...] = (
    ast.Number, ast.String, ast.Bool, ast.Name, ast.ListExpr, ast.Range, ast.Unary, ast.Binary, ast.CallExpr, ast.Indexed,
    ast.Comparison, ast.Version, ast.Import, ast.Let, ast.Param, ast.Assign, ast.Bare, ast.Directive, ast.Section, ast.Joining,
    ast.Require, ast.TensorAssign, ast.Return, ast.BlockDef, ast.LayerDef,
)  # fmt: skip
TUPLE, SPAN = -1, -2
"""What begins with one of these, or with the place of a kind in `KINDS`, followed by its span's ends and its other fields."""


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return (TUPLE, *map(plain, value))
    if isinstance(value, Span):
        return (SPAN, value.start, value.end)
    if isinstance(value, ast.Node):
        rest = (plain(getattr(value, name)) for name in fields_of(type(value))[1:])
        return (KINDS.index(type(value)), value.span.start, value.span.end, *rest)
    return value


def restored(value: Any, source: Source) -> Any:
    if type(value) is not tuple:
        return value
    kind = value[0]
    if kind == TUPLE:
        return tuple([restored(v, source) for v in value[1:]])
    span = Span(source, value[1], value[2])
    return span if kind == SPAN else KINDS[kind](span, *[restored(v, source) for v in value[3:]])
