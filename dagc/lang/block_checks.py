"""What a block's text mentions, and whether its text can be expanded at all."""

from __future__ import annotations

from collections.abc import Iterator

from ..base.by_identity import ByIdentity
from ..base.diagnostics import Collector, did_you_mean
from ..base.phase_kinds import PHASE_KINDS
from ..base.syntax import ast
from .values.evaluate import number

MAX_TERMS = 200
MAX_STATEMENTS = 500
"""Operators of one expression in a block; expansion recurses over them."""

KINDS = tuple(PHASE_KINDS)


def walk(block: ast.BlockDef) -> Iterator[ast.Node]:
    """Every statement and expression of a block."""
    for statement in block.body:
        yield statement
        yield from walk_expression(statement.value)


def walk_expression(expr: ast.Expr) -> Iterator[ast.Expr]:
    stack: list[ast.Expr] = [expr]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.CallExpr):
            stack += [*node.args, *(v for _, v in node.kwargs)]
        elif isinstance(node, ast.Binary):
            stack += [node.right, node.left]
        elif isinstance(node, ast.Unary):
            stack.append(node.operand)
        elif isinstance(node, ast.ListExpr):
            stack += node.items


def mentioned(block: ast.BlockDef) -> frozenset[str]:
    """Every name and dimension in a block's text."""
    return _kept_words(block)[1]


def dims_of(block: ast.BlockDef) -> frozenset[str]:
    """Every dimension that a tensor or weight of the block is written with."""
    return _kept_words(block)[0]


def _words(block: ast.BlockDef) -> tuple[frozenset[str], frozenset[str]]:
    """Dimensions, and all words."""
    dims: set[str] = set()
    names: set[str] = set()
    for node in walk(block):
        if isinstance(node, (ast.TensorAssign, ast.Indexed)):
            dims |= set(node.dims or ())
        elif isinstance(node, ast.Name):
            names |= {node.text, node.parts[-1]}
    return frozenset(dims), frozenset(dims | names)


_kept_words = ByIdentity(_words, most=256)
"""Blocks of the library are asked for with every text."""


def check_block(block: ast.BlockDef, out: Collector) -> None:
    """Arguments that differ, a known phase kind, known units, expressions of sane length, and a result."""
    if not block.params:
        out.add("E13", f"block `{block.name}` takes no tensor", block.span, help=("block NAME(x)",))
    if twice := next((name for i, name in enumerate(block.params) if name in block.params[:i]), None):
        out.add("E11", f"block `{block.name}` takes `{twice}` twice", block.span)
    read = {
        n.text if isinstance(n, ast.Name) else n.name for n in walk(block) if isinstance(n, (ast.Name, ast.Indexed))
    }
    if unread := next((name for name in block.params[1:] if name not in read), None):
        out.add("E13", f"block `{block.name}` takes `{unread}` and does not read it", block.span, help=("take it out",))
    if block.phase is not None and block.phase not in KINDS:
        near = did_you_mean(block.phase, KINDS)
        hint = f"did you mean `in {near}`?" if near else "a body is for `in prefill` or `in decode`"
        out.add(
            "E02", f"block `{block.name}` is for an unknown kind of phase `{block.phase}`", block.span, help=(hint,)
        )
    if not any(isinstance(s, ast.Return) for s in block.body):
        out.add("E13", f"block `{block.name}` has no `return`", block.span)
    if len(block.body) > MAX_STATEMENTS:
        message = f"block `{block.name}` has more than {MAX_STATEMENTS} statements"
        out.add("E13", message, block.span, help=("a layer may have several blocks",))
        return
    for statement in block.body:
        nodes = list(walk_expression(statement.value))
        if len(nodes) > MAX_TERMS:
            out.add(
                "E13",
                f"an expression has more than {MAX_TERMS} terms",
                statement.span,
                help=("give parts of it names",),
            )
        for node in nodes:
            if isinstance(node, ast.Number):
                number(node, out)
