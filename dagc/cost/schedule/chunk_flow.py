"""Chunks of prompts that follow each other through the stages: each enters a stage when the one before has left it."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.frozen import record

MOST_EXPLICIT = 64
"""Passes that are alike and followed one by one; further ones take as long as the last of these."""


@record
class Pass:
    """`count` passes in a row that are alike: seconds of one micro-batch on each stage, of each send to the next one, and of the host before the
    first stage begins."""

    count: float
    stage_s: tuple[float, ...]
    sends_s: tuple[float, ...]
    microbatches: int
    host_s: float = 0.0


def in_flight_s(passes: Sequence[Pass]) -> list[float]:
    """Of each of these rows of passes, the seconds by which one of them ends behind the one before; they sum, times their counts, to the time
    of all. A stage takes micro-batches in order, and a chunk needs of the chunk before it only that it was there first (its keys and
    values): the flow shop of permutation schedules (Johnson 1954)."""
    free = [0.0] * len(passes[0].stage_s)
    added: list[float] = []
    for one in passes:
        before, steps = free[-1], max(1, min(round(one.count), MOST_EXPLICIT))
        last = before
        for _ in range(steps):
            last = free[-1]
            _through(free, one)
        further = max(0.0, one.count - steps)
        if further:
            step_s = free[-1] - last
            free = [time_s + further * step_s for time_s in free]
        added.append((free[-1] - before) / one.count)
    return added


def _through(free: list[float], one: Pass) -> None:
    """One pass of all micro-batches; `free`: when each stage is done with what it had."""
    at_s = free[0] + one.host_s
    for _ in range(one.microbatches):
        at_s = max(at_s, free[0])
        for stage, time_s in enumerate(one.stage_s):
            at_s = free[stage] = max(at_s, free[stage]) + time_s
            at_s += one.sends_s[stage] if stage < len(one.sends_s) else 0.0
        at_s = free[0]
