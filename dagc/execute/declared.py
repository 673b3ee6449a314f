"""What an op declares of its results, compared with the values that ran: type, shape on every rank, kind of numbers."""

from __future__ import annotations

import numpy as np

from ..base.dtypes import INDICES
from ..ir.op import Op, Value
from ..ir.ops.attributes.moves import RingTurnAttrs
from ..ir.segment import Segment
from ..ir.sharding import Sharding
from .dispatcher import Results
from .failure import Wrong
from .shards import Shards
from .values import Ragged

WHOLE_NUMBERS = tuple(INDICES)


def check(shards: Shards, segment: Segment, op: Op, results: Results) -> None:
    """Raises Wrong where a rank's value is not what the op declares of it in its layout (none: whole)."""
    for result, values in zip(op.made, results, strict=True):
        layout = result.sharding or Sharding(((),) * len(result.dims))
        if isinstance(op.attrs, RingTurnAttrs):  # all blocks have passed a rank
            layout = Sharding(tuple(tuple(a for a in axes if a not in op.axes) for axes in layout.dims), on=layout.on)
        if any(isinstance(value, Ragged) for value in values):
            _routed(shards, segment, op, layout, values)
            continue
        whole = shards.whole(segment, result.dims, op.scope)
        for shape, value in zip(shards.shapes(whole, layout), values, strict=True):
            if not isinstance(value, np.ndarray):
                raise Wrong(f"{result.name}: a rank has {type(value).__name__}")
            if value.shape != shape:
                raise Wrong(f"{result.name}: a rank has {list(value.shape)}, its layout says {list(shape)}")
            if (value.dtype.kind in "iu") != (result.dtype in WHOLE_NUMBERS):
                raise Wrong(f"{result.name}: a rank has {value.dtype}, it is declared {result.dtype}")


def _routed(shards: Shards, segment: Segment, op: Op, layout: Sharding, values: list[object]) -> None:
    """The rank's experts, its part of every row, and the rows that its layout gives it."""
    rows = shards.rows(segment, op.name)
    for rank, value in zip(shards.at(layout.on), values, strict=True):
        if not isinstance(value, Ragged):
            raise Wrong(f"{op.name}: a rank has no routed rows")
        if value.held != rows.experts(op.dims, layout, rank):
            raise Wrong(f"{op.name}: a rank has rows of other experts than its layout says")
        wanted = tuple(p.stop - p.start for p in rows.box(op.dims, layout, rank))
        if value.data.shape[1:] != wanted or value.data.dtype.kind != "f":
            raise Wrong(f"{op.name}: a rank has rows {list(value.data.shape[1:])}, its layout says {list(wanted)}")
        if not rows.mine(op.dims, layout, rank, value.keys, shards.offset).all():
            raise Wrong(f"{op.name}: a rank has rows that its layout gives to another")


def finite(op: Op, results: Results) -> bool:
    """No infinity and no NaN in any result. (The maximum of a row that saw nothing of a context is -inf.)"""
    pairs = zip(op.made, results, strict=True)
    return all(_numbers(value, _may_be_unseen(result)) for result, values in pairs for value in values)


def _may_be_unseen(result: Op | Value) -> bool:
    return result.sharding is not None and result.sharding.reduce == "max"


def _numbers(value: object, unseen: bool) -> bool:
    data = value.data if isinstance(value, Ragged) else value
    if not isinstance(data, np.ndarray) or np.isfinite(data).all():
        return True
    return unseen and bool((np.isfinite(data) | np.isneginf(data)).all())
