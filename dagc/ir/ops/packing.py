"""Tokens of a mixed step: packed in one row of each rank for what treats each alike, apart where their sequences matter.

A packed value is [batch, seq, ..]: `batch` counts the ranks that have tokens of their own, `seq` the tokens of one of them,
those of each part in turn. A part has `batch` sequences, the same number on every rank, of `seq` tokens each. Both
are views of one buffer: attention kernels read and write its rows.
"""

from __future__ import annotations

from ...base.traced import whole
from ..op import Op
from ..segment import PACKED_BATCH, Segment
from .kind import AS_OPERAND, IN_BOTH, Dims, Misfit, OpKind, listed, operands, same_dims


def sequences_of_rank(segment: Segment, part: str) -> int:
    """Sequences of a part for each entry of the packed batch."""
    found: int = whole(segment.size("batch", part) / segment.sizes.get(PACKED_BATCH, segment.sizes["batch"]))
    return found


def sequences_of_row(segment: Segment) -> int:
    """Of the part that a segment is seen by (`Segment.within`), for each entry of the packed batch; else one."""
    return int(segment.sizes["batch"] / segment.sizes.get(PACKED_BATCH, segment.sizes["batch"]))


def rows_of_rank(segment: Segment, part: str, dims: Dims) -> int:
    """Rows of a part's value for each entry of the packed batch: its tokens, or one a sequence."""
    tokens: int = whole(segment.size("seq", part)) if "seq" in dims else 1
    return sequences_of_rank(segment, part) * tokens


def first_row(segment: Segment, part: str) -> int:
    """Where the tokens of a part begin in a packed row."""
    before = segment.parts[: segment.parts.index(part)]
    return sum(rows_of_rank(segment, other, ("seq",)) for other in before)


def packed_dims(dims: Dims) -> Dims:
    """Those of a packed value: sequences and their tokens are one row."""
    at = dims.index("batch") + 1
    return (*dims[:at], "seq", *(d for d in dims[at:] if d != "seq")) if "seq" not in dims[:at] else dims


def _unpacked(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "packed value")
    same_dims("result", op.dims, value)
    _both(op.dims)
    if op.scope not in segment.parts or segment.scope_of(op.inputs[0]) != "dense":
        raise Misfit("scope", op.scope, "a part of the step, of a packed value")


def _packed(segment: Segment, op: Op) -> None:
    parts = segment.parts
    if tuple(segment.scope_of(name) for name in op.inputs) != parts or not parts:
        raise Misfit("operands", listed(segment.scope_of(n) for n in op.inputs), f"one of each part, {listed(parts)}")
    _both(op.dims)
    values = operands(segment, op, *parts)
    for dims in values:
        if packed_dims(dims) != op.dims:
            raise Misfit("result", listed(op.dims), listed(packed_dims(dims)))
    rows = sum(rows_of_rank(segment, part, dims) for part, dims in zip(parts, values, strict=True))
    if rows != segment.size("seq", op.scope):
        raise Misfit("rows of the parts", rows, f"{segment.size('seq', op.scope):g} of the result")


def _both(dims: Dims) -> None:
    if not {"batch", "seq"} <= set(dims):
        raise Misfit("result", listed(dims), "[batch, seq, ..]")


def _rows_whole(segment: Segment, op: Op) -> set[str]:
    return {"seq"}


def unpacked_shape(segment: Segment, op: Op, shape: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
    """(first row, the row behind the last, shape) of a part's value cut from a packed one of this shape, its batch and rows
    first."""
    first = first_row(segment, op.scope)
    tokens = int(segment.size("seq", op.scope))
    each = sequences_of_rank(segment, op.scope)
    return first, first + each * tokens, (shape[0] * each, tokens, *shape[2:])


KINDS = (
    OpKind(
        name="unpack", about="the tokens of one part of a mixed step", dims=_unpacked, dtype=AS_OPERAND, idle="it is a view",
        linear=(0,), local=True, fused=True, view=True, rides_in=IN_BOTH, whole=_rows_whole,
    ),
    OpKind(
        name="pack", about="the tokens, or sampled rows, of all parts of a mixed step", dims=_packed, dtype=AS_OPERAND,
        idle="its operands are views of it", linear=tuple(range(64)), jointly=True, local=True, fused=True, rides_in=IN_BOTH,
        whole=_rows_whole,
    ),
)  # fmt: skip
