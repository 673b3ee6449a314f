"""Replicas of experts that ranks exchange, in many layers at once: until no rank has two of one expert, and until the busiest is less busy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..base.arrays import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_TRIES = 32
"""Ranks that the busiest ranks of a layer are tried with, one after another."""
FEW_TRIES = 4
AT_ONCE = 4
"""Swaps of a layer that are looked for together: most of the time each is what it would be after the ones before it."""
CLOSE = 3e-3
"""A busiest rank so near its bound is left as it is."""


def part_doubles(found: Ints, each: Floats) -> None:
    """Copies of one expert on one rank go elsewhere, in place: each to the rank, in exchange for the replica, that makes the busier of
    both the least busy. A rank with a double has fewer experts than one without, so one of those is new to it. `found` [layers, ranks, slots]: experts;
    `each` [layers, experts]: load of a replica."""
    layers, _, per_rank = found.shape
    active = np.arange(layers)
    while True:
        slots = found[active]
        inside = np.sort(slots, axis=2)
        twice = (inside[:, :, 1:] == inside[:, :, :-1]).reshape(len(active), -1)
        some = twice.any(axis=1)
        if not some.any():
            return
        active, slots, own = active[some], slots[some], each[active[some]]
        row = np.arange(len(active))
        rank, at = np.divmod(twice[some].argmax(axis=1), per_rank - 1)
        expert = inside[some][row, rank, at]
        has = np.zeros(own.shape, dtype=bool)
        has[row[:, None], slots[row, rank]] = True
        layer = row[:, None, None]
        weight = own[layer, slots]
        load = weight.sum(axis=2)
        lacks = (slots != expert[:, None, None]).all(axis=2)
        change = weight - own[row, expert][:, None, None]
        worse = np.maximum(load[row, rank][:, None, None] + change, load[:, :, None] - change)
        worse[~lacks[:, :, None] | has[layer, slots]] = np.inf
        other, place = np.divmod(worse.reshape(len(active), -1).argmin(axis=1), per_rank)
        double = (slots[row, rank] == expert[:, None]).argmax(axis=1)
        found[active, rank, double] = slots[row, other, place]
        found[active, other, place] = expert


def swap(found: Ints, each: Floats, bound: Floats) -> Floats:
    """The busiest rank of each layer swaps a replica with another rank, in place, whatever brings both nearest to each other, while that
    makes the busiest rank less busy and it is not at its bound [layers]: with the least busy rank; where that does not help, with the next that does.
    Returns the load of the busiest."""
    layers, ranks, per_rank = found.shape
    weight = each[np.arange(layers)[:, None, None], found]
    load = weight.sum(axis=2)
    enough = bound * (1.0 + CLOSE)
    active, at_once = np.flatnonzero(load.max(axis=1) > enough), min(AT_ONCE, ranks // 2)
    if not len(active) or per_rank == 1 or ranks == 1:
        return np.asarray(load.max(axis=1))
    held = _Held(found, weight, load)
    enough, left = enough[active], np.full(len(active), MOST_TRIES)
    while True:
        own, first = load[active], active[:, None] * ranks
        order = np.argsort(own, axis=1, kind="stable")
        goes_on = (own.max(axis=1) > enough) & (left > 0)
        if np.count_nonzero(goes_on) < len(active):
            active, enough, left, order, first = (x[goes_on] for x in (active, enough, left, order, first))
            if not len(active):
                return np.asarray(load.max(axis=1))
        order += first
        swapped = held.exchange(order[:, : -1 - at_once : -1], order[:, :at_once], enough, left)
        left -= swapped
        if np.count_nonzero(swapped) < len(active):
            rest = np.flatnonzero(swapped == 0)
            tried = held.exchange_one(order[rest, -1], order[rest, 1:-1], left[rest] - 1)
            left[rest] = np.where(tried, left[rest] - 1 - tried, 0)


class _Held:
    """What ranks have: experts and weights [layers x ranks, slots] and loads, which ranks exchange in place. Ranks are numbered over all layers."""

    def __init__(self, found: Ints, weight: Floats, load: Floats) -> None:
        layers, ranks, slots = found.shape
        self.slots, self.busy = slots, load.reshape(-1)
        self.experts, self.weights = found.reshape(layers * ranks, slots), weight.reshape(layers * ranks, slots)
        self.expert, self.weight = found.reshape(-1), weight.reshape(-1)
        numbered = self.expert + np.repeat(np.arange(layers) * (self.expert.max() + 1), ranks * slots)
        self.several = (np.bincount(numbered) > 1)[numbered]  # there are copies elsewhere
        self.ours, self.theirs = np.divmod(np.arange(slots**2), slots)  # of every pair of slots

    def exchange(self, busy: Ints, other: Ints, enough: Floats, most: Ints) -> Ints:
        """Of each layer the busiest ranks swap with the least busy, one after another [layers, pairs], if that makes a rank less busy that has more
        than `enough`, and as long as each is still the busiest and the least busy when it is its turn. Returns how many of these swaps, and not more than `most`, are done."""
        pairs = busy.shape[1]
        ours, theirs, moved, helps = self._best(busy.ravel(), other.ravel())
        high, low = self.busy[busy], self.busy[other]
        by_pair = moved.reshape(busy.shape)
        one, two = high - by_pair, low + by_pair
        done = helps.reshape(busy.shape) & (high > enough[:, None]) & (np.arange(pairs) < most[:, None])
        done[:, 1:] &= np.maximum.accumulate(np.maximum(one, two), axis=1)[:, :-1] < high[:, 1:]
        done[:, 1:] &= np.minimum.accumulate(np.minimum(one, two), axis=1)[:, :-1] > low[:, 1:]
        done = np.logical_and.accumulate(done, axis=1)
        at = np.flatnonzero(done)
        self._swap(busy.ravel()[at], other.ravel()[at], ours[at], theirs[at], moved[at])
        return np.asarray(done.sum(axis=1))

    def exchange_one(self, busy: Ints, others: Ints, most: Ints) -> Ints:
        """Each busy rank swaps with the first of `others` [busy ranks, ranks] that helps, if it is among so many. Returns how many
        were tried until then; 0: none helps."""
        tried = np.zeros(len(busy), dtype=np.int64)
        all_ = others.shape[1]
        cuts = (0, FEW_TRIES, all_) if len(busy) > FEW_TRIES else (0, all_)  # of many layers the likely ones first
        for first, last in pairwise(cuts):
            some = others[:, first:last]
            rest = np.flatnonzero(tried == 0)
            if not (len(rest) and some.shape[1]):
                break
            pairs = np.repeat(busy[rest], some.shape[1]), some[rest].ravel()
            ours, theirs, moved, helps = self._best(*pairs)
            place = helps.reshape(len(rest), -1).argmax(axis=1)
            at = np.arange(len(rest)) * some.shape[1] + place
            found = helps[at] & (first + place < most[rest])
            at = at[found]
            self._swap(pairs[0][at], pairs[1][at], ours[at], theirs[at], moved[at])
            tried[rest[found]] = first + place[found] + 1
        return tried

    def _best(self, busy: Ints, other: Ints) -> tuple[Ints, Ints, Floats, NDArray[np.bool_]]:
        """Of each pair of ranks two slots whose exchange brings them nearest to each other, the weight that leaves the busy one, and whether it
        helps."""
        gain = self.weights[busy][:, :, None] - self.weights[other][:, None, :]
        half = (self.busy[busy] - self.busy[other]) * 0.5
        off = np.abs(gain - half[:, None, None]).reshape(len(busy), -1)
        best = off.argmin(axis=1)
        first = busy * self.slots, other * self.slots
        ours, theirs = first[0] + self.ours[best], first[1] + self.theirs[best]
        if np.count_nonzero(self.several[ours] | self.several[theirs]):
            same = self.experts[busy][:, :, None] == self.experts[other][:, None, :]
            doubled = same.any(axis=2)[:, :, None] | same.any(axis=1)[:, None, :]
            off[doubled.reshape(off.shape)] = np.inf
            best = off.argmin(axis=1)
            ours, theirs = first[0] + self.ours[best], first[1] + self.theirs[best]
        best += np.arange(0, off.size, self.slots**2)
        return ours, theirs, gain.reshape(-1)[best], off.reshape(-1)[best] < half * (1 - 1e-9)

    def _swap(self, busy: Ints, other: Ints, ours: Ints, theirs: Ints, moved: Floats) -> None:
        for values in (self.expert, self.weight, self.several):
            values[ours], values[theirs] = values[theirs], values[ours]
        self.busy[busy] -= moved
        self.busy[other] += moved
