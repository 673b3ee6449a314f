"""Rows of experts as the MoE benchmarks drew them: balanced, or a power law.

The tables name the law (`balanced`, `power_law_1.2`), not the draw. The laws are those of aiconfigurator's collectors
(ai-dynamo/aiconfigurator): each row of a table is the mean of five draws, of the busiest rank of a group. Here it is the
mean of `DRAWS` of our own.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heappop, heapreplace
from typing import NamedTuple

import numpy as np

from ...base.arrays import NDArray

Counts = NDArray[np.int64]
DRAWS = 40
SPARES = "_eplb"
"""End of the name of a law whose experts were placed by load, their spare slots with the busiest."""


class Drawn(NamedTuple):
    """Rows of each slot of the timed rank [draws, slots], and the tokens that have any of them [draws]."""

    rows: Counts
    tokens: Counts


@lru_cache(maxsize=4096)
def busiest_rank(law: str, tokens: int, experts: int, top_k: int, ranks: int, slots: int = 0) -> Drawn:
    """`slots` of the whole group, spare ones included; 0: one for each expert."""
    if law in ("balanced", "uniform"):
        return _balanced(tokens, experts, top_k, ranks)
    alpha = float(law.removesuffix(SPARES).removeprefix("power_law_"))
    rng = np.random.default_rng([tokens, experts, top_k, ranks, slots])
    placed = law.endswith(SPARES)
    drawn = []
    for _ in range(DRAWS):
        counts = _power_law(rng, alpha, tokens, experts, top_k, 1 if placed else ranks)
        by_rank = _placed(counts.ravel(), ranks, slots or experts) if placed else counts
        busiest = int(np.argmax(by_rank.sum(axis=1)))
        drawn.append((by_rank[busiest], _touching(by_rank, busiest, tokens)))
    return Drawn(np.array([rows for rows, _ in drawn]), np.array([touching for _, touching in drawn]))


def _balanced(tokens: int, experts: int, top_k: int, ranks: int) -> Drawn:
    """Token t picks experts t, t + stride, ...; few tokens are spread over the stride. The first rank is timed."""
    stride = -(-experts // top_k)
    first = np.arange(tokens) if tokens >= stride else np.arange(tokens) * stride // tokens
    picked = (first[:, None] + np.arange(top_k) * stride) % experts
    rows = np.bincount(picked.ravel(), minlength=experts).reshape(ranks, -1)[:1]
    return Drawn(rows.astype(np.int64), np.array([int((picked < experts // ranks).any(axis=1).sum())]))


def _power_law(rng: np.random.Generator, alpha: float, tokens: int, experts: int, top_k: int, ranks: int) -> Counts:
    """Rows of each expert [ranks, experts of a rank], in proportion to draws of p(x) ~ x^-alpha, rounded. No expert has more
    rows than there are tokens: what is beyond goes to others, and rounding is made good, rank by rank in turns."""
    total = tokens * top_k
    least, most = (1.0, tokens * 0.8) if total > experts else (0.01, 2.0)
    e = 1 - alpha
    x = ((most**e - least**e) * rng.random(experts) + least**e) ** (1 / e)
    counts = np.round(x / x.sum() * total).astype(np.int64).reshape(ranks, -1)
    beyond = int(np.maximum(counts - tokens, 0).sum())
    counts = np.minimum(counts, tokens)
    _add(counts, beyond, tokens)
    missing = total - int(counts.sum())
    _add(counts, missing, tokens)
    _remove(counts, -missing)
    return np.asarray(counts)


def _add(counts: Counts, rows: int, most: int) -> None:
    """Rows that each rank in turn takes one of, for the expert with the fewest."""
    while rows > 0:
        room = most * counts.shape[1] - counts.sum(axis=1)
        for rank, share in _turns(rows, room):
            _fill(counts[rank], share, most)
            rows -= share


def _remove(counts: Counts, rows: int) -> None:
    """Rows that each rank in turn gives one of, of the expert with the most."""
    while rows > 0:
        for rank, share in _turns(rows, counts.sum(axis=1)):
            negative = -counts[rank]
            _fill(negative, share, 0)
            counts[rank] = -negative
            rows -= share


def _turns(rows: int, room: Counts) -> list[tuple[int, int]]:
    """(rank, rows) of one round over the ranks with room."""
    ranks = np.flatnonzero(room > 0)
    shares = np.minimum(rows // len(ranks) + (np.arange(len(ranks)) < rows % len(ranks)), room[ranks])
    return [(int(rank), int(share)) for rank, share in zip(ranks, shares, strict=True) if share]


def _fill(counts: Counts, rows: int, most: int) -> None:
    """In place, one row at a time to the smallest, none above `most`."""
    order = np.sort(counts)
    raised = np.arange(1, len(order) + 1)
    below = int(np.searchsorted(order * raised - np.cumsum(order), rows, side="right"))
    level = min((rows + int(order[:below].sum())) // below, most)
    rows -= int(np.maximum(level - counts, 0).sum())
    np.maximum(counts, level, out=counts)
    if level < most:
        counts[np.flatnonzero(counts == level)[:rows]] += 1


def _placed(counts: Counts, ranks: int, slots: int) -> Counts:
    """Rows of each slot [ranks, slots of a rank]: a spare slot goes to the expert with the most rows a copy, copies, the
    heaviest first, to the lightest rank with room."""
    copies = np.ones(len(counts), dtype=np.int64)
    for _ in range(slots - len(counts)):
        copies[np.argmax(counts / copies)] += 1
    loads = np.repeat(counts / copies, copies)
    by_rank: list[list[float]] = [[] for _ in range(ranks)]
    lightest = [(0.0, rank) for rank in range(ranks)]  # a heap of those with room
    for load in (-np.sort(-loads)).tolist():
        weight, rank = lightest[0]
        by_rank[rank].append(load)
        if len(by_rank[rank]) < slots // ranks:
            heapreplace(lightest, (weight + load, rank))
        else:
            heappop(lightest)
    shares = np.array(by_rank)
    rows = np.floor(shares).astype(np.int64)
    first = np.argsort((rows - shares).ravel(), kind="stable")[: int(counts.sum() - rows.sum())]
    rows.ravel()[first] += 1
    return np.asarray(rows)


def _touching(by_rank: Counts, rank: int, tokens: int) -> int:
    """Tokens that chose a slot of a rank: the slots, the one with the most rows first, fill the tokens' choices in turn."""
    counts = by_rank.ravel()
    order = np.argsort(-counts, kind="stable")
    ends = np.cumsum(counts[order])
    own = (order // by_rank.shape[1] == rank) & (counts[order] > 0)
    chosen = np.zeros(tokens, dtype=bool)
    for end, rows in zip(ends[own].tolist(), counts[order][own].tolist(), strict=True):
        first = (end - rows) % tokens
        chosen[first : first + rows] = True
        chosen[: max(0, first + rows - tokens)] = True
    return int(chosen.sum())
