"""Experts and their spare copies on ranks, so that the busiest rank has the least load: many layers at once.

What no placement of given copies beats: the mean of the ranks, and on the rank of the heaviest replica that replica with the lightest
ones of all in its other slots. Heavy replicas that the second bound decides get just that. The others are put together by largest
differences (balanced largest-differencing method: S. Tsai, "Asymptotic analysis of an algorithm for balanced parallel processor
scheduling", 1992): rows of one replica for each rank, of which the two most uneven are laid on each other, heaviest on lightest, until
one is left. Then the busiest rank swaps replicas with others as long as that helps. Where that ends above the bounds, the greedy packing is a
second start. Few slots are searched through.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..base.arrays import NDArray
from .expert_packing import copies_of, descending, pack_replicas

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EXACT_SLOTS = 16
"""So many slots and fewer are searched through, in some milliseconds."""
EXACT_SLOTS_WITH_SPARES = 12
"""The same where copies of any expert may be in some of them."""
MOST_SWAPS = 32
CLOSE = 3e-3
"""A busiest rank so near its bound is left as it is."""


def balanced_slots(p: Floats, ranks: int, spare: int) -> Ints:
    """The expert in each slot [layers, ranks, slots], those of a rank in order, ranks by their first. `p` [layers, experts]: loads;
    `spare` copies beside one of each expert, never two of one on a rank. The slots divide over the ranks."""
    slots = p.shape[1] + spare
    if slots <= (EXACT_SLOTS_WITH_SPARES if spare else EXACT_SLOTS) and 1 < ranks < slots:
        found = np.stack([_least(own, ranks, spare) for own in p])
    else:
        found = _packed(p, copies_of(p, spare, ranks), ranks)
    found.sort(axis=2)
    order = np.argsort(found[:, :, 0], axis=1, kind="stable")
    return np.asarray(np.take_along_axis(found, order[:, :, None], axis=1))


def least_load(p: Floats, copies: Ints, ranks: int) -> Floats:
    """What the busiest rank of no placement of these copies has less than [layers]: the mean, or the heaviest replica with the
    lightest ones beside it."""
    return _bound(_replicas(p / copies, copies)[1], ranks)


def _replicas(each: Floats, copies: Ints) -> tuple[Ints, Floats]:
    """Expert and load of every replica [layers, slots], heaviest first. `each` [layers, experts]: load of a replica."""
    layers, experts = each.shape
    expert = np.repeat(np.tile(np.arange(experts), layers), copies.ravel()).reshape(layers, -1)
    weight = np.take_along_axis(each, expert, axis=1)
    order = descending(weight)
    return np.take_along_axis(expert, order, axis=1), np.take_along_axis(weight, order, axis=1)


def _bound(weight: Floats, ranks: int) -> Floats:
    """[layers]; `weight` of replicas [layers, slots], heaviest first."""
    slots = weight.shape[1]
    beside = weight[:, 0] + weight[:, slots + 1 - slots // ranks :].sum(axis=1)
    return np.asarray(np.maximum(weight.sum(axis=1) / ranks, beside))


# -- largest differences -----------------------------------------------------------------------------


def _packed(p: Floats, copies: Ints, ranks: int) -> Ints:
    """[layers, ranks, slots]"""
    layers, each = len(p), p / copies
    expert, weight = _replicas(each, copies)
    alone = _alone(weight, ranks)
    per_rank = expert.shape[1] // ranks
    found = np.empty((layers, ranks, per_rank), dtype=np.int64)
    for count in np.unique(alone):
        own = np.flatnonzero(alone == count)
        found[own] = _differences(expert[own], weight[own], ranks, per_rank, int(count))
    _part_doubles(found, each)
    bound = _bound(weight, ranks)
    busiest = _swap(found, each, bound)
    again = np.flatnonzero(busiest > bound * (1.0 + CLOSE))
    if len(again):
        second = np.stack([pack_replicas(each[k], copies[k], ranks, per_rank) for k in again])
        better = _swap(second, each[again], bound[again]) < busiest[again]
        found[again[better]] = second[better]
    return found


def _alone(weight: Floats, ranks: int) -> Ints:
    """How many of the heaviest replicas [layers] have more than the mean of the ranks that are left, with the lightest replicas that are
    left in the other slots of their rank. `weight` [layers, slots], heaviest first."""
    layers, slots = weight.shape
    others = slots // ranks - 1
    load = weight[:, :ranks].copy()
    if others:
        load += weight[:, ::-1][:, : ranks * others].reshape(layers, ranks, others).sum(axis=2)
    left = load[:, ::-1].cumsum(axis=1)[:, ::-1] / np.arange(ranks, 0, -1)
    return np.asarray(np.logical_and.accumulate(load > left * (1 + 1e-12), axis=1).sum(axis=1))


def _differences(expert: Ints, weight: Floats, ranks: int, per_rank: int, alone: int) -> Ints:
    """`alone` heavy replicas with the lightest of all, the others by largest differences."""
    layers, slots = weight.shape
    light = alone * (per_rank - 1)
    found = np.empty((layers, ranks, per_rank), dtype=np.int64)
    found[:, :alone, 0] = expert[:, :alone]
    found[:, :alone, 1:] = expert[:, ::-1][:, :light].reshape(layers, alone, per_rank - 1)
    rest = slice(alone, slots - light)
    ranks -= alone
    if not ranks:
        return found
    load = weight[:, rest].reshape(layers, per_rank, ranks).copy()
    spread = load[:, :, 0] - load[:, :, -1]
    row = np.arange(layers)
    merged = []
    for _ in range(per_rank - 1):
        one = spread.argmax(axis=1)
        spread[row, one] = -1.0
        other = spread.argmax(axis=1)
        total = load[row, one] + load[row, other][:, ::-1]
        order = np.argsort(-total, axis=1)
        total = np.take_along_axis(total, order, axis=1)
        load[row, one] = total
        spread[row, one], spread[row, other] = total[:, 0] - total[:, -1], -2.0
        merged.append((one, other, order))
    rank = np.broadcast_to(
        np.arange(ranks), (layers, per_rank, ranks)
    ).copy()  # of each replica, back through the merges
    place = row[:, None]
    for one, other, order in reversed(merged):
        last = rank[row, one]
        rank[place, one[:, None], order] = last
        rank[place, other[:, None], ranks - 1 - order] = last
    by_rank = np.argsort(rank, axis=2)  # each row has one replica of each rank
    own = np.take_along_axis(expert[:, rest].reshape(layers, per_rank, ranks), by_rank, axis=2)
    found[:, alone:] = own.transpose(0, 2, 1)
    return found


# -- swaps -------------------------------------------------------------------------------------------


def _part_doubles(found: Ints, each: Floats) -> None:
    """Copies of one expert on one rank go elsewhere, in place: each to the rank, in exchange for the replica, that makes the busier of
    both the least busy. A rank with a double has fewer experts than one without, so one of those is new to it."""
    ordered = np.sort(found, axis=2)
    for layer in np.flatnonzero((ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=(1, 2))):
        slots, own = found[layer], each[layer]
        while True:
            inside = np.sort(slots, axis=1)
            twice = np.argwhere(inside[:, 1:] == inside[:, :-1])
            if not len(twice):
                break
            rank, expert = int(twice[0, 0]), int(inside[twice[0, 0], twice[0, 1]])
            load = own[slots].sum(axis=1)
            lacks = ~(slots == expert).any(axis=1)
            new = lacks[:, None] & ~np.isin(slots, slots[rank])
            change = own[slots] - own[expert]
            worse = np.where(new, np.maximum(load[rank] + change, load[:, None] - change), np.inf)
            other, place = np.unravel_index(int(worse.argmin()), worse.shape)
            slots[rank, int(np.flatnonzero(slots[rank] == expert)[0])] = slots[other, place]
            slots[other, place] = expert


def _swap(found: Ints, each: Floats, bound: Floats) -> Floats:
    """The busiest rank of each layer swaps a replica with another rank, in place, whatever brings both nearest to each other, while that
    makes the busiest rank less busy and it is not at its bound: with the least busy rank; where that helps no more, with the next. Returns the load of the busiest."""
    layers, ranks, per_rank = found.shape
    load = each[np.arange(layers)[:, None, None], found].sum(axis=2)
    if per_rank == 1:
        return np.asarray(load.max(axis=1))
    active, tried = np.arange(layers), np.zeros(layers, dtype=np.int64)
    for _ in range(MOST_SWAPS):
        goes_on = (load[active].max(axis=1) > bound[active] * (1.0 + CLOSE)) & (tried[active] < ranks - 1)
        active = active[goes_on]
        if not len(active):
            break
        own = load[active]
        row = np.arange(len(active))
        by_load = np.argsort(own, axis=1, kind="stable")
        most, other = by_load[:, -1], by_load[row, tried[active]]
        ours, theirs = found[active, most], found[active, other]
        gain = each[active[:, None], ours][:, :, None] - each[active[:, None], theirs][:, None, :]
        half = (own[row, most] - own[row, other]) / 2
        same = ours[:, :, None] == theirs[:, None, :]
        taken = same.any(axis=2)[:, :, None] | same.any(axis=1)[:, None, :]
        off = np.where(taken, np.inf, np.abs(gain - half[:, None, None])).reshape(len(active), -1)
        best = off.argmin(axis=1)
        helps = off[row, best] < half * (1 - 1e-9)
        tried[active] = np.where(helps, 0, tried[active] + 1)
        at, i, j = active[helps], best[helps] // per_rank, best[helps] % per_rank
        most, other, moved = most[helps], other[helps], gain.reshape(len(active), -1)[row, best][helps]
        found[at, most, i], found[at, other, j] = found[at, other, j], found[at, most, i]
        load[at, most] -= moved
        load[at, other] += moved
    return np.asarray(load.max(axis=1))


# -- few slots ---------------------------------------------------------------------------------------


def _least(p: Floats, ranks: int, spare: int) -> Ints:
    """The placement of one layer whose busiest rank has least, over all numbers of copies [ranks, slots]."""
    experts = len(p)
    per_rank = (experts + spare) // ranks
    first = _packed(p[None], copies_of(p[None], spare, ranks), ranks)[0]
    copies = np.bincount(first.ravel(), minlength=experts)
    best: Ints = first
    most = float((p / copies)[first].sum(axis=1).max())
    for own in _copies(experts, spare, ranks):
        weight = p / own
        if max(float(p.sum()) / ranks, float(weight.max())) >= most * (1 - 1e-12):
            continue
        found = _searched(weight.tolist(), list(own), ranks, per_rank, most)
        if found is not None:
            best, most = np.asarray(found), float(weight[np.asarray(found)].sum(axis=1).max())
    return best


def _copies(experts: int, spare: int, ranks: int) -> list[tuple[int, ...]]:
    """Every number of copies of each expert, none more than ranks."""
    found = []
    for bars in combinations(range(experts + spare - 1), experts - 1):
        ends = (-1, *bars, experts + spare - 1)
        own = tuple(ends[k + 1] - ends[k] for k in range(experts))
        if max(own) <= ranks:
            found.append(own)
    return found


def _searched(
    weight: list[float], copies: list[int], ranks: int, per_rank: int, below: float
) -> list[list[int]] | None:
    """Ranks filled one after another with all that keeps them below what was found, least busiest rank of all; None: there is none."""
    left = copies[:]
    mean = sum(w * n for w, n in zip(weight, copies, strict=True)) / ranks
    taken: list[list[int]] = []
    best: list[list[int]] | None = None
    limit = below * (1 - 1e-12)

    def fill(load_left: float) -> None:
        nonlocal best, limit
        if len(taken) == ranks:
            best = [list(own) for own in taken]
            limit = max(sum(weight[e] for e in own) for own in best) * (1 - 1e-12)
            return
        there = [e for e, n in enumerate(left) if n]
        heaviest = max(there, key=lambda e: weight[e])  # some rank has it: this one
        after = ranks - len(taken) - 1
        for others in combinations([e for e in there if e != heaviest], per_rank - 1):
            own = (heaviest, *others)
            load = sum(weight[e] for e in own)
            if load >= limit or load_left - load >= limit * max(after, 0) + (0 if after else 1e-9):
                continue
            for e in own:
                left[e] -= 1
            if max(left) <= after:
                taken.append(list(own))
                fill(load_left - load)
                taken.pop()
            for e in own:
                left[e] += 1
            if limit <= mean:
                return

    fill(mean * ranks)
    return best
