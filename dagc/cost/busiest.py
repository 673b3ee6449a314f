"""The busiest expert rank: what it has to do on average, when every token chooses its experts at random.

The ranks of an expert layer wait for one another, so the largest of their loads sets its time, not the mean. Rows and
distinct experts of a rank vary from step to step around their means; their expected maximum over ranks is exact for
one token of uniform routing, and the mean of random steps with a fixed seed otherwise. The same tokens and the same
choices are drawn for every number of ranks, so that more tokens never mean less work.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import ceil, comb
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..ir.routed_dims import NO_LIMIT, GroupLimit
from .normal_quantile import normal_quantile

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

Skip = float | tuple[float, ...]
"""Share of the choices that are left out; of a token's first, its second, ..., where they differ. Which experts a choice is of says nothing of that."""
SEED = 11
DRAWS = 512
"""Random steps at most. The standard error of a mean over them is stated with it."""
CELLS = 2**21
"""Random numbers at most: layers of very many experts are drawn less often."""
BLOCK = 2**14
"""Of them used at once: these stay in a core's cache."""
EXACT = 10**6
"""Products of coefficients up to which a maximum is counted exactly."""
CHOICES = 256
"""Choices of a step up to which its tokens are drawn one by one; beyond, the rows of each expert are."""
ORDERS = 256
"""Random orders of the experts that the tokens of a step are drawn with."""


@record
class Busiest:
    """Expected maxima over ranks: rows, row tiles (each expert's rows rounded up to whole ones), experts with any row.
    `dropped`: share of the choices beyond the capacity of an expert. `error`: largest relative standard error."""

    rows: float
    row_tiles: float
    distinct: float
    dropped: float
    error: float


def busiest_rank(
    p: Floats,
    slots: Counts,
    tokens: int,
    *,
    tile: int,
    most_rows: float = float("inf"),
    most_draws: int = DRAWS,
    limit: GroupLimit = NO_LIMIT,
    skip: Skip = 0.0,
) -> Busiest:
    """`p` [experts]: chance that a token picks each expert; `slots` [ranks, slots]: the expert in each slot, whose
    copies share its tokens at random; `most_rows`: rows that an expert takes, all its copies together; `most_draws`: random steps;
    `limit`: groups of experts that a token may use; `skip`: share of the choices that are left out, each for itself, or of a token's
    first, second, ... choice."""
    copies = np.bincount(slots.ravel(), minlength=len(p))
    plain = copies.max() == 1 and most_rows >= 1
    even = tokens == 1 and plain and not limit.limits and np.ptp(p) < 1e-12 and abs(p.sum() - round(p.sum())) < 1e-9
    if even and _products(slots.shape[0], slots.shape[1], round(float(p.sum()))) <= EXACT:
        exact = most_of_some(slots.shape[0], slots.shape[1], round(float(p.sum())), skip)
        return Busiest(exact, exact, exact, 0.0, 0.0)
    if tokens * p.sum() <= CHOICES + 0.5:
        drawn = _rows_by_token(p, slots, tokens, most_draws, limit, skip)
        found = iter([(drawn, _over_slots(drawn, MANY_SLOTS))])
    else:
        at_once = BLOCK if np.isinf(most_rows) else CELLS
        p = p if not skip else p * (1.0 - share_of(skip))
        found = _rows_by_expert(p, slots, tokens, most_draws, limit, max(1, at_once // slots.size))
    dropped = 0.0
    blocks: list[Floats] = []
    for rows, of_rank in found:
        taken = rows
        if not np.isinf(most_rows):
            taken = np.minimum(rows, most_rows / copies[slots])
            of_rank, dropped = taken.sum(axis=2), 1.0 - float(taken.sum() / rows.sum())
        loads = (of_rank, _over_slots(_whole(taken / tile), MANY_SLOTS), _over_slots(rows != 0, MANY_SLOTS))
        blocks.append(np.array([each.max(axis=1) for each in loads], dtype=float))
    most = np.concatenate(blocks, axis=1)  # [rows, tiles and distinct, draws]
    means = most.mean(axis=1)
    error = float((most.std(axis=1) / means).max()) / most.shape[1] ** 0.5
    return Busiest(float(means[0]), float(means[1]), float(means[2]), dropped, error)


def _whole(values: Floats) -> Floats:
    """`np.ceil`, which is many times slower than `np.rint`."""
    near = np.rint(values)
    near += near < values
    return near


FEW_SLOTS = 7
"""Numbers that NumPy adds up one after the other; of more the order of its sums is another one."""
MANY_SLOTS = 64
"""Whole numbers that are faster to add up column by column, in whatever order."""


def _over_slots(values: NDArray[Any], most: int = FEW_SLOTS) -> Floats:
    """Sums over the slots of each rank, [draws, ranks] from [draws, ranks, slots], column by column where these are not
    more than `most`."""
    if values.shape[2] > most:
        return np.asarray(values.sum(axis=2), dtype=float)
    total = values[:, :, 0].astype(float)
    for slot in range(1, values.shape[2]):
        total += values[:, :, slot]
    return total


def share_of(skip: Skip) -> float:
    """Of all choices."""
    return sum(skip) / len(skip) if isinstance(skip, tuple) else skip


def most_of_some(ranks: int, per_rank: int, top_k: int, skip: Skip) -> float:
    """Of the choices of one token that are not skipped: any of them are as likely, so that each number of them counts by its chance."""
    if not skip:
        return most_of_one_token(ranks, per_rank, top_k)
    chances = [1.0]  # of so many that are kept
    for own in skip if isinstance(skip, tuple) else (skip,) * top_k:
        kept = [0.0, *(chance * (1.0 - own) for chance in chances)]
        chances = [a + chance * own for a, chance in zip(kept, [*chances, 0.0], strict=True)]
    return sum(chance * most_of_one_token(ranks, per_rank, n) for n, chance in enumerate(chances) if n)


def most_of_one_token(ranks: int, per_rank: int, top_k: int) -> float:
    """Expected largest number of choices on one rank, of one token that picks `top_k` of all experts evenly. Exact: the
    choices with at most m on every rank are the coefficient of x^top_k in (sum over j <= m of C(per_rank, j) x^j)^ranks."""
    total, expected = comb(ranks * per_rank, top_k), 0.0
    for m in range(min(per_rank, top_k)):
        ways, square, left = [1], [comb(per_rank, j) for j in range(m + 1)], ranks
        while left:
            if left % 2:
                ways = _times(ways, square, top_k)
            square, left = _times(square, square, top_k), left // 2
        expected += 1.0 - (ways[top_k] / total if len(ways) > top_k else 0.0)
    return expected


def _times(a: list[int], b: list[int], degree: int) -> list[int]:
    """Product of two polynomials up to a degree."""
    out = [0] * min(len(a) + len(b) - 1, degree + 1)
    for i, x in enumerate(a[: degree + 1]):
        for j, y in enumerate(b[: degree + 1 - i]):
            out[i + j] += x * y
    return out


def _products(ranks: int, per_rank: int, top_k: int) -> int:
    return min(per_rank, top_k) * 2 * ranks.bit_length() * (top_k + 1) ** 2


def _draws(size: int, most: int) -> int:
    """Random steps of `size` numbers each."""
    return min(most, max(4, CELLS // size))


def _rows_by_token(p: Floats, slots: Counts, tokens: int, most_draws: int, limit: GroupLimit, skip: Skip) -> Floats:
    """Rows of each slot [draws, ranks, slots]. Every token takes a systematic sample of the experts in a random order,
    which has `p` as its chances and never picks an expert twice (Madow, 1949)."""
    experts, top_k = len(p), max(1, round(float(p.sum())))
    orders = _orders(experts)
    chances = np.take_along_axis(_chances(p, limit, len(orders)), orders, axis=1)
    reach = np.cumsum(chances, axis=1) * (top_k / chances.sum(axis=1, keepdims=True))
    flat = (reach + np.arange(len(orders))[:, None] * (top_k + 1.0)).ravel()
    rng, draws = np.random.default_rng(SEED), _draws(slots.size, most_draws)
    step, token = np.arange(draws), np.arange(tokens)[:, None]
    order = (step + 97 * token) % len(orders)  # [tokens, draws]: the orders of the tokens of a step differ
    start = rng.random((tokens, draws))
    wanted = (start + order * (top_k + 1.0))[:, :, None] + np.arange(top_k)
    place = np.searchsorted(flat, wanted.ravel(), side="right").reshape(wanted.shape) - order[:, :, None] * experts
    chosen = orders[order[:, :, None], np.clip(place, 0, experts - 1)]
    where = _slot_of(slots, experts)
    copies = (where >= 0).sum(axis=1)
    copy = (
        0 if copies.max() == 1 else (np.random.default_rng(SEED + 1).random(chosen.shape) * copies[chosen]).astype(int)
    )
    at = where[chosen, copy] + step[None, :, None] * slots.size
    if skip:
        at = at[np.random.default_rng(SEED + 3).random(chosen.shape) >= np.asarray(skip)]
    return np.bincount(at.ravel(), minlength=draws * slots.size).reshape(draws, *slots.shape).astype(float)


def _chances(p: Floats, limit: GroupLimit, draws: int) -> Floats:
    """Chances [draws, experts] of a token whose groups of experts are drawn, or [1, experts] where it may use all: in
    the mean over draws they are `p`, unless a group is so popular that every token uses it."""
    if not limit.limits:
        return p[None, :].repeat(draws, axis=0)
    of_group = p.reshape(limit.groups, -1).sum(axis=1)
    share = np.minimum(of_group * (limit.most / of_group.sum()), 1.0)
    rng = np.random.default_rng(SEED + 2)
    order = np.argsort(rng.random((draws, limit.groups)), axis=1)
    ends = np.cumsum(share[order], axis=1)
    start = rng.random((draws, 1))
    # A systematic sample, as of the experts: a group is used when a point start + 0, 1, 2, ... lies in its stretch.
    used = np.floor(ends - start) > np.floor(ends - share[order] - start)
    by_group = np.zeros((draws, limit.groups))
    np.put_along_axis(by_group, order, used / np.maximum(share[order], 1e-300), axis=1)
    found = (by_group[:, :, None] * p.reshape(limit.groups, -1)).reshape(draws, -1)
    return np.minimum(found, 1.0)


def _spread(p: Floats, slots: Counts, copies: Counts, limit: GroupLimit) -> Floats:
    """How much wider the rows of each rank [ranks] spread when tokens use few groups: standard deviations, relative to those
    of independent choices."""
    chances = (_chances(p, limit, ORDERS) / np.maximum(copies, 1))[:, slots]  # [draws, ranks, slots]
    within = (chances * (1 - chances)).sum(axis=2).mean(axis=0)
    between = chances.sum(axis=2).var(axis=0)
    each = (p / np.maximum(copies, 1))[slots]
    return np.asarray(np.sqrt((within + between) / np.maximum((each * (1 - each)).sum(axis=1), 1e-300)))


def _rows_by_expert(
    p: Floats, slots: Counts, tokens: int, most_draws: int, limit: GroupLimit, at_once: int
) -> Iterator[tuple[Floats, Floats]]:
    """Rows of each slot [draws, ranks, slots] and of each rank [draws, ranks], binomial, adding up to all choices: by
    their first three moments (Cornish and Fisher, 1938), and zero with the probability that there is none. `at_once`: draws of
    each block."""
    copies = np.bincount(slots.ravel(), minlength=len(p))
    each = np.minimum((p / np.maximum(copies, 1))[slots].ravel(), 1.0)
    mean, variance = tokens * each, np.maximum(tokens * each * (1 - each), 1e-12)
    share = variance / variance.sum()
    draws = _draws(each.size, most_draws)
    normal, width, deviation = (
        _normal(draws, each.size), np.sqrt(variance / np.maximum(1 - share, 0.5)), np.sqrt(variance)
    )  # fmt: skip
    none, slope = _quantiles(each, tokens), 1 - 2 * each
    rank_variance = _over_slots(variance.reshape(-1, *slots.shape))
    spread = _spread(p, slots, copies, limit) if limit.limits else None
    if spread is not None:
        rank_variance = rank_variance * spread**2
    rank_mean = mean.reshape(slots.shape).sum(axis=1)
    skew = (1 - 2 * rank_mean / (tokens * slots.shape[1])) / 6
    most = tokens * min(slots.shape[1], ceil(p.sum() - 1e-9))  # a token never picks an expert twice
    for first in range(0, draws, at_once):
        away = normal[first : first + at_once] * width
        away -= away.sum(axis=1, keepdims=True) * share
        z = away / deviation
        some = z > none
        # mean + away + (1 - 2 each) (z z - 1) / 6, in place: these are the largest arrays of a price.
        z *= z
        z -= 1
        z *= slope
        z /= 6
        z += mean + away
        np.rint(z, out=z)
        np.maximum(z, some, out=z)
        rows = np.minimum(z, tokens, out=z).reshape(-1, *slots.shape)
        # Rounding would widen the sums.
        rank_away = _over_slots(away.reshape(-1, *slots.shape))
        if spread is not None:
            rank_away = rank_away * spread
        of_rank = rank_mean + rank_away + skew * (rank_away**2 / rank_variance - 1)
        yield rows, np.clip(of_rank, 0.0, most)


def _normal(draws: int, size: int) -> Floats:
    """Standard normal numbers, always the same. Those of usual sizes are kept: drawing them takes longer than using them."""
    return _kept_normal(draws, size) if draws * size <= KEPT_CELLS else _new_normal(draws, size)


KEPT_CELLS = 2**18


def _new_normal(draws: int, size: int) -> Floats:
    return np.random.default_rng(SEED).standard_normal((draws, size))


_kept_normal = lru_cache(maxsize=4)(_new_normal)


def _quantiles(each: Floats, tokens: int) -> Floats:
    """Standard normal quantile of the chance that none of the tokens picks a slot."""
    with np.errstate(divide="ignore"):
        none = np.exp(tokens * np.log1p(-each))
    values, back = np.unique(none, return_inverse=True)
    return np.asarray(np.array([normal_quantile(float(v)) for v in values])[back])


def _slot_of(slots: Counts, experts: int) -> Counts:
    """Slots of each expert [experts, most copies], -1 beyond its last."""
    flat = slots.ravel()
    copies = np.bincount(flat, minlength=experts)
    out = np.full((experts, int(copies.max())), -1, dtype=np.int64)
    order = np.argsort(flat, kind="stable")
    starts = np.cumsum(copies) - copies
    out[flat[order], np.arange(flat.size) - starts[flat[order]]] = order
    return out


@lru_cache(maxsize=4)
def _orders(experts: int) -> Counts:
    orders = min(ORDERS, max(2, CELLS // experts))
    return np.asarray(np.argsort(np.random.default_rng(SEED).random((orders, experts)), axis=1))
