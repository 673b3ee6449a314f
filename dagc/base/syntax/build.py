"""From lark's tree to the records of `ast`."""

from __future__ import annotations

import math
import re
from typing import Any

from ..diagnostics import Collector
from ..source import Source, Span
from . import ast

MAX_NAME = 128
"""Characters of a word, or of a name in quotes."""


class Builder:
    """Turns lark's tree into records. Only leaves are checked here: numbers that overflow."""

    def __init__(self, source: Source, out: Collector, at: int = 0) -> None:
        """`at`: where in the source the text begins that the tree is of."""
        self.source, self.out, self.at, self.length = source, out, at, len(source.text)

    def file(self, tree: Any) -> ast.File:
        statements = tuple(self.statement(node) for node in tree.children if node is not None)
        return ast.File(Span(self.source, 0, len(self.source.text)), statements)

    def span(self, node: Any) -> Span:
        """Of a token or a tree; an empty tree has none and counts as at the start."""
        meta = node if hasattr(node, "start_pos") and not hasattr(node, "children") else node.meta
        start = getattr(meta, "start_pos", 0) or 0
        end = getattr(meta, "end_pos", start) or start
        return Span(self.source, min(start + self.at, self.length), min(end + self.at, self.length))

    def statement(self, node: Any) -> Any:
        return getattr(self, f"on_{node.data}")(node, node.children)

    def word(self, node: Any) -> str:
        return str(node.children[0])

    def string(self, token: Any) -> str:
        return str(token)[1:-1]

    # statements

    def on_version(self, node: Any, c: list[Any]) -> ast.Version:
        text = str(c[1])
        return ast.Version(self.span(node), int(text) if text.isdigit() else -1)

    def on_import_(self, node: Any, c: list[Any]) -> ast.Import:
        return ast.Import(self.span(node), self.string(c[0]))

    def on_let(self, node: Any, c: list[Any]) -> ast.Let:
        return ast.Let(self.span(node), self.word(c[0]), self.expr(c[1]))

    def on_param(self, node: Any, c: list[Any]) -> ast.Param:
        domain = None if c[2] is None else self.expr(c[2])
        return ast.Param(self.span(node), self.word(c[0]), self.expr(c[1]), domain)

    def on_require(self, node: Any, c: list[Any]) -> ast.Require:
        left, right = self.expr(c[1]), self.expr(c[3])
        tolerance = None if c[4] is None else self.expr(c[4])
        span = left.span.to((tolerance or right).span)
        test = ast.Comparison(span, str(c[2]), left, right, tolerance)
        text = " ".join(span.text.split())
        return ast.Require(self.span(node), None if c[0] is None else self.string(c[0]), test, text)

    def on_assign(self, node: Any, c: list[Any]) -> ast.Assign:
        return ast.Assign(self.span(node), self.word(c[0]), self.expr(c[1]), self.span(c[0]))

    def on_bare(self, node: Any, c: list[Any]) -> ast.Bare:
        return ast.Bare(self.span(node), self.word(c[0]))

    def on_directive(self, node: Any, c: list[Any]) -> ast.Directive:
        return ast.Directive(self.span(node), self.word(c[0]), self.word(c[1]), self.expr(c[2]))

    def on_section(self, node: Any, c: list[Any]) -> ast.Section:
        label, preset, body = c[1], c[2], c[3] if len(c) > 3 else None
        name = None
        if label is not None:
            inner = label.children[0]
            name = self.word(inner) if hasattr(inner, "data") else self.string(inner)
            if len(name) > MAX_NAME:
                self.out.add("E01", f"a name of {len(name)} characters is too long", self.span(label))
        from_ = None
        if preset is not None:
            from_ = ast.String(self.span(preset.children[0]), self.string(preset.children[0]))
        return ast.Section(self.span(node), self.word(c[0]), name, from_, self.inside(body), self.span(c[0]))

    def inside(self, body: Any) -> tuple[Any, ...]:
        return () if body is None else tuple(self.statement(s) for s in body.children if s is not None)

    def on_joining(self, node: Any, c: list[Any]) -> ast.Joining:
        left, right = self.word(c[1]), self.word(c[3])
        names = self.span(c[1]), self.span(c[3])
        for name, span in zip((left, right), names, strict=True):
            if len(name) > MAX_NAME:
                self.out.add("E01", f"a name of {len(name)} characters is too long", span)
        return ast.Joining(self.span(node), (left, right), self.inside(c[4]), self.span(c[0]), names)

    def on_block(self, node: Any, c: list[Any]) -> ast.BlockDef:
        params = () if c[1] is None else tuple(self.word(w) for w in c[1].children)
        phase = None if c[2] is None else self.word(c[2].children[0])
        body = tuple(self.statement(s) for s in c[3:] if s is not None)
        return ast.BlockDef(self.span(c[0]), self.word(c[0]), params, phase, body)

    def on_tensor(self, node: Any, c: list[Any]) -> ast.TensorAssign:
        return ast.TensorAssign(self.span(node), self.word(c[0]), self.dims(c[1]), self.expr(c[2]))

    def dims(self, node: Any) -> tuple[str, ...] | None:
        return None if node is None else tuple(self.word(w) for w in node.children)

    def on_return_(self, node: Any, c: list[Any]) -> ast.Return:
        return ast.Return(self.span(node), self.expr(c[0]))

    def on_layer(self, node: Any, c: list[Any]) -> ast.LayerDef:
        return ast.LayerDef(self.span(c[0]), self.word(c[0]), tuple(self.dotted(d) for d in c[1:]))

    # expressions

    def expr(self, node: Any) -> ast.Expr:
        found: ast.Expr = getattr(self, f"at_{node.data}")(node, node.children)
        return found

    def dotted(self, node: Any) -> ast.Name:
        return ast.Name(self.span(node), tuple(self.word(w) for w in node.children))

    def at_number(self, node: Any, c: list[Any]) -> ast.Number:
        match = re.match(r"([0-9_.]+(?:[eE][+-]?[0-9]+)?)[ \t]*(.*)", str(c[0]))
        assert match is not None
        # The lexer takes `2e3`; a lone e after digits begins a unit and is reported as such later.
        value = float(match[1].replace("_", ""))
        if math.isinf(value):
            self.out.add("E01", f"the number {match[1]} is too large", self.span(node))
            value = 1.0
        return ast.Number(self.span(node), value, match[2] or None, match[1])

    def at_string(self, node: Any, c: list[Any]) -> ast.String:
        return ast.String(self.span(node), self.string(c[0]))

    def at_true(self, node: Any, c: list[Any]) -> ast.Bool:
        return ast.Bool(self.span(node), True)

    def at_false(self, node: Any, c: list[Any]) -> ast.Bool:
        return ast.Bool(self.span(node), False)

    def at_name(self, node: Any, c: list[Any]) -> ast.Name:
        return self.dotted(c[0])

    def at_indexed(self, node: Any, c: list[Any]) -> ast.Indexed:
        return ast.Indexed(self.span(node), self.word(c[0]), self.dims(c[1]) or ())

    def at_call(self, node: Any, c: list[Any]) -> ast.CallExpr:
        args = [a for a in c[1:] if a is not None]
        positional = tuple(self.expr(a) for a in args if a.data != "keyword")
        keywords = tuple((self.word(a.children[0]), self.expr(a.children[1])) for a in args if a.data == "keyword")
        return ast.CallExpr(self.span(node), self.dotted(c[0]), positional, keywords)

    def at_list(self, node: Any, c: list[Any]) -> ast.ListExpr:
        return ast.ListExpr(self.span(node), tuple(self.expr(i) for i in c if i is not None))

    def at_range(self, node: Any, c: list[Any]) -> ast.Range:
        return ast.Range(self.span(node), self.expr(c[0]), self.expr(c[1]))

    def at_negate(self, node: Any, c: list[Any]) -> ast.Unary:
        return ast.Unary(self.span(node), "-", self.expr(c[0]))

    def _binary(self, node: Any, op: str) -> ast.Binary:
        """Left-nested chains are built in a loop: `a + a + ...` of any length must not exhaust the stack."""
        chain = [node]
        names = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
        kinds = {v: k for k, v in names.items()}
        while getattr(chain[-1].children[0], "data", "") in kinds:
            chain.append(chain[-1].children[0])
        left = self.expr(chain[-1].children[0])
        for part in reversed(chain):
            left = ast.Binary(self.span(part), kinds[part.data], left, self.expr(part.children[1]))
        assert isinstance(left, ast.Binary)
        return left

    def at_add(self, node: Any, c: list[Any]) -> ast.Binary:
        return self._binary(node, "+")

    def at_subtract(self, node: Any, c: list[Any]) -> ast.Binary:
        return self._binary(node, "-")

    def at_multiply(self, node: Any, c: list[Any]) -> ast.Binary:
        return self._binary(node, "*")

    def at_divide(self, node: Any, c: list[Any]) -> ast.Binary:
        return self._binary(node, "/")
