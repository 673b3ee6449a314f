"""Which rank the others wait for: of one collective all kernels end together, so the rank whose kernel is shortest came last.

Durations alone are compared, so the clocks of hosts need not agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..base.frozen import record
from .measured_rank import MeasuredRank

UNEVEN = 1.2
"""A duration over the shortest from which a call counts as waited for."""


@record
class RankWait:
    """`calls`: collectives that are matched with other ranks; `wait_s`: what its kernels took beyond the shortest of each; `last`: calls
    in which it was the last to come, and some other rank waited."""

    rank: int
    calls: int
    wait_s: float
    last: int


@record
class Waits:
    """`matched`: calls that all ranks of their group have in these traces."""

    ranks: tuple[RankWait, ...]
    matched: int

    @property
    def straggler(self) -> RankWait | None:
        """Who came last in more than half of the calls in which somebody waited, where there are such calls."""
        uneven = sum(one.last for one in self.ranks)
        worst = max(self.ranks, key=lambda one: one.last, default=None)
        return worst if worst is not None and uneven and worst.last > uneven / 2 else None


def waits(ranks: Sequence[MeasuredRank]) -> Waits:
    """Calls are matched by group, kind and their number in it; only groups of which every rank is there, with as many calls."""
    columns: dict[tuple[object, ...], dict[int, list[float]]] = {}
    for one in ranks:
        if one.rank is None or not len(one.call):
            continue
        order = np.argsort(one.call, kind="stable")
        numbers, first = np.unique(one.call[order], return_index=True)
        for number, times in zip(numbers.tolist(), np.split(one.call_s[order], first[1:]), strict=True):
            call = one.calls[number] if number >= 0 else None
            if call is not None and len(call.ranks) == call.size > 1:
                key = (call.ranks, call.group, call.kind, call.in_B)
                columns.setdefault(key, {}).setdefault(one.rank, []).extend(times.tolist())
    calls, last = Counter[int](), Counter[int]()
    wait_s: dict[int, float] = {}
    matched = 0
    for (group, *_), by_rank in columns.items():
        members = sorted(set(group) if isinstance(group, tuple) else ())
        if sorted(by_rank) != members or len({len(times) for times in by_rank.values()}) != 1:
            continue
        table = np.array([by_rank[rank] for rank in members])
        least = table.min(axis=0)
        matched += table.shape[1]
        uneven = table.max(axis=0) > UNEVEN * least
        for row, rank in enumerate(members):
            calls[rank] += table.shape[1]
            wait_s[rank] = wait_s.get(rank, 0.0) + float((table[row] - least).sum())
            last[rank] += int(((table.argmin(axis=0) == row) & uneven).sum())
    return Waits(tuple(RankWait(r, calls[r], wait_s[r], last[r]) for r in sorted(calls)), matched)
