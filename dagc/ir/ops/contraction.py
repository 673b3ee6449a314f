"""Products of two tensors summed over the dims that the result does not have."""

from __future__ import annotations

from math import prod

from ..op import Op
from ..segment import Segment
from .kind import IN_RECURRENCE, Misfit, OpKind, listed, operands
from .sizes import loop_dims


def multiply_adds(segment: Segment, op: Op) -> float:
    """2 FLOPs per multiply-add over the whole iteration space; a pure product counts one."""
    dims = loop_dims(segment, op)
    total = prod(segment.size(d, op.scope) for d in dims)
    return total * (2.0 if len(dims) > len(op.dims) else 1.0)


def _within(segment: Segment, op: Op) -> None:
    first, second = operands(segment, op, "first", "second")
    if not set(op.dims) <= {*first, *second}:
        raise Misfit("result", listed(op.dims), f"dims of {listed(first)} and {listed(second)}")


KINDS = (
    OpKind(
        name="contract", about="matrix product over named dimensions", dims=_within, flops=multiply_adds, linear=(0, 1),
        uses_tensor_cores=True, rides_in=IN_RECURRENCE, on_rows=True, product=True,
    ),
)  # fmt: skip
