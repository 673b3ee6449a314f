"""Collectives between ranks: each member of a group sees what the others hold, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..ir.experts import Rows, rows_of
from ..ir.graph import Op, Segment
from ..ir.sharding import Axes, Sharding
from . import kernels as k

if TYPE_CHECKING:
    from .execute import Machine

Env = Mapping[str, list[object]]
Take = Callable[[Mapping[str, int], Sharding], k.Floats]
"""(rank, layout) -> the block that this layout gives the rank."""
Homes = Callable[[tuple[int, ...]], dict[str, int]]
"""Key of a routed row -> coordinates of the rank that owns its token, along the axes that split tokens."""
REDUCTIONS = ("all_reduce", "reduce_scatter")
AGREE = 1e-9
"""Largest difference between copies of one block, relative to its largest value."""


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
    if isinstance(values[0], k.Best):
        best = [v for v in values if isinstance(v, k.Best)]
        if op.kind == "all_reduce":
            if op.attr("reduce") != "max":
                raise ValueError(f"{op.name}: the largest of several is no {op.attr('reduce', 'sum')}")
            return [_best(best)] * len(values)
        value = _reassemble(machine, op, have, members, [b.value for b in best])
        index = _reassemble(machine, op, have, members, [b.index.astype(np.float64) for b in best])
        ranks = [machine.ranks[i] for i in members]
        return [k.Best(value(r, got), index(r, got).astype(np.int64)) for r in ranks]
    if isinstance(values[0], k.Routed):
        routed = [v for v in values if isinstance(v, k.Routed)]
        experts = _reassemble(machine, op, have, members, [r.experts.astype(np.float64) for r in routed])
        weights = _reassemble(machine, op, have, members, [r.weights for r in routed])
        ranks = [machine.ranks[i] for i in members]
        return [k.Routed(experts(r, got).astype(np.int64), weights(r, got)) for r in ranks]
    if isinstance(values[0], k.Ragged):
        return _ragged(machine, segment, op, have, got, members, [v for v in values if isinstance(v, k.Ragged)])
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    if op.attr("steps"):
        return [_ring(machine, op, have, members, arrays)] * len(values)
    if op.kind == "all_reduce":
        return [_reduced(op, arrays)] * len(values)
    pieces = _reassemble(machine, op, have, members, arrays)
    return [pieces(machine.ranks[i], got) for i in members]


def _may_move(op: Op, have: Sharding) -> None:
    """A reduction reduces what is pending over its group; anything else leaves pending sums as they are, which it can
    only do if none of them is over its group."""
    pending = set(have.partial) & set(op.axes)
    if op.kind in REDUCTIONS and pending != set(op.axes):
        raise ValueError(f"{op.name}: reduces over {op.axes}, pending is {have.partial}")
    if op.kind not in REDUCTIONS and pending:
        raise ValueError(f"{op.name}: moves what is still pending over {sorted(pending)}")


def _reduced(op: Op, arrays: list[k.Floats]) -> k.Floats:
    if op.attr("reduce", "sum") != "sum":
        raise ValueError(f"{op.name}: a pending sum is not reduced by {op.attr('reduce')}")
    return np.asarray(np.sum(arrays, axis=0))


def _ring(machine: Machine, op: Op, have: Sharding, members: list[int], arrays: list[k.Floats]) -> k.Floats:
    """What has passed a rank after a turn: every block, when there are as many steps as other ranks."""
    if int(op.attr("steps", 0) or 0) != len(members) - 1:
        raise ValueError(f"{op.name}: {op.attr('steps')} steps are no turn of a ring of {len(members)}")
    axis = op.dims.index("context")
    order = sorted(range(len(members)), key=lambda n: machine.block(have.dims[axis], machine.ranks[members[n]]))
    return np.concatenate([arrays[n] for n in order], axis=axis)


def _softmax(op: Op, values: list[object], stats: list[list[object]]) -> list[object]:
    """Row maxima, then row sums, then outputs of pieces of the context. `stats`: the statistics that each member has."""
    if op.kind != "all_reduce":
        raise ValueError(f"{op.name}: pieces of a softmax are merged by all_reduce only")
    parts = [v for v in values if isinstance(v, k.Softmax)]
    if op.attr("of") == "row_max":
        return [np.max([p.maxima for p in parts], axis=0)] * len(parts)
    if op.attr("of") == "row_sum":
        peaks = [s[0] for s in stats]
        sums = [p.sums * np.exp(p.maxima - peak) for p, peak in zip(parts, peaks, strict=True)]  # type: ignore[operator]
        return [(peak, np.sum(sums, axis=0)) for peak in peaks]
    outputs = []
    for part, (pair,) in zip(parts, stats, strict=True):
        assert isinstance(pair, tuple)
        peak, total = pair
        outputs.append(part.output * (np.exp(part.maxima - peak) / total)[..., None])
    return [np.sum(outputs, axis=0)] * len(parts)


def _best(parts: list[k.Best]) -> k.Best:
    winner = np.argmax([p.value for p in parts], axis=0)
    index = np.choose(winner, [p.index for p in parts])
    return k.Best(np.choose(winner, [p.value for p in parts]), index)


def _reassemble(machine: Machine, op: Op, have: Sharding, members: list[int], arrays: list[k.Floats]) -> Take:
    """Blocks taken from those that members hold, added up by a reduction. Copies of a block must agree. Fails when no
    member holds a needed element, or (permute: one message a rank) when several have to send."""
    whole = tuple(n * machine.mesh.size(axes) for n, axes in zip(arrays[0].shape, have.dims, strict=True))
    total, source = np.zeros(whole), np.full(whole, -1)
    blocks: dict[tuple[int, ...], list[k.Floats]] = {}
    for i, array in zip(members, arrays, strict=True):
        key = tuple(machine.block(axes, machine.ranks[i]) for axes in have.dims)
        blocks.setdefault(key, []).append(array)
    for number, (key, found) in enumerate(blocks.items()):
        where = tuple(slice(b * n, (b + 1) * n) for b, n in zip(key, arrays[0].shape, strict=True))
        total[where] = np.sum(found, axis=0) if op.kind in REDUCTIONS else _agreed(op, found)
        source[where] = number

    def take(rank: Mapping[str, int], got: Sharding) -> k.Floats:
        where = tuple(machine.part(n, axes, rank) for n, axes in zip(whole, got.dims, strict=True))
        if (source[where] < 0).any():
            raise ValueError(f"{op.name}: a rank needs what no member of its group holds")
        if op.kind == "permute" and np.ptp(source[where]):
            raise ValueError(f"{op.name}: a rank needs what no single member of its group holds")
        return total[where].copy()

    return take


def _agreed(op: Op, copies: list[k.Floats]) -> k.Floats:
    first = copies[0]
    allowed = AGREE * float(np.abs(first).max(initial=0.0))
    if any(float(np.abs(first - other).max(initial=0.0)) > allowed for other in copies[1:]):
        raise ValueError(f"{op.name}: members of a group hold different values of one block")
    return first


def _ragged(
    machine: Machine,
    segment: Segment,
    op: Op,
    have: Sharding,
    got: Sharding,
    members: list[int],
    values: list[k.Ragged],
) -> list[object]:
    """Routed rows: which rank keeps a row follows from its expert and from the home of its token."""
    width = op.dims.index(op.dims[-1])
    assert not have.dims[width] and not got.dims[width], "routed rows are never split in width"
    own = rows_of(op.dims)
    assert own is not None
    physical = len(machine.physical(segment, own)[0])
    summed = op.kind in REDUCTIONS
    pool: dict[int, dict[tuple[int, ...], k.Floats]] = {}
    for value in values:
        for p, (keys, data) in value.rows.items():
            rows = pool.setdefault(p, {})
            for key, row in zip(map(tuple, keys.tolist()), data, strict=True):
                if key in rows and not summed:
                    raise ValueError(f"{op.name}: two members of a group send the row of one token")
                rows[key] = rows[key] + row if key in rows else row
    home = _homes(machine, segment, own)
    out: list[object] = []
    for i in members:
        rank = machine.ranks[i]
        experts = range(physical)[machine.part(physical, got.dims[0], rank)]
        kept: dict[int, tuple[k.Ints, k.Floats]] = {}
        for p in experts:
            rows = {key: row for key, row in pool.get(p, {}).items() if _at_home(home, key, got.dims[1], rank)}
            ordered = sorted(rows)
            size = next(iter(values[0].rows.values()))[1].shape[-1]
            data = np.asarray([rows[key] for key in ordered]).reshape(-1, size)
            kept[p] = (np.asarray(ordered, dtype=np.int64).reshape(-1, 3), data)
        out.append(k.Ragged(kept))
    return out


def _homes(machine: Machine, segment: Segment, rows: Rows) -> Homes:
    op = next(o for o in segment.ops if o.kind == "dispatch" and rows.slot in o.dims)
    batch, seq = int(segment.sizes["batch"]), int(segment.sizes["seq"])

    def find(key: tuple[int, ...]) -> dict[str, int]:
        out: dict[str, int] = {}
        for index, size, axes in ((key[0] - machine.offset, batch, op.loop("batch")), (key[1], seq, op.loop("seq"))):
            block = index // (size // machine.mesh.size(axes))
            for axis in reversed(axes):
                block, out[axis] = divmod(block, machine.mesh.sizes[axis])
        return out

    return find


def _at_home(home: Homes, key: tuple[int, ...], axes: Axes, rank: Mapping[str, int]) -> bool:
    coordinates = home(key)
    return all(coordinates[a] == rank[a] for a in axes)


def slice_value(machine: Machine, segment: Segment, op: Op, env: Env) -> list[object]:
    """Each rank keeps its part of what it holds."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    out: list[object] = []
    for rank, value in zip(machine.ranks, env[op.inputs[0]], strict=True):
        if isinstance(value, k.Ragged):
            out += _ragged(machine, segment, op, have, got, [machine.ranks.index(rank)], [value])
            continue
        whole = value.experts if isinstance(value, k.Routed) else value
        assert isinstance(whole, np.ndarray)
        parts = tuple(
            machine.part(n, g[len(h) :], rank) for n, h, g in zip(whole.shape, have.dims, got.dims, strict=True)
        )
        out.append(k.Routed(whole[parts], value.weights[parts]) if isinstance(value, k.Routed) else whole[parts])
    return out
