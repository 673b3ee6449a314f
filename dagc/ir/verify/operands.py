"""Verification of ops apart from layouts: the dims of every operand are those of its role."""

from __future__ import annotations

from ...base.dtypes import INDICES
from ..graph import Op, Segment
from ..ops.attributes import fault
from ..ops.ops import OPS, attend_extras, attend_operands
from ..routed_dims import routed, rows_of, stem
from .violation import require

NORMS = {"rms_norm": 1, "layer_norm": 2}
"""Norms, and how many sums of a row they take beside it when its width is split."""


def verify_op(segment: Segment, op: Op) -> None:
    require(op.is_collective or op.kind in OPS, segment, op, f"unknown op kind {op.kind}")
    wrong = fault(op)
    require(not wrong, segment, op, wrong)
    if op.kind == "route":
        require(op.dtype in INDICES, segment, op, f"a choice is no {op.dtype}")
    if op.kind == "attend":
        for name in ("window", "chunk"):
            require(op.attr(name, None) != 0, segment, op, f"attribute {name} = 0: leave it out to see all")
        pairs = op.attr("pairs", 1)
        assert isinstance(pairs, (int, float))
        require(
            len(op.inputs) > 2 * pairs, segment, op, f"{len(op.inputs)} operands are not {pairs:g} pairs and values"
        )
    for dim in op.dims:
        require(dim in segment.sizes, segment, op, f"dimension {dim} has no size")
    require(len(set(op.dims)) == len(op.dims), segment, op, "a dimension occurs twice in the result")
    require(_fits(segment, op), segment, op, "an operand has not the dims of its role")
    if op.kind in ("dispatch", "combine"):
        exchange = str(op.attr("exchange", "") or "")
        named = set(exchange.split("+")) if exchange else set()
        rows = routed(segment, op)
        require(
            rows is not None and named <= set(op.loop(rows.expert)),
            segment,
            op,
            "exchanges over axes that do not split experts",
        )


def _fits(segment: Segment, op: Op) -> bool:
    operands = [segment.dims_of(name) for name in op.inputs]
    first, second = operands[0], operands[1] if len(operands) > 1 else ()
    if op.is_collective:
        return op.dims == (first[:-1] if op.attr("of") else first)
    if op.kind in NORMS:
        split = bool(op.loop(op.dims[-1])) and op.sharding is not None
        sums = [op.dims[:-1]] * NORMS[op.kind] if split else []
        return operands in ([op.dims, *sums], [op.dims, op.dims[-1:], *sums])
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
