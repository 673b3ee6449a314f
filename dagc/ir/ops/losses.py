"""The loss of a training step: cross entropy of every token, over a vocabulary that ranks may share without gathering it."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from .attributes.losses import LabelsAttrs, LossAttrs, RowMaxAttrs
from .contraction import multiply_adds
from .elementwise import per_element
from .kind import ROW_SUMS, DtypeRule, OpKind, operands, same_dims
from .norms import per_row


def _given(segment: Segment, op: Op) -> None:
    operands(segment, op)
    same_dims("result", op.dims, ("batch", "seq"))


def _less_the_largest(segment: Segment, op: Op) -> None:
    logits, largest = operands(segment, op, "logits", "largest of each row")
    same_dims("operand 2 (largest of each row)", largest, logits[:-1])
    same_dims("result", op.dims, logits[:-1])


def _picked(segment: Segment, op: Op) -> None:
    logits, labels = operands(segment, op, "logits", "labels")
    same_dims("operand 2 (labels)", labels, logits[:-1])
    same_dims("result", op.dims, logits[:-1])


def _loss(segment: Segment, op: Op) -> None:
    for dims in operands(segment, op, "largest of each row", "sum of each row", "picked"):
        same_dims("operand", dims, op.dims)


def _loss_back(segment: Segment, op: Op) -> None:
    logits, *rows = operands(segment, op, "logits", "labels", "largest of each row", "sum of each row")
    same_dims("result", op.dims, logits)
    for dims in rows:
        same_dims("operand", dims, logits[:-1])


def _second(op: Op) -> tuple[str, ...]:
    return op.inputs[1:2]


def _exponentials(segment: Segment, op: Op) -> float:
    """Of each number: the difference, its exponential (one) and its place in the sum."""
    return 1.5 * multiply_adds(segment, op)


KINDS = (
    OpKind(
        name="labels", about="a token that follows each, from the data", attrs=LabelsAttrs, dims=_given, dtype=DtypeRule("int32", lambda s, op: "int32"),
        idle="it is read", fused=True,
    ),
    OpKind(
        name="row_max", about="largest number of each row", attrs=RowMaxAttrs, dims=per_row, dtype=ROW_SUMS,
        idle="comparisons are not counted", reduce="max",
    ),
    OpKind(
        name="row_exp_sum", about="sum of the exponentials of each row, less its largest number", dims=_less_the_largest, dtype=ROW_SUMS,
        flops=_exponentials,
    ),
    OpKind(
        name="pick", about="of each row the number that its label names", dims=_picked,
        dtype=DtypeRule("fp32", lambda s, op: "fp32", indices=_second), idle="it only picks",
    ),
    OpKind(
        name="cross_entropy", about="loss of each token: how unlikely its label was", attrs=LossAttrs, dims=_loss, dtype=ROW_SUMS,
        flops=per_element(3.0), fused=True,
    ),
    OpKind(
        name="cross_entropy_grad", about="gradient of the logits: their softmax, less one at the label", attrs=LossAttrs, dims=_loss_back,
        dtype=DtypeRule(indices=_second), flops=per_element(4.0), gradient_of="cross_entropy",
    ),
)  # fmt: skip
