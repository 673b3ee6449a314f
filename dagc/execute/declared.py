"""What an op declares of its result, held against the value that ran: type, shape on every rank, kind of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ir.graph import Op, Segment
from ..ir.ops.attributes import RingTurnAttrs
from ..ir.sharding import Sharding
from .failure import Wrong
from .numpy import ops as k

if TYPE_CHECKING:
    from .execute import Machine

WHOLE_NUMBERS = ("int32", "int64")


def check(machine: Machine, segment: Segment, op: Op, values: list[object]) -> None:
    """Raises Wrong where a rank's value is not what the op declares in its layout (none: whole)."""
    layout = op.sharding or Sharding(((),) * len(op.dims))
    if isinstance(op.attrs, RingTurnAttrs):  # a turn of the ring: all of its blocks have passed a rank
        layout = Sharding(tuple(tuple(a for a in axes if a not in op.axes) for axes in layout.dims))
    if any(isinstance(value, k.Ragged) for value in values):
        _routed(machine, segment, op, layout, values)
        return
    whole = machine.whole(segment, op.dims, op.scope)
    for rank, value in zip(machine.ranks, values, strict=True):
        shape = tuple(p.stop - p.start for p in machine.parts(whole, layout.dims, rank))
        for array, wanted, dtype in _arrays(op, value, shape):
            if array.shape != wanted:
                raise Wrong(f"{op.name}: a rank has {list(array.shape)}, its layout says {list(wanted)}")
            if (array.dtype.kind in "iu") != (dtype in WHOLE_NUMBERS):
                raise Wrong(f"{op.name}: a rank has {array.dtype}, it is declared {dtype}")


def _arrays(op: Op, value: object, shape: tuple[int, ...]) -> list[tuple[np.ndarray, tuple[int, ...], str]]:
    """The arrays of a value, each with the shape and the dtype that it should have."""
    if isinstance(value, k.Softmax):
        return [(value.output, shape, op.dtype), (value.maxima, shape[:-1], "fp32"), (value.sums, shape[:-1], "fp32")]
    if isinstance(value, k.Best):
        return [(value.index, shape, op.dtype), (value.value, shape, "fp32")]
    if isinstance(value, k.Routed):
        return [(value.experts, shape, op.dtype), (value.weights, shape, "fp32")]
    if isinstance(value, tuple):  # row maxima and row sums
        return [(array, shape, op.dtype) for array in value]
    if not isinstance(value, np.ndarray):
        raise Wrong(f"{op.name}: a rank has {type(value).__name__}")
    return [(value, shape, op.dtype)]


def _routed(machine: Machine, segment: Segment, op: Op, layout: Sharding, values: list[object]) -> None:
    """The rank's experts, its part of every row, and the rows that its layout gives it."""
    rows = machine.rows(segment, op.name)
    for rank, value in zip(machine.ranks, values, strict=True):
        if not isinstance(value, k.Ragged):
            raise Wrong(f"{op.name}: a rank has no routed rows")
        if list(value.rows) != list(rows.experts(op.dims, layout, rank)):
            raise Wrong(f"{op.name}: a rank has rows of other experts than its layout says")
        wanted = tuple(p.stop - p.start for p in rows.box(op.dims, layout, rank))
        for keys, data in value.rows.values():
            if data.shape[1:] != wanted or data.dtype.kind != "f":
                raise Wrong(f"{op.name}: a rank has rows {list(data.shape[1:])}, its layout says {list(wanted)}")
            if not rows.mine(op.dims, layout, rank, keys, machine.offset).all():
                raise Wrong(f"{op.name}: a rank has rows that its layout gives to another")
