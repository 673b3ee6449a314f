"""Ranks side by side: what each computes, exchanges and waits in a pass, and which computes longer than the others."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ..base.frozen import record
from .measured_rank import MeasuredRank
from .planned_rank import PlannedRank
from .stragglers import Waits

SLOW = 1.1
"""Compute over that of the plan, relative to the median of ranks, from which a rank is slow."""


@record
class RankRow:
    """Of one pass. `planned_s`: what the plan has it compute; None where its place in the plan is not known. `wait_s`, `last`, `calls`: see
    RankWait; None where no collective could be matched."""

    rank: int | None
    compute_s: float
    planned_s: float | None
    exchange_s: float
    idle_s: float
    wait_s: float | None
    last: int | None
    calls: int | None
    slow: bool


def rank_rows(
    ranks: Sequence[MeasuredRank], expected: Sequence[PlannedRank] | None, waits: Waits
) -> tuple[RankRow, ...]:
    """The one that computes longest first, relative to its plan. `expected`: of each rank, if known."""
    by_rank = {one.rank: one for one in waits.ranks}
    computes = [one.activity.compute_s / one.passes for one in ranks]
    plans = [None] * len(ranks) if expected is None else [one.activity.compute_s for one in expected]
    relative = [mine / plan if plan else mine for mine, plan in zip(computes, plans, strict=True)]
    usual = median(relative)
    rows = []
    for one, mine, plan, ratio in zip(ranks, computes, plans, relative, strict=True):
        wait = by_rank.get(one.rank) if one.rank is not None else None
        rows.append(
            RankRow(
                one.rank, mine, plan, one.activity.exchange_s / one.passes, one.activity.idle_s / one.passes,
                None if wait is None else wait.wait_s / one.passes, None if wait is None else wait.last,
                None if wait is None else wait.calls, len(ranks) > 1 and ratio > SLOW * usual,
            )
        )  # fmt: skip
    order = sorted(range(len(rows)), key=lambda k: -relative[k])
    return tuple(rows[k] for k in order)
