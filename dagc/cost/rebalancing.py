"""rebalancing: the work of expert ranks whose experts are placed anew from time to time, by loads that change.

In each period experts are where the loads of the period before put them; each window of it has loads of its own. What ranks do is the
mean over all windows but those of the first period, by which alone they are placed first."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from ..base.arrays import NDArray
from ..ir.routed_dims import GroupLimit
from ..spec.rebalance import Rebalance
from .busiest import DRAWS, Skip
from .cached_experts import Held
from .expert_work import RankWork
from .moved_experts import Moves, moves, placements
from .rank_work import work_of
from .routing import cap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FEWEST_DRAWS = 32


@lru_cache(maxsize=16)
def placed_over_time(
    plan: Rebalance, rows: tuple[int, ...], top_k: int, ranks: int, spare: int, groups: int, nodes: int, how: str
) -> Ints:
    """[periods - 1, layers, ranks, slots], of some rows of the windows."""
    loads = [
        [
            cap(np.asarray(layer, dtype=float), top_k)
            for layer in _rows(plan.series.sums(n * plan.per_period, (n + 1) * plan.per_period), rows)
        ]
        for n in range(plan.periods)
    ]
    return placements(np.array(loads), ranks, spare, groups, nodes, how, plan.once)


def moves_over_time(
    plan: Rebalance, rows: tuple[int, ...], top_k: int, ranks: int, spare: int, groups: int, nodes: int, how: str
) -> tuple[Moves, ...]:
    """Of every placement but the first."""
    placed = placed_over_time(plan, rows, top_k, ranks, spare, groups, nodes, how)
    experts = len(plan.series.windows[0][0])
    return tuple(moves(a, b, experts, nodes) for a, b in pairwise(placed))


def _rows(window: tuple[tuple[float, ...], ...], rows: tuple[int, ...]) -> list[tuple[float, ...]]:
    return [window[k] for k in rows]


@lru_cache(maxsize=256)
def work_over_time(
    plan: Rebalance, rows: tuple[int, ...], given: tuple[int, int, int, int], whole: int, full: float, limit: GroupLimit, nodes: int, how: str,
    skip: Skip, held: Held,
) -> tuple[tuple[RankWork, ...], ...]:  # fmt: skip
    """Of each of these rows of the series the work in every window that counts. `given`: experts, top_k, ranks and redundant experts; `whole`: tokens
    that choose; the others as `layer_work` takes them."""
    _, top_k, ranks, spare = given
    placed = placed_over_time(plan, rows, top_k, ranks, spare, limit.groups, nodes, how)
    windows = range(plan.per_period, plan.periods * plan.per_period)
    draws = max(FEWEST_DRAWS, DRAWS // (len(rows) * len(windows)))
    return tuple(
        tuple(
            work_of(
                cap(np.asarray(plan.series.windows[at][row], dtype=float), top_k), placed[at // plan.per_period - 1, k], top_k, whole, full, draws,
                limit, skip, held,
            )
            for at in windows
        )
        for k, row in enumerate(rows)
    )  # fmt: skip
