"""Verification of ops apart from layouts: the dims of every operand are those of its role."""

from __future__ import annotations

from ...base.dtypes import DTYPE_BYTES, INDICES
from ..graph import SCOPES, Op, Segment
from ..ops.attributes import AttendAttrs, ExchangeAttrs, fault
from ..ops.ops import OPS, attend_extras, attend_operands
from ..routed_dims import routed, rows_of, stem
from .violation import require

NORMS = {"rms_norm": 1, "layer_norm": 2}
"""Norms, and how many sums of a row they take beside it when its width is split."""


def verify_op(segment: Segment, op: Op) -> None:
    require(op.kind in OPS or op.is_collective, segment, op, f"unknown op kind {op.kind}")
    require(op.dtype in DTYPE_BYTES, segment, op, f"unknown dtype {op.dtype}")
    require(op.scope in SCOPES, segment, op, f"unknown scope {op.scope}")
    wrong = fault(op.kind, op.attrs)
    require(not wrong, segment, op, wrong)
    if op.kind == "route":
        require(op.dtype in INDICES, segment, op, f"a choice is no {op.dtype}")
    if isinstance(op.attrs, AttendAttrs):
        pairs = op.attrs.pairs
        require(len(op.inputs) > 2 * pairs, segment, op, f"{len(op.inputs)} operands are not {pairs} pairs and values")
    for dim in op.dims:
        require(dim in segment.sizes, segment, op, f"dimension {dim} has no size")
    require(len(set(op.dims)) == len(op.dims), segment, op, "a dimension occurs twice in the result")
    require(_fits(segment, op), segment, op, "an operand has not the dims of its role")
    if isinstance(op.attrs, ExchangeAttrs):
        rows = routed(segment, op)
        fits = rows is not None and set(op.attrs.exchange) <= set(op.loop(rows.expert))
        require(fits, segment, op, "exchanges over axes that do not split experts")


def _fits(segment: Segment, op: Op) -> bool:
    operands = [segment.dims_of(name) for name in op.inputs]
    first, second = operands[0], operands[1] if len(operands) > 1 else ()
    if op.is_collective:
        return op.dims == first
    if op.kind in NORMS:
        split = bool(op.loop(op.dims[-1]))
        plain = [op.dims], [op.dims, op.dims[-1:]]
        if operands in plain:
            return not split or op.sharding is None  # until the sums are ops of their own
        return split and operands in [[*one, *[op.dims[:-1]] * NORMS[op.kind]] for one in plain]
    if op.kind in ("multiply", "add"):
        return set(op.dims) == {*first, *second}
    if op.kind == "contract":
        return set(op.dims) <= {*first, *second}
    if op.kind == "attend":
        return _attends(segment, op)
    if op.kind == "conv":
        return first == op.dims and set(second) - set(op.dims) == {second[-1]}
    if op.kind == "delta":
        heads = set(op.dims[:-1])
        return operands[2] == op.dims and first[-1] == second[-1] and all(set(o[:-1]) <= heads for o in operands)
    if op.kind == "select":
        return (
            "context" in second
            and first[-1] == second[-1]
            and (op.dims[:-1], stem(op.dims[-1])) == (operands[2][:-1], "chosen")
        )
    if op.kind == "lookup":
        return len(second) == 2 and op.dims == (*first, second[-1])
    if op.kind == "route":
        return op.dims[:-1] == first[:-1] and stem(op.dims[-1]) == "choice"
    if op.kind == "dispatch":
        rows = rows_of(op.dims)
        return rows is not None and second[-1:] == (rows.choice,) and op.dims == (rows.expert, rows.slot, first[-1])
    if op.kind == "combine":
        rows = rows_of(first)
        return rows is not None and second[-1:] == (rows.choice,) and first == (rows.expert, rows.slot, op.dims[-1])
    if op.kind == "cache":
        return op.dims == tuple("context" if d == "seq" else d for d in first)
    if op.kind == "last":
        return op.dims == tuple(d for d in first if d != "seq")
    if op.kind in ("argmax", "row_sum", "row_square_sum"):
        return op.dims == first[:-1]
    return operands == [op.dims]  # element by element


def _attends(segment: Segment, op: Op) -> bool:
    """Queries have the rows of the result, each key the width of its query, the value the width of the result, and
    sinks one number a row."""
    queries, keys, value = attend_operands(op)
    sinks, selected = attend_extras(op)
    rows = set(op.dims[:-1])
    return (
        (sinks is None or set(segment.dims_of(sinks)) <= rows)
        and (selected is None or stem(segment.dims_of(selected)[-1]) == "chosen")
        and all(set(segment.dims_of(q)[:-1]) <= rows for q in queries)
        and all(segment.dims_of(q)[-1] == segment.dims_of(k)[-1] for q, k in zip(queries, keys, strict=True))
        and segment.dims_of(value)[-1] == op.dims[-1]
    )
