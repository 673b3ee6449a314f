"""rebalancing: the work of expert ranks whose experts are placed anew from time to time, by loads that change.

In each period experts are where the loads of the period before put them; each window of it has loads of its own. What ranks do is the
mean over all windows but those of the first period, by which alone they are placed first."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..base.arrays import NDArray
from ..ir.routed_dims import GroupLimit
from ..spec.rebalance import LoadSeries, Rebalance
from .busiest import DRAWS, Skip
from .cached_experts import Held
from .expert_work import RankWork
from .moved_experts import Moves, moves_between, placements
from .rank_work import Choices, works_of
from .routing import cap_each

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FEWEST_DRAWS = 32


@lru_cache(maxsize=16)
def placed_over_time(
    plan: Rebalance, rows: tuple[int, ...], top_k: int, ranks: int, spare: int, groups: int, nodes: int, how: str
) -> Ints:
    """[periods - 1, layers, ranks, slots], of some rows of the windows."""
    windows = _windows(plan.series, rows)[: plan.periods * plan.per_period]
    of_period = windows[:: plan.per_period].copy()
    for n in range(1, plan.per_period):
        of_period += windows[n :: plan.per_period]
    return placements(cap_each(of_period, top_k), ranks, spare, groups, nodes, how, plan.once)


@lru_cache(maxsize=4)
def _windows(series: LoadSeries, rows: tuple[int, ...]) -> Floats:
    """Loads [windows, layers, experts]."""
    return np.array([[window[k] for k in rows] for window in series.windows], dtype=float)


def moves_over_time(
    plan: Rebalance, rows: tuple[int, ...], top_k: int, ranks: int, spare: int, groups: int, nodes: int, how: str
) -> Moves:
    """Of every placement but the first [placements, layers, ranks]."""
    placed = placed_over_time(plan, rows, top_k, ranks, spare, groups, nodes, how)
    return moves_between(placed, len(plan.series.windows[0][0]), nodes)


@lru_cache(maxsize=256)
def work_over_time(
    plan: Rebalance, rows: tuple[int, ...], given: tuple[int, int, int, int], whole: int, full: float, limit: GroupLimit, nodes: int, how: str,
    skip: Skip, held: Held,
) -> tuple[tuple[RankWork, ...], ...]:  # fmt: skip
    """Of each of these rows of the series the work in every window that counts. `given`: experts, top_k, ranks and redundant experts; `whole`: tokens
    that choose; the others as `layer_work` takes them."""
    _, top_k, ranks, spare = given
    placed = placed_over_time(plan, rows, top_k, ranks, spare, limit.groups, nodes, how)
    windows = np.arange(plan.per_period, plan.periods * plan.per_period)
    draws = max(FEWEST_DRAWS, DRAWS // (len(rows) * len(windows)))
    wanted = cap_each(_windows(plan.series, rows)[windows], top_k)
    where = placed[windows // plan.per_period - 1]
    choices = Choices(whole, top_k, full, draws, limit, skip, held)
    return tuple(works_of(wanted[:, k], where[:, k], choices) for k in range(len(rows)))
