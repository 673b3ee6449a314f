"""Dropout: numbers put to nothing at random, the others scaled so that the mean stays; a mask of a byte each is kept for the gradient."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from .attributes.elementwise import DropoutAttrs, DropoutGradAttrs
from .elementwise import as_operand, per_element
from .kind import DtypeRule, OpKind, operands, same_dims


def _masked(segment: Segment, op: Op) -> None:
    upstream, mask = operands(segment, op, "upstream", "mask")
    same_dims("operand 2 (mask)", mask, upstream)
    same_dims("result", op.dims, upstream)


def _mask(op: Op) -> tuple[str, ...]:
    return op.inputs[1:2]


KINDS = (
    OpKind(
        name="dropout", about="some numbers put to nothing, the others scaled", attrs=DropoutAttrs, dims=as_operand, flops=per_element(2.0),
        fused=True, by_position=True,
    ),
    OpKind(
        name="dropout_grad", about="gradient through dropout, by its mask", attrs=DropoutGradAttrs, dims=_masked, dtype=DtypeRule(indices=_mask),
        flops=per_element(2.0), fused=True, gradient_of="dropout",
    ),
)  # fmt: skip
