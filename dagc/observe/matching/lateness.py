"""Ranks that others waited for in a collective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from .deviations import Late
from .marked import Arrivals
from .planned_calls import PlannedCall

LEAST_WAIT_S = 20e-6
"""Below it, clocks and launches say more than ranks."""
TIMES_USUAL = 10.0
"""A wait is late that is so many times the usual one of the run."""
OWN_SHARE = 0.5
"""Of a wait, that the rank itself made: the rest it waited for others before."""


def set_clocks(
    arrivals: Mapping[int, Arrivals], calls: Mapping[int, Mapping[tuple[int, str, str], PlannedCall]]
) -> dict[int, float]:
    """Seconds by which each rank's clock is before that of the lowest one it is joined with: ranks of a group leave a collective together, so
    the median of what their ends differ by is what their clocks do."""
    apart: dict[tuple[int, int], list[float]] = {}
    for rank, own in arrivals.items():
        for (number, key), (_, end, _) in own.items():
            for other in calls[rank][key].ranks:
                theirs = arrivals[other].get((number, key)) if other > rank and other in arrivals else None
                if theirs is not None:
                    apart.setdefault((rank, other), []).append(theirs[1] - end)
    shift: dict[int, float] = {}
    for start in sorted(arrivals):
        if start in shift:
            continue
        shift[start], todo = 0.0, [start]
        while todo:
            at = todo.pop()
            for (a, b), found in apart.items():
                for here, there, sign in ((a, b, 1.0), (b, a, -1.0)):
                    if here == at and there not in shift:
                        shift[there] = shift[at] + sign * median(found)
                        todo.append(there)
    return shift


def waits(
    arrivals: Mapping[int, Arrivals], calls: Mapping[int, Mapping[tuple[int, str, str], PlannedCall]]
) -> tuple[list[Late], float]:
    """(the late ones, the longest wait first, seconds that ranks waited for others in all). Of calls whose whole group has traces."""
    shift = set_clocks(arrivals, calls)
    found: list[tuple[Late, PlannedCall]] = []
    total = 0.0
    for rank, own in arrivals.items():
        for number, key in own:
            call = calls[rank][key]
            if not call.ranks or rank != call.ranks[0]:
                continue
            group = [arrivals[one].get((number, key)) for one in call.ranks if one in arrivals]
            known = [one for one in group if one is not None]
            if len(known) < len(call.ranks):
                continue
            begins = [begin - shift[one] for one, (begin, _, _) in zip(call.ranks, known, strict=True)]
            last = max(begins)
            total += sum(last - begin for begin in begins)
            found.append((_latest(call, number, begins, [gap for _, _, gap in known]), call))
    usual = median([one.wait_s for one, _ in found]) if found else 0.0
    late = [
        one
        for one, call in found
        if one.wait_s > max(LEAST_WAIT_S, TIMES_USUAL * usual, call.time_s) and one.own_s >= OWN_SHARE * one.wait_s
    ]
    return sorted(late, key=lambda one: -one.wait_s), total


def _latest(call: PlannedCall, number: int, begins: Sequence[float], gaps: Sequence[float]) -> Late:
    at = max(range(len(begins)), key=begins.__getitem__)
    own_s = gaps[at] - _lower_median([g for i, g in enumerate(gaps) if i != at])
    wait_s = begins[at] - _lower_median([b for i, b in enumerate(begins) if i != at])
    return Late(call.ranks[at], call.kind, call.name, call.part, number, wait_s, own_s)


def _lower_median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
