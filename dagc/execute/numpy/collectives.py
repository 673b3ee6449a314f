"""Collectives between ranks: each member of a group sees what the others hold, and nothing else. One line per kind in
`COLLECTIVES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Op, Segment
from ...ir.ops.attributes import MoveAttrs, RingTurnAttrs, SoftmaxMergeAttrs
from ...ir.sharding import Sharding
from ..failure import CannotRun, Wrong
from ..shards import Coordinates, Shards
from ..values import Best, Floats, Ragged, Routed, Softmax
from .row_moves import AGREE, REDUCTIONS, move_rows

Take = Callable[[Coordinates, Sharding], Floats]
"""(rank, layout) -> the block that this layout gives the rank."""


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a collective. `ranks`: its members; `have`, `got`: layouts before and after."""

    shards: Shards
    segment: Segment
    op: Op
    ranks: Sequence[Coordinates]
    have: Sharding
    got: Sharding


Exchange = Callable[[Group, Sequence[Floats]], list[Floats]]
"""(group, what each member has) -> what each member gets."""


def collective(shards: Shards, segment: Segment, op: Op, operands: Sequence[Sequence[object]]) -> list[object]:
    """Results of a collective on every rank. `operands`: of each operand the value on every rank."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, rank in enumerate(shards.ranks):
        key = tuple(v for a, v in rank.items() if a not in op.axes)
        groups.setdefault(key, []).append(i)
    out: list[object] = [None] * len(shards.ranks)
    for members in groups.values():
        group = Group(shards, segment, op, [shards.ranks[i] for i in members], have, got)
        for i, value in zip(members, _exchanged(group, [[v[i] for i in members] for v in operands]), strict=True):
            out[i] = value
    return out


def _exchanged(group: Group, operands: list[list[object]]) -> Sequence[object]:
    values, op = operands[0], group.op
    if isinstance(values[0], Softmax):
        return _softmax(op, values, operands[1:])
    _may_move(op, group.have)
    if isinstance(values[0], Ragged):
        rows = [v for v in values if isinstance(v, Ragged)]
        return move_rows(group.shards, group.segment, op, group.ranks, rows)
    exchange = COLLECTIVES.get(op.kind)
    if exchange is None:
        raise CannotRun(f"no exchange for `{op.kind}`")
    if isinstance(values[0], Best):
        best = [v for v in values if isinstance(v, Best)]
        if op.kind == "all_reduce":
            if op.of(MoveAttrs).reduce != "max":
                raise Wrong(f"{op.name}: the largest of several is no {op.of(MoveAttrs).reduce}")
            return [_best(best)] * len(values)
        pairs = zip(exchange(group, [b.value for b in best]), exchange(group, [b.index for b in best]), strict=True)
        return [Best(value, index) for value, index in pairs]
    if isinstance(values[0], Routed):
        routed = [v for v in values if isinstance(v, Routed)]
        both = (exchange(group, [r.experts for r in routed]), exchange(group, [r.weights for r in routed]))
        return [Routed(experts, weights) for experts, weights in zip(*both, strict=True)]
    return exchange(group, [v for v in values if isinstance(v, np.ndarray)])


def _may_move(op: Op, have: Sharding) -> None:
    """A reduction reduces what is pending over its group; anything else leaves pending sums as they are, which it can
    only do if none of them is over its group."""
    pending = set(have.partial) & set(op.axes)
    if op.kind in REDUCTIONS and pending != set(op.axes):
        raise Wrong(f"{op.name}: reduces over {op.axes}, pending is {have.partial}")
    if op.kind not in REDUCTIONS and pending:
        raise Wrong(f"{op.name}: moves what is still pending over {sorted(pending)}")


def _reduced(group: Group, arrays: Sequence[Floats]) -> list[Floats]:
    reduce = group.op.of(MoveAttrs).reduce
    if reduce != "sum":
        raise Wrong(f"{group.op.name}: a pending sum is not reduced by {reduce}")
    return [np.asarray(np.sum(arrays, axis=0))] * len(arrays)


def _moved(group: Group, arrays: Sequence[Floats]) -> list[Floats]:
    take = _reassemble(group, arrays)
    return [take(rank, group.got).astype(arrays[0].dtype) for rank in group.ranks]


def _ring(group: Group, arrays: Sequence[Floats]) -> list[Floats]:
    """What has passed a rank after a turn: every block, when there are as many steps as other ranks."""
    op, steps = group.op, group.op.of(RingTurnAttrs).steps
    if steps != len(arrays) - 1:
        raise Wrong(f"{op.name}: {steps} steps are no turn of a ring of {len(arrays)}")
    axis = op.dims.index("context")
    size = int(group.segment.size("context"))
    first = [group.shards.part(size, group.have.dims[axis], rank).start for rank in group.ranks]
    turn = np.concatenate([arrays[n] for n in np.argsort(first, kind="stable")], axis=axis)
    return [turn] * len(arrays)


COLLECTIVES: Mapping[str, Exchange] = {
    "all_reduce": _reduced,
    "all_gather": _moved,
    "reduce_scatter": _moved,
    "all_to_all": _moved,
    "permute": _moved,
    "ring_turn": _ring,
}


def _softmax(op: Op, values: list[object], stats: list[list[object]]) -> list[object]:
    """Row maxima, then row sums, then outputs of pieces of the context. `stats`: the statistics that the members have."""
    if not isinstance(op.attrs, SoftmaxMergeAttrs):
        raise Wrong(f"{op.name}: pieces of a softmax are merged by all_reduce only")
    parts = [v for v in values if isinstance(v, Softmax)]
    if op.attrs.part == "row_max":
        return [np.max([p.maxima for p in parts], axis=0)] * len(parts)
    if op.attrs.part == "row_sum":
        peaks = stats[0]
        sums = [p.sums * np.exp(p.maxima - peak) for p, peak in zip(parts, peaks, strict=True)]
        return [(peak, np.sum(sums, axis=0)) for peak in peaks]
    outputs = []
    for part, pair in zip(parts, stats[0], strict=True):
        if not isinstance(pair, tuple):
            raise Wrong(f"{op.name}: merges without the row sums")
        peak, total = pair
        outputs.append(part.output * (np.exp(part.maxima - peak) / total)[..., None])
    return [np.sum(outputs, axis=0)] * len(parts)


def _best(parts: list[Best]) -> Best:
    winner = np.argmax([p.value for p in parts], axis=0)
    index = np.choose(winner, [p.index for p in parts])
    return Best(np.choose(winner, [p.value for p in parts]), index)


def _reassemble(group: Group, arrays: Sequence[Floats]) -> Take:
    """Blocks taken from those that members hold, added up by a reduction. Copies of a block must agree. Fails when no
    member holds a needed element, or (permute: one message a rank) when several have to send."""
    op, shards = group.op, group.shards
    whole = shards.whole(group.segment, op.dims, op.scope)
    total, source = np.zeros(whole), np.full(whole, -1)
    blocks: dict[tuple[tuple[int, int], ...], list[Floats]] = {}
    for rank, array in zip(group.ranks, arrays, strict=True):
        parts = shards.parts(whole, group.have.dims, rank)
        blocks.setdefault(tuple((p.start, p.stop) for p in parts), []).append(array)
    for number, (key, copies) in enumerate(blocks.items()):
        where = tuple(slice(*edges) for edges in key)
        total[where] = np.sum(copies, axis=0) if op.kind in REDUCTIONS else _agreed(op, copies)
        source[where] = number

    def take(rank: Coordinates, got: Sharding) -> Floats:
        where = shards.parts(whole, got.dims, rank)
        if (source[where] < 0).any():
            raise Wrong(f"{op.name}: a rank needs what no member of its group holds")
        if op.kind == "permute" and source[where].size and np.ptp(source[where]):
            raise Wrong(f"{op.name}: a rank needs what no single member of its group holds")
        return total[where].copy()

    return take


def _agreed(op: Op, copies: list[Floats]) -> Floats:
    first = copies[0]
    allowed = AGREE * float(np.abs(first).max(initial=0.0))
    if any(float(np.abs(first - other).max(initial=0.0)) > allowed for other in copies[1:]):
        raise Wrong(f"{op.name}: members of a group hold different values of one block")
    return first
