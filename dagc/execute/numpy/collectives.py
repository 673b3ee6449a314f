"""Collectives between ranks: each member of a group sees the others' data, and nothing else. One line per kind in
`COLLECTIVES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...base.collectives import ACROSS, REDUCTIONS
from ...base.frozen import record
from ...ir.op import Op
from ...ir.ops.attributes.moves import MoveAttrs, RingTurnAttrs
from ...ir.segment import Segment
from ...ir.sharding import Sharding
from ..failure import CannotRun, Wrong
from ..shards import Coordinates, Shards
from ..values import Floats, Ragged
from .row_moves import AGREE, move_rows

Take = Callable[[Coordinates, Sharding], Floats]
"""(rank, layout) -> the block that this layout gives the rank."""


@record
class Group:
    """One group of a collective. `ranks`: its members; `have`, `got`: layouts before and after."""

    shards: Shards
    segment: Segment
    op: Op
    ranks: Sequence[Coordinates]
    have: Sharding
    got: Sharding


Members = Sequence[Any]
"""A value on every member of a group."""
Exchange = Callable[[Group, Sequence[Members]], Sequence[Members]]
"""(group, of each operand what the members have) -> of each result what they get."""


def collective(shards: Shards, segment: Segment, op: Op, operands: Sequence[Members]) -> list[list[object]]:
    """Of each result of a collective the value on every rank. `operands`: of each operand the value on every rank.
    Raises CannotRun or Wrong."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    exchange = COLLECTIVES.get(op.kind)
    if exchange is None:
        raise CannotRun(f"no exchange for `{op.kind}`")
    if op.is_across:
        return [list(each) for each in exchange(Group(shards, segment, op, shards.at(have.on), have, got), operands)]
    ranks = shards.at(op.on)
    out: list[list[object]] = [[None] * len(ranks) for _ in op.results]
    for members in shards.groups(op.axes, op.on):
        group = Group(shards, segment, op, [ranks[i] for i in members], have, got)
        _may_move(op, have)
        results = exchange(group, [[values[i] for i in members] for values in operands])
        if len(results) != len(out):
            raise Wrong(f"{op.name}: it has {len(results)} results, {len(out)} are declared")
        for result, values in zip(out, results, strict=True):
            for i, value in zip(members, values, strict=True):
                result[i] = value
    return out


def _across(group: Group, operands: Sequence[Members]) -> Sequence[Members]:
    """Of each operand what every rank of another set gets from those of the group; `got` says which set."""
    takers = group.shards.at(group.got.on)
    if group.have.partial:
        raise Wrong(f"{group.op.name}: sends what is still partial over {group.have.partial}")
    out: list[Members] = []
    for values in operands:
        if isinstance(values[0], Ragged):
            out.append(move_rows(group.shards, group.segment, group.op, group.ranks, values, takers))
        else:
            take = _reassemble(group, values)
            out.append([take(rank, group.got).astype(values[0].dtype) for rank in takers])
    return out


def _may_move(op: Op, have: Sharding) -> None:
    """A reduction reduces what is partial over its group; anything else leaves partial sums unchanged, which it can
    only do if none of them is over its group."""
    partial = set(have.partial) & set(op.axes)
    reduces = op.runtime_kind in REDUCTIONS
    if reduces and partial != set(op.axes):
        raise Wrong(f"{op.name}: reduces over {op.axes}, partial is {have.partial}")
    if not reduces and partial:
        raise Wrong(f"{op.name}: moves what is still partial over {sorted(partial)}")


def _each(move: Callable[[Group, Members], Members]) -> Exchange:
    """Every operand moves in the same way; routed rows as their layout of experts says."""

    def exchange(group: Group, operands: Sequence[Members]) -> Sequence[Members]:
        first = operands[0]
        if isinstance(first[0], Ragged):
            return [move_rows(group.shards, group.segment, group.op, group.ranks, first)]
        return [move(group, arrays) for arrays in operands]

    return exchange


def _all_reduce(group: Group, operands: Sequence[Members]) -> Sequence[Members]:
    """Sums, maxima, or the largest value of several with its index."""
    reduce = group.op.of(MoveAttrs).reduce
    if reduce != group.have.reduce:
        raise Wrong(f"{group.op.name}: a partial {group.have.reduce} is not reduced by {reduce}")
    if reduce == "sum":
        return _each(_added)(group, operands)
    if len(operands) == 1:
        return [[np.max(operands[0], axis=0)] * len(group.ranks)]
    best = _largest(*operands)
    return [[value] * len(group.ranks) for value in best[: len(group.op.results)]]


def _reduce_scatter(group: Group, operands: Sequence[Members]) -> Sequence[Members]:
    if group.have.reduce != "sum":
        raise Wrong(f"{group.op.name}: a partial {group.have.reduce} is not reduced by sum")
    return _each(_moved)(group, operands)


def _added(group: Group, arrays: Members) -> Members:
    return [np.asarray(np.sum(arrays, axis=0))] * len(arrays)


def _largest(indices: Members, values: Members) -> tuple[Any, Any]:
    """(index, value); of equal ones the first."""
    winner = np.argmax(values, axis=0)
    return np.choose(winner, indices), np.choose(winner, values)


def _moved(group: Group, arrays: Members) -> Members:
    take = _reassemble(group, arrays)
    return [take(rank, group.got).astype(arrays[0].dtype) for rank in group.ranks]


def _ring(group: Group, arrays: Members) -> Members:
    """What has passed a rank after a ring turn: every block, when there are as many steps as other ranks."""
    op, steps = group.op, group.op.of(RingTurnAttrs).steps
    if steps != len(arrays) - 1:
        raise Wrong(f"{op.name}: {steps} steps do not pass all blocks around a ring of {len(arrays)}")
    axis = op.dims.index("context")
    size = int(group.segment.size("context"))
    first = [group.shards.part(size, group.have.dims[axis], rank).start for rank in group.ranks]
    turn = np.concatenate([arrays[n] for n in np.argsort(first, kind="stable")], axis=axis)
    return [turn] * len(arrays)


def _softmax_merge(group: Group, operands: Sequence[Members]) -> Sequence[Members]:
    """Of (row sums, row maxima, maxima over all pieces) the sum over all pieces, and of each rank its share; of (outputs,
    shares) the output."""
    if len(operands) == 2:
        return [_added(group, [out * share[..., None] for out, share in zip(*operands, strict=True)])]
    factors = [np.exp(maxima - peak) for _, maxima, peak in zip(*operands, strict=True)]
    total = _added(group, [sums * factor for sums, factor in zip(operands[0], factors, strict=True)])
    return [total, [factor / total[0] for factor in factors]]


def _softmax_scatter(group: Group, operands: Sequence[Members]) -> Sequence[Members]:
    """Of (outputs, shares) each rank's part of the output."""
    return [_moved(group, [out * share[..., None] for out, share in zip(*operands, strict=True)])]


COLLECTIVES: Mapping[str, Exchange] = {
    "all_reduce": _all_reduce,
    "all_gather": _each(_moved),
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _each(_moved),
    "permute": _each(_moved),
    "ring_turn": _each(_ring),
    "softmax_merge": _softmax_merge,
    "softmax_scatter": _softmax_scatter,
    **dict.fromkeys(ACROSS, _across),
}


def _reassemble(group: Group, arrays: Members) -> Take:
    """Blocks taken from those of the members, added up by a reduction. Copies of a block must agree. Fails when no
    member has a needed element, or (permute: one message per rank) when several have to send."""
    op, shards = group.op, group.shards
    whole = shards.whole(group.segment, op.dims, op.scope)
    total, source = np.zeros(whole), np.full(whole, -1)
    blocks: dict[tuple[tuple[int, int], ...], list[Floats]] = {}
    for rank, array in zip(group.ranks, arrays, strict=True):
        parts = shards.parts(whole, group.have.dims, rank)
        blocks.setdefault(tuple((p.start, p.stop) for p in parts), []).append(array)
    for number, (key, copies) in enumerate(blocks.items()):
        where = tuple(slice(*edges) for edges in key)
        total[where] = np.sum(copies, axis=0) if op.runtime_kind in REDUCTIONS else _agreed(op, copies)
        source[where] = number

    def take(rank: Coordinates, got: Sharding) -> Floats:
        where = shards.parts(whole, got.dims, rank)
        if (source[where] < 0).any():
            raise Wrong(f"{op.name}: a rank needs what no member of its group has")
        if op.kind == "permute" and source[where].size and np.ptp(source[where]):
            raise Wrong(f"{op.name}: a rank needs what no single member of its group has")
        return total[where].copy()

    return take


def _agreed(op: Op, copies: list[Floats]) -> Floats:
    first = copies[0]
    allowed = AGREE * float(np.abs(first).max(initial=0.0))
    if any(float(np.abs(first - other).max(initial=0.0)) > allowed for other in copies[1:]):
        raise Wrong(f"{op.name}: members of a group have different values of one block")
    return first
