"""Results of an op after its first: the other half of a pair, and what a reduction of the first needs."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.frozen import replace
from ..op import Op, Value
from ..sharding import Sharding
from .attributes.elementwise import DropoutAttrs
from .attributes.experts import RouteAttrs
from .attributes.losses import RowMaxAttrs

MASK = "uint8"
"""Of what a dropout keeps."""
STATISTIC = "fp32"
"""Dtype of statistics of rows, of the largest of several values, and of weights of choices."""


def further_results(op: Op, layout: Sharding | None) -> tuple[Value, ...]:
    """Of a compute op whose first result has this layout. A router has a weight for each choice, a dropout what it keeps; attention over a piece of
    the context the maximum and the sum of each row of scores; the largest over a piece of a dimension its value next to its
    index."""
    if isinstance(op.attrs, RouteAttrs):
        return (Value(f"{op.name}.weights", op.dims, STATISTIC, layout),)
    if isinstance(op.attrs, DropoutAttrs):
        return (Value(f"{op.name}.mask", op.dims, MASK, layout),)
    if layout is None:
        return ()
    if layout.reduce == "softmax":
        rows = Sharding(layout.dims[:-1], layout.partial, "max", layout.on)
        return (
            Value(f"{op.name}.max", op.dims[:-1], STATISTIC, rows),
            Value(f"{op.name}.sum", op.dims[:-1], STATISTIC, replace(rows, reduce="softmax")),
        )
    if layout.reduce != "max" or isinstance(op.attrs, RowMaxAttrs):
        return ()
    return (Value(f"{op.name}.value", op.dims, STATISTIC, layout),)


def moved_results(op: Op, layout: Sharding, operands: Sequence[Value | Op]) -> tuple[Value, ...]:
    """Of a collective or slice whose first result has this layout. A move has a result for each operand, but for the value
    next to an index once nothing is partial; the merge of row sums leaves every rank its share of each row."""
    have = operands[0].sharding
    if op.kind in ("softmax_merge", "softmax_scatter"):
        rows = operands[0]
        return (Value(f"{op.name}.share", rows.dims, STATISTIC, have),) if len(operands) > 2 else ()
    if have is not None and have.reduce == "max" and not layout.partial:
        return ()
    return tuple(Value(f"{op.name}.{_last(v.name)}", v.dims, v.dtype, layout) for v in operands[1:])


def _last(name: str) -> str:
    return name.rpartition(".")[2]
