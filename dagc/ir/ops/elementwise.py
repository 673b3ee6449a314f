"""Ops on each element by itself, or on two elements at the same position."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from ..sharding import Axes
from .attributes.elementwise import ClampAttrs, ScaleAttrs, ShiftAttrs
from .kind import AS_OPERAND, IN_RECURRENCE, Count, Misfit, OpKind, listed, operands, same_dims


def as_operand(segment: Segment, op: Op) -> None:
    """The result has the dims of the one operand."""
    (value,) = operands(segment, op, "value")
    same_dims("result", op.dims, value)


def _joined(segment: Segment, op: Op) -> None:
    """The result has every dim of both operands, and no other."""
    first, second = operands(segment, op, "first", "second")
    if set(op.dims) != {*first, *second}:
        raise Misfit("result", listed(op.dims), f"the dims of {listed(first)} and {listed(second)}")


def _renamed(segment: Segment, op: Op) -> None:
    """As many dims of the same sizes, in order."""
    (value,) = operands(segment, op, "value")
    if [segment.size(d, op.scope) for d in value] != [segment.size(d, op.scope) for d in op.dims]:
        raise Misfit("result", listed(op.dims), f"dims of the sizes of {listed(value)}")


def _other_names(segment: Segment, op: Op) -> set[str]:
    """What has another name before is split in another way."""
    return {d for pair in zip(segment.dims_of(op.inputs[0]), op.dims, strict=True) if len(set(pair)) > 1 for d in pair}


def _place_by_place(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    return tuple(op.loop(d) for d in op.dims)


def per_element(count: float) -> Count:
    def flops(segment: Segment, op: Op) -> float:
        return count * segment.count(op.dims, op.scope)

    return flops


ACTIVATIONS = {
    "silu": 4.0,
    "gelu": 8.0,
    "gelu_tanh": 8.0,
    "relu": 1.0,
    "sigmoid": 3.0,
    "tanh": 3.0,
    "softplus": 3.0,
    "exp": 1.0,
}
"""Element-wise functions of the language, with their FLOPs per element: small integers, kept for conservation checks."""

KINDS = (
    OpKind(
        name="multiply", about="product of two tensors, element by element", dims=_joined, flops=per_element(1.0), linear=(0, 1),
        fused=True, rides_in=IN_RECURRENCE, on_rows=True,
    ),
    OpKind(
        name="add", about="sum of two tensors, element by element", dims=_joined, flops=per_element(1.0), linear=(0, 1), jointly=True,
        fused=True, rides_in=IN_RECURRENCE, on_rows=True,
    ),
    OpKind(
        name="scale", about="times a number", attrs=ScaleAttrs, dims=as_operand, flops=per_element(1.0), linear=(0,), fused=True,
        rides_in=IN_RECURRENCE, on_rows=True,
    ),
    OpKind(
        name="shift", about="plus a number", attrs=ShiftAttrs, dims=as_operand, flops=per_element(1.0), fused=True,
        rides_in=IN_RECURRENCE, on_rows=True,
    ),
    OpKind(
        name="clamp", about="bounded below and above", attrs=ClampAttrs, dims=as_operand, flops=per_element(2.0), fused=True,
        rides_in=IN_RECURRENCE, on_rows=True,
    ),
    OpKind(
        name="rename", about="the same numbers, a dimension under another name", dims=_renamed, dtype=AS_OPERAND, idle="it is a view",
        needs=_place_by_place, linear=(0,), whole=_other_names, local=True, fused=True, view=True,
    ),
    OpKind(
        name="rsqrt", about="one over the square root", dims=as_operand, flops=per_element(2.0), fused=True, rides_in=IN_RECURRENCE,
        on_rows=True,
    ),
    *(
        OpKind(
            name=name, about=f"activation {name}", dims=as_operand, flops=per_element(count), fused=True, rides_in=IN_RECURRENCE,
            on_rows=True,
        )
        for name, count in ACTIVATIONS.items()
    ),
)  # fmt: skip
