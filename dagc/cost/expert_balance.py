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
from .expert_packing import copies_of, descending, pack_layers
from .expert_swaps import CLOSE, part_doubles, swap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EXACT_SLOTS = 16
"""So many slots and fewer are searched through, in some milliseconds."""
EXACT_SLOTS_WITH_SPARES = 12
"""The same where copies of any expert may be in some of them."""
EXACT_LAYERS = 256
"""Of more layers none is: they are those of many windows, and would take minutes."""


def balanced_slots(p: Floats, ranks: int, spare: int) -> Ints:
    """The expert in each slot [layers, ranks, slots], those of a rank in order, ranks by their first. `p` [layers, experts]: loads;
    `spare` copies beside one of each expert, never two of one on a rank. The slots divide over the ranks."""
    slots, copies = p.shape[1] + spare, copies_of(p, spare, ranks)
    found = _packed(p, copies, ranks)
    few = slots <= (EXACT_SLOTS_WITH_SPARES if spare else EXACT_SLOTS) and 1 < ranks < slots
    if few and len(p) <= EXACT_LAYERS:
        most = (p / copies)[np.arange(len(p))[:, None, None], found].sum(axis=2).max(axis=1)
        left = (most > least_load(p, copies, ranks) * (1 + 1e-12)) | (spare > 0)  # other copies may have less
        for layer in np.flatnonzero(left).tolist():
            found[layer] = _least(p[layer], found[layer], spare)
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
    place = np.repeat(np.arange(layers * experts), copies.ravel())
    weight = each.ravel()[place].reshape(layers, -1)
    order = descending(weight)
    order += np.arange(layers)[:, None] * weight.shape[1]
    return place[order] - np.arange(layers)[:, None] * experts, weight.ravel()[order]


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
    part_doubles(found, each)
    bound = _bound(weight, ranks)
    busiest = swap(found, each, bound)
    again = np.flatnonzero(busiest > bound * (1.0 + CLOSE))
    if len(again):
        second = pack_layers(each[again], copies[again], ranks, per_rank)
        better = swap(second, each[again], bound[again]) < busiest[again]
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
    load = weight[:, rest].reshape(layers * per_rank, ranks).copy()
    spread = load[:, 0] - load[:, -1]
    by_layer, first = spread.reshape(layers, per_rank), np.arange(layers) * per_rank
    before = np.arange(layers)[:, None] * ranks
    merged = []
    for _ in range(per_rank - 1):
        one = first + by_layer.argmax(axis=1)
        spread[one] = -1.0
        other = first + by_layer.argmax(axis=1)
        total = load[one] + load[other][:, ::-1]
        order = np.argsort(-total, axis=1)
        total = total.ravel()[order + before]
        load[one] = total
        spread[one], spread[other] = total[:, 0] - total[:, -1], -2.0
        merged.append((one * ranks, other * ranks, order))
    rank = np.tile(np.arange(ranks), layers * per_rank)  # of each replica, back through the merges
    inside = np.arange(ranks)
    for one, other, order in reversed(merged):
        last = rank[one[:, None] + inside]
        rank[one[:, None] + order] = last
        rank[other[:, None] + (ranks - 1 - order)] = last
    rank = rank.reshape(layers, per_rank, ranks)
    by_rank = np.argsort(rank, axis=2)  # each row has one replica of each rank
    own = np.take_along_axis(expert[:, rest].reshape(layers, per_rank, ranks), by_rank, axis=2)
    found[:, alone:] = own.transpose(0, 2, 1)
    return found


# -- few slots ---------------------------------------------------------------------------------------


def _least(p: Floats, first: Ints, spare: int) -> Ints:
    """The placement of one layer whose busiest rank has least, over all numbers of copies [ranks, slots]. `first`: a good one."""
    experts, (ranks, per_rank) = len(p), first.shape
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
