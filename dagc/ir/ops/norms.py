"""Norms over the last dimension, and the sums of a row that they read where that dimension is split."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from .attributes.elementwise import NormAttrs
from .contraction import multiply_adds
from .elementwise import per_element
from .kind import IN_EXPERTS, ROW_SUMS, DimsRule, Fuse, Misfit, OpKind, RowSum, listed, operands, same_dims


def gain_grad(norm: str) -> str:
    """The kind of op that is the gradient of a norm's gain."""
    return f"{norm}_gain_grad"


def _normed(sums: int) -> DimsRule:
    """The value, its gain where it has one, and so many sums of each row where its width is split and the sums are ops of
    their own."""

    def rule(segment: Segment, op: Op) -> None:
        gain = ["gain"] if len(op.inputs) > 1 and segment.is_weight(op.inputs[1]) else []
        apart = op.sharding is not None or len(op.inputs) > 1 + len(gain)
        read = sums if apart and op.loop(op.dims[-1]) else 0
        operand_dims = operands(segment, op, "value", *gain, *["sums of each row"] * read)
        same_dims("result", op.dims, operand_dims[0])
        if gain:
            same_dims("operand 2 (gain)", operand_dims[1], op.dims[-1:])
        for i, dims in enumerate(operand_dims[1 + len(gain) :], start=2 + len(gain)):
            same_dims(f"operand {i} (sums of each row)", dims, op.dims[:-1])

    return rule


def per_row(segment: Segment, op: Op) -> None:
    """One number for each row of the operand."""
    (value,) = operands(segment, op, "value")
    same_dims("result", op.dims, value[:-1])


def dotted(segment: Segment, op: Op) -> None:
    """One number for each row of the first operand; the others have its last dim. Raises Misfit."""
    if not 1 <= len(op.inputs) <= 3:
        raise Misfit("operands", len(op.inputs), "one to three")
    value, *others = map(segment.dims_of, op.inputs)
    same_dims("result", op.dims, value[:-1])
    for dims in others:
        if dims[-1:] != value[-1:] or not set(dims) <= set(value):
            raise Misfit("factor", listed(dims), f"dims of {listed(value)}, the last one too")


KINDS = (
    OpKind(
        name="rms_norm", about="divided by the root of the mean square", attrs=NormAttrs, dims=_normed(1), flops=per_element(4.0),
        row_sums=(RowSum("row_square_sum"),), rides_in=frozenset(Fuse), on_rows=True,
    ),
    OpKind(
        name="layer_norm", about="less the mean, divided by the standard deviation", attrs=NormAttrs, dims=_normed(2),
        flops=per_element(6.0), row_sums=(RowSum("row_square_sum"), RowSum("row_sum")), rides_in=IN_EXPERTS | {Fuse.SPARSE}, on_rows=True,
    ),
    OpKind(
        name="row_sum", about="sum of each row", dims=per_row, dtype=ROW_SUMS, flops=multiply_adds, rides_in=IN_EXPERTS,
        on_rows=True,
    ),
    OpKind(
        name="row_square_sum", about="sum of the squares of each row", dims=per_row, dtype=ROW_SUMS, flops=multiply_adds,
        rides_in=IN_EXPERTS, on_rows=True,
    ),
)  # fmt: skip
