"""rank_work: what the expert ranks of layers do, from the chances of their experts and where they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..calib.expert_rows import TILE, ExpertRows, expected_rows
from ..ir.routed_dims import GroupLimit, after_skipping
from .busiest import CHOICES, Skip, busiest_ranks, share_of
from .cached_experts import COLD, Held, missed, needed, traced
from .expert_work import RankWork
from .routing import copies_in, distinct_experts, in_slots

Floats = NDArray[np.float64]
Slots = NDArray[np.int64]


TOGETHER = 2**16
"""Random numbers of placements that are drawn for together: their arrays stay in a core's cache."""


@record
class Choices:
    """What the tokens of a layer choose, and what is there of it: each of `tokens` takes `top_k` experts, by `limit` of a few groups; an expert takes
    the rows of the share `full` of the tokens at most; `skip`: share of the choices that are left out; `held`: experts that are on their GPU.
    `draws`: random steps at most."""

    tokens: int
    top_k: int
    full: float
    draws: int
    limit: GroupLimit
    skip: Skip
    held: Held


def works_of(wanted: Floats, slots: Slots, made: Choices) -> tuple[RankWork, ...]:
    """Of each placement. `wanted` [placements, experts]: chance that a token picks each; `slots` [placements, ranks, slots]: experts of each
    rank."""
    choices = made.tokens * made.top_k
    at_once = max(1, TOGETHER // (made.draws * max(slots[0].size, choices if choices <= CHOICES else 0)))
    found: list[RankWork] = []
    for first in range(0, len(wanted), at_once):
        some = slice(first, first + at_once)
        found += _works(wanted[some], slots[some], made)
    return tuple(found)


def _works(wanted: Floats, slots: Slots, made: Choices) -> Iterator[RankWork]:
    whole, top_k, full, skip = made.tokens, made.top_k, made.full, made.skip
    most = busiest_ranks(
        wanted, slots, whole, tile=TILE, most_rows=full * whole, most_draws=made.draws, limit=made.limit, skip=skip
    )
    kept = after_skipping(top_k, share_of(skip))
    wanted = wanted if kept == top_k else wanted * (1.0 - share_of(skip))
    p = np.minimum(wanted, full)
    total = p.sum(axis=1)
    dropped = np.maximum(1.0 - total / kept, most.dropped)
    p = p * (1.0 - dropped)[:, None] * kept / total[:, None]
    each = in_slots(p / np.maximum(copies_in(slots, p.shape[1]), 1), slots)
    hit = distinct_experts(wanted, slots, whole)
    mean = expected_rows(whole * each)
    kernel = ExpertRows(
        _up_to(mean.rows, most.rows), _up_to(mean.row_tiles, most.row_tiles), _up_to(hit, most.distinct)
    )
    even = whole * kept / slots.shape[1]
    relative = kernel.rows / even
    read = kernel.distinct / slots.shape[2]
    # A rank whose experts nobody chooses has no rows to scale.
    grown = np.divide(kernel.rows, mean.rows, out=np.ones_like(mean.rows), where=mean.rows > 0)
    slot_rows = whole * each * grown[:, :, None]
    lacking = _shares_missed(wanted, slots, whole, hit, made.held)
    missed = kernel.distinct * lacking / slots.shape[2]
    numbers = [v.tolist() for v in (hit.sum(axis=1), relative.max(axis=1), dropped, most.error)]
    for k, others in enumerate(zip(*numbers, strict=True)):
        own = ExpertRows(*(part[k] for part in kernel))
        yield RankWork(relative[k], read[k], slot_rows[k], own, missed[k], *others)


def _shares_missed(p: Floats, slots: Slots, tokens: float, hit: Floats, held: Held) -> Floats:
    """[placements, ranks]"""
    if held.all:
        return np.zeros(hit.shape)
    return np.array([share_missed(a, b, tokens, there, held) for a, b, there in zip(p, slots, hit, strict=True)])


def share_missed(p: Floats, slots: Slots, tokens: float, hit: Floats, held: Held) -> Floats:
    """Of the experts that a step needs [ranks], the share that is not there."""
    if held.all:
        return np.zeros(len(slots))
    if held.rule == COLD:
        return np.ones(len(slots))
    if held.hits is not None:
        return np.full(len(slots), 1.0 - held.hits)
    if held.trace is not None:
        return np.array(traced(held.trace, tuple(map(tuple, slots.tolist())), held.room, held.rule))
    found = missed(needed(p, slots, tokens), held.room, held.rule)
    return np.minimum(1.0, np.divide(found, hit, out=np.zeros_like(hit), where=hit > 0))


def _up_to(expected: Floats, most: Floats) -> Floats:
    """Expected values of all ranks [placements, ranks], scaled so that the largest is the expected largest (never below its mean)."""
    largest = expected.max(axis=1)
    grown = np.divide(most, largest, out=np.ones_like(largest), where=largest > 0)
    return np.asarray(expected * np.maximum(1.0, grown)[:, None])
