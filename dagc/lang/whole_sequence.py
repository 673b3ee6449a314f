"""Heads that look at every position instead of the last one."""

from __future__ import annotations

from collections.abc import Callable

from ..base.frozen import replace
from ..base.syntax import ast
from ..spec.model import Model


def every_position(model: Model) -> Model:
    """The model with a head that does not pick the last token, so that logits of all positions are computed."""
    head = model.stack[-1].blocks
    blocks = {key: whole_sequence(b) if key[0] in head else b for key, b in model.blocks.items()}
    return replace(model, blocks=blocks)


def whole_sequence(block: ast.BlockDef) -> ast.BlockDef:
    """The block without `last`; what it computed for one token of a sequence has dimension `seq` now."""

    def without_last(node: ast.Expr) -> ast.Expr:
        if isinstance(node, ast.CallExpr) and node.func.text == "last":
            return node.args[0]
        return _rebuilt(node, without_last)

    body: list[ast.TensorAssign | ast.Let | ast.Return] = []
    for s in block.body:
        s = replace(s, value=without_last(s.value))
        if isinstance(s, ast.TensorAssign) and s.dims is not None and "batch" in s.dims and "seq" not in s.dims:
            at = s.dims.index("batch") + 1
            s = replace(s, dims=(*s.dims[:at], "seq", *s.dims[at:]))
        body.append(s)
    return replace(block, body=tuple(body))


def _rebuilt(node: ast.Expr, change: Callable[[ast.Expr], ast.Expr]) -> ast.Expr:
    """The node with its operands changed."""
    if isinstance(node, ast.CallExpr):
        kwargs = tuple((key, change(value)) for key, value in node.kwargs)
        return replace(node, args=tuple(map(change, node.args)), kwargs=kwargs)
    if isinstance(node, ast.Binary):
        return replace(node, left=change(node.left), right=change(node.right))
    return replace(node, operand=change(node.operand)) if isinstance(node, ast.Unary) else node
