"""Ops that take the tokens of a sequence one after another, and remember a state of fixed size."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from .attributes.recurrent import DeltaAttrs
from .contraction import multiply_adds
from .kind import Dims, Misfit, OpKind, Tokens, listed, operands, same_dims


def _convolved(segment: Segment, op: Op) -> None:
    value, taps = operands(segment, op, "value", "taps")
    same_dims("result", op.dims, value)
    if set(taps) - set(op.dims) != {taps[-1]}:
        raise Misfit("operand 2 (taps)", listed(taps), f"channels of {listed(op.dims)}, then the taps")


def _taps(segment: Segment, op: Op) -> set[str]:
    return {segment.dims_of(op.inputs[1])[-1]}


def _last_inputs(segment: Segment, op: Op) -> tuple[Dims, str]:
    taps = segment.dims_of(op.inputs[1])[-1]
    return ("batch", taps, *(d for d in op.dims if d not in ("batch", "seq"))), op.dtype


def _delta(segment: Segment, op: Op) -> None:
    operand_dims = operands(segment, op, "queries", "keys", "values", "decay", "rate")
    queries, keys, values = operand_dims[:3]
    same_dims("result", op.dims, values)
    same_dims("width of operand 2 (keys)", keys[-1:], queries[-1:])
    heads = set(op.dims[:-1])
    for name, dims in zip(("queries", "keys"), (queries, keys), strict=True):
        if not set(dims[:-1]) <= heads:
            raise Misfit(name, listed(dims), f"rows of {listed(op.dims[:-1])}")
    decay, rate = operand_dims[3:]
    if not set(decay) <= heads | {keys[-1]} or (keys[-1] in decay and decay[-1] != keys[-1]):
        raise Misfit("decay", listed(decay), f"dims of {listed(op.dims[:-1])}, or these and {keys[-1]}")
    if not set(rate) <= heads:
        raise Misfit("rate", listed(rate), f"dims of {listed(op.dims[:-1])}")


def _widths(segment: Segment, op: Op) -> set[str]:
    return {segment.dims_of(name)[-1] for name in op.inputs[:3]}


def _delta_flops(segment: Segment, op: Op) -> float:
    """Of the recurrence, for each token and element of a head's matrix: it fades (1), is read by the key where that corrects it (2),
    is written to (2) and read by the query (2)."""
    return (
        (7.0 if op.of(DeltaAttrs).correct else 5.0)
        * segment.count(op.dims)
        * segment.size(segment.dims_of(op.inputs[1])[-1])
    )


def _matrices(segment: Segment, op: Op) -> tuple[Dims, str]:
    keys = segment.dims_of(op.inputs[1])[-1]
    return (*(d for d in op.dims[:-1] if d != "seq"), keys, op.dims[-1]), "fp32"


KINDS = (
    OpKind(
        name="conv", about="each channel convolved over its last tokens; remembers them", dims=_convolved, flops=multiply_adds,
        whole=_taps, tokens=Tokens.IN_ORDER, state=_last_inputs,
    ),
    OpKind(
        name="delta", about="a matrix per head, faded, written by keys (by the delta rule or plainly), read by queries", dims=_delta,
        attrs=DeltaAttrs,
        flops=_delta_flops, uses_tensor_cores=True, whole=_widths, tokens=Tokens.IN_ORDER, over_heads=True, state=_matrices,
    ),
)  # fmt: skip
