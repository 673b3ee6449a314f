"""rank_work: what the expert ranks of one layer do, from the chances of its experts and where they are."""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..calib.expert_rows import TILE, ExpertRows, expected_rows
from ..ir.routed_dims import GroupLimit, after_skipping
from .busiest import Skip, busiest_rank, share_of
from .cached_experts import COLD, Held, missed, needed, traced
from .expert_work import RankWork
from .routing import distinct_experts

Floats = NDArray[np.float64]
Slots = NDArray[np.int64]


def work_of(
    wanted: Floats,
    slots: Slots,
    top_k: int,
    whole: int,
    full: float,
    draws: int,
    limit: GroupLimit,
    skip: Skip,
    held: Held,
) -> RankWork:
    """`wanted` [experts]: chance that a token picks each; `slots` [ranks, slots]: experts of each rank; `held`: of each, those that are on its
    GPU."""
    most = busiest_rank(
        wanted, slots, whole, tile=TILE, most_rows=full * whole, most_draws=draws, limit=limit, skip=skip
    )
    kept = after_skipping(top_k, share_of(skip))
    wanted = wanted if kept == top_k else wanted * (1.0 - share_of(skip))
    p = np.minimum(wanted, full)
    dropped = max(1.0 - float(p.sum()) / kept, most.dropped)
    p = p * (1.0 - dropped) * kept / float(p.sum())
    copies = np.maximum(np.bincount(slots.ravel(), minlength=len(p)), 1)
    each = (p / copies)[slots]
    hit = distinct_experts(wanted, slots, whole)
    mean = expected_rows(whole * each)
    kernel = ExpertRows(
        _up_to(mean.rows, most.rows), _up_to(mean.row_tiles, most.row_tiles), _up_to(hit, most.distinct)
    )
    even = whole * kept / len(slots)
    relative = kernel.rows / even
    read = kernel.distinct / slots.shape[1]
    # A rank whose experts nobody chooses has no rows to scale.
    grown = np.divide(kernel.rows, mean.rows, out=np.ones_like(mean.rows), where=mean.rows > 0)
    slot_rows = whole * each * grown[:, None]
    lacking = share_missed(wanted, slots, whole, hit, held)
    missed = kernel.distinct * lacking / slots.shape[1]
    return RankWork(
        relative, read, slot_rows, kernel, missed, float(hit.sum()), float(relative.max()), dropped, most.error
    )


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


def _up_to(expected: Floats, most: float) -> Floats:
    """Expected values of all ranks, scaled so that the largest is the expected largest (never below its mean)."""
    largest = float(expected.max())
    return expected * max(1.0, most / largest) if largest > 0 else expected
