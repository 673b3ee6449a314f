"""Spare copies of experts, and the greedy packing of all replicas on ranks (deepseek-ai/EPLB), without two copies of one expert on a rank.

Many layers are packed together, a replica of each at a time; few, one by one. What is found is the same.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from itertools import pairwise

import numpy as np

from ..base.arrays import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW_LAYERS = 12
"""So many and fewer are packed one by one, which takes less: a step over layers has its costs whatever their number."""


def descending(loads: Floats) -> Ints:
    """Places of the loads of each row, the largest first, of equal ones the first (loads that differ in their last bits count as equal).
    Sorting numbers with their place in the last bits is several times as fast as a stable sort of places."""
    places = loads.shape[1]
    last = (1 << places.bit_length()) - 1
    key = (np.ascontiguousarray(loads).view(np.int64) & ~last) | (last - np.arange(places))
    key.sort(axis=1)
    return np.asarray(last - (key[:, ::-1] & last))


def copies_of(p: Floats, spare: int, ranks: int) -> Ints:
    """Copies of each expert [layers, experts]: each spare one goes to the expert with the largest load a replica that has not one
    on every rank yet; of equal ones to the first. No other copies have a smaller largest load."""
    layers, experts = p.shape
    copies = np.ones((layers, experts), dtype=np.int64)
    many = min(spare, experts)
    if not many:
        return copies
    top = np.sort(descending(p)[:, :many], axis=1)  # no others get a copy
    whole = np.take_along_axis(p, top, axis=1).ravel()
    each, own = whole.copy(), np.ones(len(whole))
    if ranks == 1:
        each[:] = -1.0
    first = np.arange(layers) * many
    for _ in range(spare):
        at = each.reshape(layers, many).argmax(axis=1) + first
        count = own.take(at) + 1.0
        own[at] = count
        left = whole.take(at) / count
        each[at] = left if spare < ranks else np.where(count < ranks, left, -1.0)
    np.put_along_axis(copies, top, own.reshape(layers, many).astype(np.int64), axis=1)
    return copies


def pack_layers(weight: Floats, copies: Ints, ranks: int, per_rank: int) -> Ints:
    """`pack_replicas` of every layer [layers, ranks, slots a rank]; `weight` and `copies` [layers, experts]."""
    if len(weight) <= FEW_LAYERS:
        return np.stack([pack_replicas(own, many, ranks, per_rank) for own, many in zip(weight, copies, strict=True)])
    found, right = _pack_together(weight, copies, ranks, per_rank)
    for layer in np.flatnonzero(~right):  # where room has to be made
        found[layer] = pack_replicas(weight[layer], copies[layer], ranks, per_rank)
    return found


def _pack_together(weight: Floats, copies: Ints, ranks: int, per_rank: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Slots, and which layers could be packed without making room. The lightest rank is the least of complex numbers, which are in
    the order of their real part (the load), then of their imaginary one (the experts). A rank that has a copy is not there, as a full one is not, until
    all copies of that expert are placed."""
    layers, experts = weight.shape
    slots = ranks * per_rank
    order = _heaviest_first(weight)
    many = np.take_along_axis(copies, order, axis=1)
    expert = np.repeat(order, many.ravel()).reshape(layers, slots)
    after = np.empty((slots, layers), dtype=complex)  # of the rank that gets a replica, load and experts
    after.real, after.imag = np.take(weight, expert + experts * np.arange(layers)[:, None]).T, 1.0
    first = np.arange(layers) * ranks
    place = np.empty((slots, layers), dtype=np.intp)
    place[:ranks] = first + np.arange(ranks)[:, None]  # as long as any rank has nothing
    if per_rank > 1:
        layer, step, end = _followed(many)
        light = after[:ranks].T.copy()
        early = (step < ranks) & (end >= ranks)
        light[layer[early], step[early]] = np.inf
        away, back = _grouped(layer, step, slots), _grouped(step * layers + layer, end, slots)
        _fill(light, after, place, first, float(per_rank), away, back)
    key = ((place - first).T * experts + expert).astype(np.int32 if slots * experts < 2**31 else np.int64)
    key.sort(axis=1)
    rank, found = (part.reshape(layers, ranks, per_rank) for part in np.divmod(key, experts))
    right = (rank == np.arange(ranks)[:, None]).all(axis=(1, 2)) & (found[:, :, 1:] > found[:, :, :-1]).all(axis=(1, 2))
    return found.astype(np.int64), right


def _heaviest_first(weight: Floats) -> Ints:
    """As a stable sort, of loads that differ in their last bits too."""
    order = descending(weight)
    own = np.take_along_axis(weight, order, axis=1)
    wrong = (own[:, 1:] > own[:, :-1]).any(axis=1)
    order[wrong] = np.argsort(-weight[wrong], axis=1, kind="stable")
    return order


def _followed(many: Ints) -> tuple[Ints, Ints, Ints]:
    """Layers and numbers of the copies that others of their expert follow, and numbers of the last of these. `many` [layers, experts]: copies."""
    layer, at = np.nonzero(many > 1)
    last, others = many.cumsum(axis=1)[layer, at] - 1, many[layer, at] - 1
    own = np.repeat(np.arange(len(others)), others)
    before = np.arange(len(own)) - (others.cumsum() - others)[own] + 1
    return layer[own], last[own] - before, last[own]


def _grouped(values: Ints, group: Ints, groups: int) -> list[Ints | None]:
    """The values of each group."""
    order = np.argsort(group)
    ends, own = np.searchsorted(group[order], np.arange(groups + 1)).tolist(), values[order]
    return [own[a:b] if b > a else None for a, b in pairwise(ends)]


def _fill(
    light: NDArray[np.complex128], after: NDArray[np.complex128], place: NDArray[np.intp], first: Ints, most: float,
    away: list[Ints | None], back: list[Ints | None],
) -> None:  # fmt: skip
    """Replicas after those that found empty ranks, in place: `light` [layers, ranks] has what ranks hold, infinity where a replica may not
    go; `after` and `place` [slots, layers] get the ranks. `away`: of each step the layers whose rank is left out until the step that has it in `back`."""
    ranks, layers = light.shape[1], len(light)
    flat, flat_after, flat_place = light.ravel(), after.ravel(), place.ravel()
    full, limit = np.empty(layers, dtype=bool), np.full(layers, most)
    lightest, add, equal, some = light.argmin, np.add, np.equal, np.count_nonzero
    for own, new, out, again in zip(place[ranks:], after[ranks:], away[ranks:], back[ranks:], strict=True):
        lightest(1, own)
        add(own, first, own)
        add(flat[own], new, new)
        equal(new.imag, limit, full)
        if some(full):
            new[full] = np.inf
        flat[own] = new
        if out is not None:
            flat[own[out]] = np.inf
        if again is not None:
            flat[flat_place[again]] = flat_after[again]


def pack_replicas(weight: Floats, copies: Ints, ranks: int, per_rank: int) -> Ints:
    """Slots [ranks, slots a rank] of replicas of `weight` [experts] each, heaviest first, each to the lightest rank with a free slot and without
    the expert (deepseek-ai/EPLB, balanced packing); ties go to the rank with fewer experts, then the first.

    Raises ValueError when an expert has more copies than there are ranks.
    """
    if copies.max() > ranks:
        raise ValueError(f"{copies.max()} replicas of one expert do not fit {ranks} ranks without doubles")
    held: list[list[int]] = [[] for _ in range(ranks)]
    load = [0.0] * ranks
    light = [(0.0, 0, rank) for rank in range(ranks)]  # a heap of the ranks with room
    each, many = weight.tolist(), copies.tolist()
    for expert in np.argsort(-weight, kind="stable").tolist():
        if many[expert] == 1 and light:
            _, used, rank = light[0]
            load[rank] += each[expert]
            held[rank].append(expert)
            if used + 1 < per_rank:
                heapreplace(light, (load[rank], used + 1, rank))
            else:
                heappop(light)
            continue
        holders: list[int] = []
        for _ in range(many[expert]):
            if light:
                rank = heappop(light)[2]
            else:
                room, rank, moved = _make_room(held, per_rank, holders)
                load[room], load[rank] = load[room] + each[moved], load[rank] - each[moved]
            held[rank].append(expert)
            load[rank] += each[expert]
            holders.append(rank)
        for rank in holders:
            if len(held[rank]) < per_rank:
                heappush(light, (load[rank], len(held[rank]), rank))
    slots = np.array(held, dtype=np.int64)
    slots.sort(axis=1)
    return slots


def _make_room(held: list[list[int]], per_rank: int, holders: list[int]) -> tuple[int, int, int]:
    """Every rank with room already has the expert: another expert moves there from a full rank that does not. Returns the rank that
    had room, the one that has it now, and the expert.

    Always possible: the giver has more distinct experts than the rank with room, so one of them is new there.
    """
    giver = next(rank for rank in range(len(held)) if rank not in holders)
    room = next(rank for rank in range(len(held)) if len(held[rank]) < per_rank)
    place = next(k for k, expert in enumerate(held[giver]) if expert not in held[room])
    moved = held[giver].pop(place)
    held[room].append(moved)
    return room, giver, moved
