"""Collectives between ranks: each member of a group sees what the others hold, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..ir.graph import Op, Segment
from ..ir.sharding import Axes, Sharding
from . import kernels as k

if TYPE_CHECKING:
    from .execute import Machine

Env = Mapping[str, list[object]]


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
        return _softmax(op, values, [env[n][members[0]] for n in op.inputs[1:]])
    if isinstance(values[0], k.Best):
        best = [v for v in values if isinstance(v, k.Best)]
        if op.attr("reduce") == "max":
            return [_best(best)] * len(values)
        value = _reassemble(machine, op, have, members, [b.value for b in best])
        index = _reassemble(machine, op, have, members, [b.index.astype(np.float64) for b in best])
        ranks = [machine.ranks[i] for i in members]
        return [k.Best(value(r, got), index(r, got).astype(np.int64)) for r in ranks]
    if isinstance(values[0], k.Ragged):
        return _ragged(machine, segment, op, have, got, members, [v for v in values if isinstance(v, k.Ragged)])
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    if op.attr("steps"):  # a full turn of the ring brings every block past every rank
        axis = op.dims.index("context")
        order = sorted(range(len(members)), key=lambda n: machine.block(got.dims[axis], machine.ranks[members[n]]))
        return [np.concatenate([arrays[n] for n in order], axis=axis)] * len(values)
    if op.kind == "all_reduce":
        return [sum(arrays[1:], arrays[0])] * len(values)
    pieces = _reassemble(machine, op, have, members, arrays)
    return [pieces(machine.ranks[i], got) for i in members]


def _softmax(op: Op, values: list[object], stats: list[object]) -> list[object]:
    """Row maxima, then row sums, then outputs of pieces of the context."""
    parts = [v for v in values if isinstance(v, k.Softmax)]
    if op.attr("of") == "row_max":
        result: object = np.max([p.maxima for p in parts], axis=0)
    elif op.attr("of") == "row_sum":
        peak = stats[0]
        assert isinstance(peak, np.ndarray)
        result = (peak, np.sum([p.sums * np.exp(p.maxima - peak) for p in parts], axis=0))
    else:
        assert isinstance(stats[0], tuple)
        peak, total = stats[0]
        result = np.sum([p.output * np.exp(p.maxima - peak)[..., None] for p in parts], axis=0) / total[..., None]
    return [result] * len(values)


def _best(parts: list[k.Best]) -> k.Best:
    winner = np.argmax([p.value for p in parts], axis=0)
    index = np.choose(winner, [p.index for p in parts])
    return k.Best(np.choose(winner, [p.value for p in parts]), index)


def _reassemble(machine: Machine, op: Op, have: Sharding, members: list[int], arrays: list[k.Floats]):  # type: ignore[no-untyped-def]
    """A function (rank, layout) -> the block that this layout gives the rank, taken from blocks that members hold
    (added up where they are pending sums over the group). Fails when no member holds a needed element."""
    summed = set(have.partial) & set(op.axes)
    whole = tuple(n * machine.mesh.size(axes) for n, axes in zip(arrays[0].shape, have.dims, strict=True))
    total, seen = np.zeros(whole), np.zeros(whole, dtype=int)
    blocks: dict[tuple[int, ...], list[k.Floats]] = {}
    for i, array in zip(members, arrays, strict=True):
        key = tuple(machine.block(axes, machine.ranks[i]) for axes in have.dims)
        blocks.setdefault(key, []).append(array)
    for key, found in blocks.items():
        where = tuple(slice(b * n, (b + 1) * n) for b, n in zip(key, arrays[0].shape, strict=True))
        total[where] = sum(found[1:], found[0]) if summed else found[0]
        seen[where] = 1

    def take(rank: Mapping[str, int], got: Sharding) -> k.Floats:
        where = tuple(machine.part(n, axes, rank) for n, axes in zip(whole, got.dims, strict=True))
        if not seen[where].all():
            raise ValueError(f"{op.name}: a rank needs what no member of its group holds")
        return total[where].copy()

    return take


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
    physical = len(machine.physical(segment)[0])
    summed = bool(set(have.partial) & set(op.axes))
    pool: dict[int, dict[tuple[int, ...], k.Floats]] = {}
    for value in values:
        for p, (keys, data) in value.rows.items():
            rows = pool.setdefault(p, {})
            for key, row in zip(map(tuple, keys.tolist()), data, strict=True):
                rows[key] = rows[key] + row if summed and key in rows else row
    home = _homes(machine, segment)
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


def _homes(machine: Machine, segment: Segment):  # type: ignore[no-untyped-def]
    """(batch, seq) of a token -> coordinates of the rank that owns it, along the axes that split tokens."""
    op = next(o for o in segment.ops if o.kind == "dispatch")
    batch, seq = int(segment.sizes["batch"]), int(segment.sizes["seq"])

    def find(key: tuple[int, ...]) -> dict[str, int]:
        out: dict[str, int] = {}
        for index, size, axes in ((key[0] - machine.offset, batch, op.loop("batch")), (key[1], seq, op.loop("seq"))):
            block = index // (size // machine.mesh.size(axes))
            for axis in reversed(axes):
                block, out[axis] = divmod(block, machine.mesh.sizes[axis])
        return out

    return find


def _at_home(home, key: tuple[int, ...], axes: Axes, rank: Mapping[str, int]) -> bool:  # type: ignore[no-untyped-def]
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
