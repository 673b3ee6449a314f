"""How long collectives of a run took, without what ranks waited for each other in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from ...base.collectives import COLLECTIVES
from .rank_calls import RankCalls
from .seen_calls import SeenCall

Key = tuple[str, int, int]
"""(kind, ranks of the group, bytes as nccl-tests counts them)."""


def timed_calls(ranks: Sequence[RankCalls], host_of: Sequence[int]) -> dict[Key, tuple[float, ...]]:
    """Seconds of each call of GPUs whose whole group has traces: those of the rank that came last, which waited for none. `host_of`: the
    node of each rank; groups that span several are left out, as tables of measured kernels have none."""
    own = {one.rank: one for one in ranks if one.rank is not None and one.on_gpu}
    queues = {rank: _queues(one) for rank, one in own.items()}
    found: dict[Key, list[float]] = {}
    for rank, mine in queues.items():
        for (kind, size_B, group), calls in mine.items():
            inside = max(group) < len(host_of) and len({host_of[one] for one in group}) == 1
            if rank != group[0] or not inside or not all(one in queues for one in group):
                continue
            others = [queues[one].get((kind, size_B, group), []) for one in group]
            if all(len(other) == len(calls) for other in others):
                times = [min(each) for each in zip(*others, strict=True)]
                found.setdefault((kind, len(group), size_B), []).extend(times)
    return {key: tuple(times) for key, times in found.items()}


def _queues(one: RankCalls) -> Mapping[tuple[str, int, tuple[int, ...]], list[float]]:
    """Seconds of the calls of a rank, in order, by what they are."""
    found: dict[tuple[str, int, tuple[int, ...]], list[float]] = {}
    for call in one.seen:
        if call.kind in COLLECTIVES and len(call.ranks) > 1 and not isnan(call.payload_B) and call.payload_B > 0:
            found.setdefault((call.kind, _size_B(call), call.ranks), []).append(call.end_s - call.start_s)
    return found


def _size_B(call: SeenCall) -> int:
    return max(1, round(call.payload_B * COLLECTIVES[call.kind].buffer(len(call.ranks))))
