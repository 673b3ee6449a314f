"""What becomes of the gradients of weights: added up over micro-batches, then new weights by an optimizer."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from ..sharding import Sharding
from .attributes.training import AccumulateAttrs, AdamAttrs, FetchAttrs, QuantiseAttrs, StoreAttrs
from .elementwise import as_operand, per_element
from .kind import AS_OPERAND, Misfit, OpKind, listed, operands
from .sizes import by_loops


def _as_stored(segment: Segment, op: Op) -> None:
    """The dims of the gradient; a shared table's may be in the order of the layer that owns it."""
    (gradient,) = operands(segment, op, "gradient")
    if sorted(op.dims) != sorted(gradient):
        raise Misfit("result", listed(op.dims), f"the dims of {listed(gradient)}")


def _of_this_copy(segment: Segment, op: Op) -> Sharding:
    """Split as the loops are; of a table with a copy on two stages a part of the sum."""
    return Sharding(by_loops(op, op.dims), op.of(AccumulateAttrs).over, "sum", op.on)


def _stored(segment: Segment, op: Op) -> None:
    as_operand(segment, op)
    if not op.inputs[0].startswith("@"):
        raise Misfit("operand 1", f"%{op.inputs[0]}", "a weight")


KINDS = (
    OpKind(
        name="accumulate", about="a weight's gradient added to those of the micro-batches before", attrs=AccumulateAttrs, dims=_as_stored,
        flops=per_element(1.0), linear=(0,), makes=_of_this_copy, fused=True,
    ),
    OpKind(
        name="adamw", about="new weight by AdamW, from its gradient and the states that it keeps", attrs=AdamAttrs, dims=as_operand,
        flops=per_element(14.0),
    ),
    OpKind(
        name="sgd", about="new weight by plain gradient descent", attrs=AdamAttrs, dims=as_operand, flops=per_element(2.0),
    ),
    OpKind(
        name="store", about="a new weight put where the old one was", attrs=StoreAttrs, dims=as_operand, idle="it only keeps", fused=True,
    ),
    OpKind(
        name="quantise", about="what a product reads, in the product's 8 or 4 bits, by rows and by columns", attrs=QuantiseAttrs, dims=as_operand,
        flops=per_element(2.0), on_rows=True,
    ),
    OpKind(
        name="fetch", about="a weight as it is stored, for ranks that gather it before its use", attrs=FetchAttrs, dims=_stored,
        dtype=AS_OPERAND, idle="it only reads", fused=True, local=True, view=True,
    ),
)  # fmt: skip

STATES = {"adamw": 2, "sgd": 0}
"""Numbers that an optimizer keeps of each parameter, beside its master copy."""
