"""Spare copies of experts, and the greedy packing of all replicas on ranks (deepseek-ai/EPLB), without two copies of one expert on a rank."""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace

import numpy as np

from ..base.arrays import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
