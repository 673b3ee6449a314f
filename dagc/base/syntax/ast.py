"""The syntax tree of a `.moe` file: what was written, before any name or unit is resolved.

Spans never take part in comparison, so two texts that differ only in layout give equal trees.
"""

from __future__ import annotations

from ..frozen import field, record
from ..source import Span


@record
class Node:
    """What was written at a place of the text."""

    span: Span = field(compare=False, repr=False)


# -- expressions ---------------------------------------------------------------------------------


@record
class Number(Node):
    """`10_240 tok`, `60%`, `1.8 TB/s`. `value` is the bare number, `unit` the unit as written, or None."""

    value: float
    unit: str | None = None
    text: str = field(default="", compare=False)  # the number as written, without the unit


@record
class String(Node):
    """`"h200-sxm"`, without its quotes."""

    value: str


@record
class Bool(Node):
    """`true` or `false`."""

    value: bool


@record
class Name(Node):
    """A dotted name: `prefill.memory.peak` has three parts."""

    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        return ".".join(self.parts)


@record
class ListExpr(Node):
    """`[1, 2, 0..7]`."""

    items: tuple[Expr, ...]


@record
class Range(Node):
    """`0..63`, both ends included."""

    low: Expr
    high: Expr


@record
class Unary(Node):
    """`-x`."""

    op: str  # "-"
    operand: Expr


@record
class Binary(Node):
    """`left op right`."""

    op: str  # + - * /
    left: Expr
    right: Expr


@record
class CallExpr(Node):
    """`attend(rope(q), k, v, causal = true)`; also `prefill.gpu(dp = 7)` in a requirement."""

    func: Name
    args: tuple[Expr, ...]
    kwargs: tuple[tuple[str, Expr], ...]


@record
class Indexed(Node):
    """`Wq[hidden, kv_heads]`: a tensor with its named dimensions."""

    name: str
    dims: tuple[str, ...]


Expr = Number | String | Bool | Name | ListExpr | Range | Unary | Binary | CallExpr | Indexed


@record
class Comparison(Node):
    """`left op right`; op is one of <= >= < > == ~; `tolerance` only with `~` (`+- 2%`)."""

    op: str
    left: Expr
    right: Expr
    tolerance: Expr | None = None


# -- statements ----------------------------------------------------------------------------------


@record
class Version(Node):
    """`moe 1`."""

    number: int


@record
class Import(Node):
    """`import "FILE"`."""

    path: str


@record
class Let(Node):
    """`let name = value`."""

    name: str
    value: Expr


@record
class Param(Node):
    """`param replicas = 8 in [1, 2, 4, 8]`; `domain` is a ListExpr or Range, or None."""

    name: str
    default: Expr
    domain: Expr | None


@record
class Assign(Node):
    """`name = value`. `name_span` covers the name only."""

    name: str
    value: Expr
    name_span: Span = field(compare=False, repr=False)


@record
class Bare(Node):
    """A name alone: `attention { dp, tp }`, `layer dense { gqa, mlp }`."""

    name: str


@record
class Directive(Node):
    """Two names and a value: `place gpu = dp * 16 + ep`."""

    keyword: str
    name: str
    value: Expr


@record
class Section(Node):
    """`kind [name] [from "preset"] { body }`. `kind_span` covers the first word."""

    kind: str
    name: str | None
    preset: String | None
    body: tuple[Statement, ...]
    kind_span: Span = field(compare=False, repr=False)


@record
class Joining(Node):
    """`link A to B { body }`. `kind_span` covers the first word; `name_spans` the two names."""

    names: tuple[str, str]
    body: tuple[Statement, ...]
    kind_span: Span = field(compare=False, repr=False)
    name_spans: tuple[Span, Span] = field(compare=False, repr=False)


@record
class Require(Node):
    """`require "label" left op right`. `text` is the comparison as written, whitespace normalised."""

    label: str | None
    test: Comparison
    text: str = field(compare=False)


@record
class TensorAssign(Node):
    """`q[batch, seq, heads] = ...` inside a block; dims is None when none were written."""

    name: str
    dims: tuple[str, ...] | None
    value: Expr


@record
class Return(Node):
    """`return value`, at the end of a block."""

    value: Expr


@record
class BlockDef(Node):
    """`block mla(x) in decode { ... }`; `phase` is None for the body that serves every other phase kind."""

    name: str
    params: tuple[str, ...]
    phase: str | None
    body: tuple[TensorAssign | Let | Return, ...]


@record
class LayerDef(Node):
    """`layer sparse { gqa, moe }`: block names in order."""

    name: str
    blocks: tuple[Name, ...]


Statement = (
    Version | Import | Let | Param | Assign | Bare | Directive | Section | Joining | Require | BlockDef | LayerDef
)


@record
class File(Node):
    """The statements of a file."""

    statements: tuple[Statement, ...]
