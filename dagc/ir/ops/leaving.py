"""Rows of sequences that are still there, where some have left a decode step early.

`every` counts all sequences of a lane, `batch` those that are still there: of each rank the first of its own, so that what is still there is a
view of all rows, and what comes back is written where it was. `groups`: the ranks that split the sequences.
"""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from ..sharding import Axes
from .attributes.attention import LeavingAttrs
from .kind import AS_OPERAND, IN_BOTH, Dims, Misfit, OpKind, listed, operands, same_dims

EVERY, STILL = "every", "batch"
EXIT_HEAD = "exit_"
"""What the blocks of a head are called after in a layer where sequences leave."""
EXIT_TOKEN = "exit.token"
"""What such a layer hands on: the tokens of those that leave, whole."""


def still_there(dims: Dims) -> Dims:
    return tuple(STILL if d == EVERY else d for d in dims)


def _stays(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "all rows")
    if EVERY not in value:
        raise Misfit("operand 1 (all rows)", listed(value), f"[{EVERY}, ..]")
    same_dims("result", op.dims, still_there(value))
    _divides(segment, op)


def _comes_back(segment: Segment, op: Op) -> None:
    every, value = operands(segment, op, "all rows", "rows that are still there")
    if EVERY not in every:
        raise Misfit("operand 1 (all rows)", listed(every), f"[{EVERY}, ..]")
    same_dims("operand 2 (rows that are still there)", value, still_there(every))
    same_dims("result", op.dims, every)
    _divides(segment, op)


def _divides(segment: Segment, op: Op) -> None:
    groups = op.of(LeavingAttrs).groups
    sizes = segment.size(EVERY), segment.size(STILL)
    if any(size % groups for size in sizes) or sizes[1] > sizes[0]:
        raise Misfit(
            "groups", groups, f"a divisor of {sizes[0]:g} sequences and of the {sizes[1]:g} that are still there"
        )


def _rows(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """Rows follow the result's, whatever they are called."""
    mine = op.loop(EVERY if EVERY in op.dims else STILL)
    return tuple(mine if d in (EVERY, STILL) else op.loop(d) for d in segment.dims_of(name))


KINDS = (
    OpKind(
        name="stay", about="rows of the sequences that have not left", attrs=LeavingAttrs, dims=_stays, dtype=AS_OPERAND,
        idle="it is a view", needs=_rows, linear=(0,), local=True, fused=True, view=True, rides_in=IN_BOTH,
    ),
    OpKind(
        name="rejoin", about="all rows, those of sequences that left as they were", attrs=LeavingAttrs, dims=_comes_back,
        dtype=AS_OPERAND, idle="rows are written where they were", needs=_rows, linear=(0, 1), jointly=True, local=True, fused=True,
        rides_in=IN_BOTH,
    ),
)  # fmt: skip
