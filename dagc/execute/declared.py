"""What an op declares of its result, held against the value that ran: type, shape on every rank, kind of numbers."""

from __future__ import annotations

import numpy as np

from ..ir.graph import Op, Segment
from ..ir.sharding import Sharding
from .failure import Wrong
from .shards import Shards
from .values import Best, Ragged, Routed, Softmax

WHOLE_NUMBERS = ("int32", "int64")


def check(shards: Shards, segment: Segment, op: Op, values: list[object]) -> None:
    """Raises Wrong where a rank's value is not what the op declares in its layout (none: whole)."""
    layout = op.sharding or Sharding(((),) * len(op.dims))
    if op.kind == "ring_turn":  # a turn of the ring: all of its blocks have passed a rank
        layout = Sharding(tuple(tuple(a for a in axes if a not in op.axes) for axes in layout.dims))
    if any(isinstance(value, Ragged) for value in values):
        _routed(shards, segment, op, layout, values)
        return
    whole = shards.whole(segment, op.dims, op.scope)
    for rank, value in zip(shards.ranks, values, strict=True):
        shape = tuple(p.stop - p.start for p in shards.parts(whole, layout.dims, rank))
        for array, wanted, dtype in _arrays(op, value, shape):
            if array.shape != wanted:
                raise Wrong(f"{op.name}: a rank has {list(array.shape)}, its layout says {list(wanted)}")
            if (array.dtype.kind in "iu") != (dtype in WHOLE_NUMBERS):
                raise Wrong(f"{op.name}: a rank has {array.dtype}, it is declared {dtype}")


def _arrays(op: Op, value: object, shape: tuple[int, ...]) -> list[tuple[np.ndarray, tuple[int, ...], str]]:
    """The arrays of a value, each with the shape and the dtype that it should have."""
    if isinstance(value, Softmax):
        return [(value.output, shape, op.dtype), (value.maxima, shape[:-1], "fp32"), (value.sums, shape[:-1], "fp32")]
    if isinstance(value, Best):
        return [(value.index, shape, op.dtype), (value.value, shape, "fp32")]
    if isinstance(value, Routed):
        return [(value.experts, shape, op.dtype), (value.weights, shape, "fp32")]
    if isinstance(value, tuple):  # row maxima and row sums
        return [(array, shape, op.dtype) for array in value]
    if not isinstance(value, np.ndarray):
        raise Wrong(f"{op.name}: a rank has {type(value).__name__}")
    return [(value, shape, op.dtype)]


def _routed(shards: Shards, segment: Segment, op: Op, layout: Sharding, values: list[object]) -> None:
    """The rank's experts, its part of every row, and the rows that its layout gives it."""
    rows = shards.rows(segment, op.name)
    for rank, value in zip(shards.ranks, values, strict=True):
        if not isinstance(value, Ragged):
            raise Wrong(f"{op.name}: a rank has no routed rows")
        if value.held != rows.experts(op.dims, layout, rank):
            raise Wrong(f"{op.name}: a rank has rows of other experts than its layout says")
        wanted = tuple(p.stop - p.start for p in rows.box(op.dims, layout, rank))
        if value.data.shape[1:] != wanted or value.data.dtype.kind != "f":
            raise Wrong(f"{op.name}: a rank has rows {list(value.data.shape[1:])}, its layout says {list(wanted)}")
        if not rows.mine(op.dims, layout, rank, value.keys, shards.offset).all():
            raise Wrong(f"{op.name}: a rank has rows that its layout gives to another")


def finite(value: object) -> bool:
    """No infinity and no NaN in a value (a row of a split softmax that saw nothing has maximum -inf)."""
    if isinstance(value, Softmax):
        return bool(np.isfinite(value.output).all() and np.isfinite(value.sums).all())
    if isinstance(value, Ragged):
        return bool(np.isfinite(value.data).all())
    if isinstance(value, Routed):
        return bool(np.isfinite(value.weights).all())
    return not isinstance(value, np.ndarray) or bool(np.isfinite(value).all())
