"""What becomes of the gradients of weights: added up over micro-batches, then new weights by an optimizer."""

from __future__ import annotations

from .attributes import AccumulateAttrs, AdamAttrs, StoreAttrs
from .elementwise import as_operand, per_element
from .kind import OpKind

KINDS = (
    OpKind(
        name="accumulate", about="a weight's gradient added to those of the micro-batches before", attrs=AccumulateAttrs, dims=as_operand,
        flops=per_element(1.0), linear=(0,), fused=True,
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
)  # fmt: skip

STATES = {"adamw": 2, "sgd": 0}
"""Numbers that an optimizer keeps of each parameter, beside its master copy."""
