"""Ops that pick: a row of a table, the last token, the largest of a row."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from .kind import DtypeRule, Misfit, OpKind, listed, operands, same_dims
from .norms import per_row


def _looked_up(segment: Segment, op: Op) -> None:
    ids, table = operands(segment, op, "token ids", "table")
    if len(table) != 2:
        raise Misfit("operand 2 (table)", listed(table), "[rows, width]")
    same_dims("result", op.dims, (*ids, table[-1]))


def _last_token(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "value")
    same_dims("result", op.dims, tuple(d for d in value if d != "seq"))


KINDS = (
    OpKind(
        name="lookup", about="a row of a table for every token id", dims=_looked_up,
        dtype=DtypeRule(indices=lambda op: op.inputs[:1]), idle="it only reads", linear=(1,), reads_rows=True,
    ),
    OpKind(
        name="last", about="the last token of every sequence", dims=_last_token, idle="it only picks", linear=(0,), fused=True,
        by_position=True,
    ),
    OpKind(
        name="argmax", about="where each row is largest", dims=per_row, dtype=DtypeRule("int64", lambda segment, op: "int64"),
        idle="comparisons are not counted", reduce="max",
    ),
)  # fmt: skip
