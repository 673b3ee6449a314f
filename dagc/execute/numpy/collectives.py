"""Collectives between ranks: each member of a group sees what the others hold, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...ir.graph import Op, Segment
from ...ir.ops.attributes import MoveAttrs, RingTurnAttrs, SoftmaxMergeAttrs
from ...ir.sharding import Sharding
from ..failure import CannotRun, Wrong
from ..routed import AGREE, REDUCTIONS, move
from . import ops as k

if TYPE_CHECKING:
    from ..execute import Machine

Env = Mapping[str, list[object]]
Take = Callable[[Mapping[str, int], Sharding], k.Floats]
"""(rank, layout) -> the block that this layout gives the rank."""


def collective(machine: Machine, segment: Segment, op: Op, env: Env) -> list[object]:
    """Results of a collective on every rank."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, rank in enumerate(machine.ranks):
        key = tuple(v for a, v in rank.items() if a not in op.axes)
        groups.setdefault(key, []).append(i)
    out: list[object] = [None] * len(machine.ranks)
    for members in groups.values():
        for i, value in zip(members, _group(machine, segment, op, env, members), strict=True):
            out[i] = value
    return out


def _group(machine: Machine, segment: Segment, op: Op, env: Env, members: list[int]) -> list[object]:
    values = [env[op.inputs[0]][i] for i in members]
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    if isinstance(values[0], k.Softmax):
        return _softmax(op, values, [[env[n][i] for n in op.inputs[1:]] for i in members])
    _may_move(op, have)
    if isinstance(values[0], k.Ragged):
        return move(machine, segment, op, members, values)
    ranks = [machine.ranks[i] for i in members]
    if isinstance(values[0], k.Best):
        best = [v for v in values if isinstance(v, k.Best)]
        if op.kind == "all_reduce":
            if op.of(MoveAttrs).reduce != "max":
                raise Wrong(f"{op.name}: the largest of several is no {op.of(MoveAttrs).reduce}")
            return [_best(best)] * len(values)
        value = _reassemble(machine, segment, op, members, [b.value for b in best])
        index = _reassemble(machine, segment, op, members, [b.index.astype(np.float64) for b in best])
        return [k.Best(value(r, got), index(r, got).astype(np.int64)) for r in ranks]
    if isinstance(values[0], k.Routed):
        routed = [v for v in values if isinstance(v, k.Routed)]
        experts = _reassemble(machine, segment, op, members, [r.experts.astype(np.float64) for r in routed])
        weights = _reassemble(machine, segment, op, members, [r.weights for r in routed])
        return [k.Routed(experts(r, got).astype(np.int64), weights(r, got)) for r in ranks]
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    if isinstance(op.attrs, RingTurnAttrs):
        return [_ring(machine, segment, op, members, arrays)] * len(values)
    if op.kind == "all_reduce":
        return [_reduced(op, arrays)] * len(values)
    pieces = _reassemble(machine, segment, op, members, arrays)
    return [pieces(r, got).astype(arrays[0].dtype) for r in ranks]


def _may_move(op: Op, have: Sharding) -> None:
    """A reduction reduces what is pending over its group; anything else leaves pending sums as they are, which it can
    only do if none of them is over its group."""
    pending = set(have.partial) & set(op.axes)
    if op.kind in REDUCTIONS and pending != set(op.axes):
        raise Wrong(f"{op.name}: reduces over {op.axes}, pending is {have.partial}")
    if op.kind not in REDUCTIONS and pending:
        raise Wrong(f"{op.name}: moves what is still pending over {sorted(pending)}")


def _reduced(op: Op, arrays: list[k.Floats]) -> k.Floats:
    if op.of(MoveAttrs).reduce != "sum":
        raise Wrong(f"{op.name}: a pending sum is not reduced by {op.of(MoveAttrs).reduce}")
    return np.asarray(np.sum(arrays, axis=0))


def _ring(machine: Machine, segment: Segment, op: Op, members: list[int], arrays: list[k.Floats]) -> k.Floats:
    """What has passed a rank after a turn: every block, when there are as many steps as other ranks."""
    steps = op.of(RingTurnAttrs).steps
    if steps != len(members) - 1:
        raise Wrong(f"{op.name}: {steps} steps are no turn of a ring of {len(members)}")
    have = segment.sharding_of(op.inputs[0])
    assert have is not None
    axis = op.dims.index("context")
    size = int(segment.size("context"))
    first = [machine.part(size, have.dims[axis], machine.ranks[i]).start for i in members]
    return np.concatenate([arrays[n] for n in np.argsort(first, kind="stable")], axis=axis)


def _softmax(op: Op, values: list[object], stats: list[list[object]]) -> list[object]:
    """Row maxima, then row sums, then outputs of pieces of the context. `stats`: the statistics that each member has."""
    if not isinstance(op.attrs, SoftmaxMergeAttrs):
        raise Wrong(f"{op.name}: pieces of a softmax are merged by all_reduce only")
    parts = [v for v in values if isinstance(v, k.Softmax)]
    if op.attrs.part == "row_max":
        return [np.max([p.maxima for p in parts], axis=0)] * len(parts)
    if op.attrs.part == "row_sum":
        peaks = [s[0] for s in stats]
        sums = [p.sums * np.exp(p.maxima - peak) for p, peak in zip(parts, peaks, strict=True)]  # type: ignore[operator]
        return [(peak, np.sum(sums, axis=0)) for peak in peaks]
    outputs = []
    for part, (pair,) in zip(parts, stats, strict=True):
        if not isinstance(pair, tuple):
            raise Wrong(f"{op.name}: merges without the row sums")
        peak, total = pair
        outputs.append(part.output * (np.exp(part.maxima - peak) / total)[..., None])
    return [np.sum(outputs, axis=0)] * len(parts)


def _best(parts: list[k.Best]) -> k.Best:
    winner = np.argmax([p.value for p in parts], axis=0)
    index = np.choose(winner, [p.index for p in parts])
    return k.Best(np.choose(winner, [p.value for p in parts]), index)


def _reassemble(machine: Machine, segment: Segment, op: Op, members: list[int], arrays: list[k.Floats]) -> Take:
    """Blocks taken from those that members hold, added up by a reduction. Copies of a block must agree. Fails when no
    member holds a needed element, or (permute: one message a rank) when several have to send."""
    have = segment.sharding_of(op.inputs[0])
    assert have is not None
    whole = machine.whole(segment, op.dims, op.scope)
    total, source = np.zeros(whole), np.full(whole, -1)
    blocks: dict[tuple[tuple[int, int], ...], list[k.Floats]] = {}
    for i, array in zip(members, arrays, strict=True):
        parts = machine.parts(whole, have.dims, machine.ranks[i])
        blocks.setdefault(tuple((p.start, p.stop) for p in parts), []).append(array)
    for number, (key, found) in enumerate(blocks.items()):
        where = tuple(slice(*edges) for edges in key)
        total[where] = np.sum(found, axis=0) if op.kind in REDUCTIONS else _agreed(op, found)
        source[where] = number

    def take(rank: Mapping[str, int], got: Sharding) -> k.Floats:
        where = machine.parts(whole, got.dims, rank)
        if (source[where] < 0).any():
            raise Wrong(f"{op.name}: a rank needs what no member of its group holds")
        if op.kind == "permute" and source[where].size and np.ptp(source[where]):
            raise Wrong(f"{op.name}: a rank needs what no single member of its group holds")
        return total[where].copy()

    return take


def _agreed(op: Op, copies: list[k.Floats]) -> k.Floats:
    first = copies[0]
    allowed = AGREE * float(np.abs(first).max(initial=0.0))
    if any(float(np.abs(first - other).max(initial=0.0)) > allowed for other in copies[1:]):
        raise Wrong(f"{op.name}: members of a group hold different values of one block")
    return first


def slice_value(machine: Machine, segment: Segment, op: Op, env: Env) -> list[object]:
    """Each rank keeps its part of what it holds."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    whole = machine.whole(segment, op.dims, op.scope)
    out: list[object] = []
    for i, (rank, value) in enumerate(zip(machine.ranks, env[op.inputs[0]], strict=True)):
        if isinstance(value, k.Ragged):
            out += move(machine, segment, op, [i], [value])
            continue
        edges = zip(machine.parts(whole, have.dims, rank), machine.parts(whole, got.dims, rank), strict=True)
        parts = tuple(slice(new.start - old.start, new.stop - old.start) for old, new in edges)
        if any(p.start < 0 for p in parts):
            raise Wrong(f"{op.name}: keeps what the rank does not hold")
        out.append(_cut(op, value, parts))
    return out


def _cut(op: Op, value: object, parts: tuple[slice, ...]) -> object:
    if isinstance(value, k.Routed):
        return k.Routed(value.experts[parts], value.weights[parts])
    if isinstance(value, k.Best):
        return k.Best(value.value[parts], value.index[parts])
    if isinstance(value, k.Softmax):
        return k.Softmax(value.output[parts], value.maxima[parts[:-1]], value.sums[parts[:-1]])
    if not isinstance(value, np.ndarray):
        raise CannotRun(f"a slice of {type(value).__name__}")
    return value[parts]
