"""The verifier of a schedule: streams in order, no op before its inputs, and a path that adds up to the time."""

from __future__ import annotations

import itertools
from math import isclose

from ...ir.graph import Graph
from ...ir.verify.violation import VerifyError, require
from .records import Schedule


def verify_schedule(graph: Graph, schedule: Schedule) -> None:
    """Each rank's streams are totally ordered and no op starts before its inputs are there; the critical
    path adds up to the phase's time."""
    # Where most micro-batches follow from a few, the few are looked at.
    for cell in (c for row in schedule.cells for c in getattr(row, "evaluated", row)):
        for run in cell:
            segment = graph.segment(run.segment)
            ends: dict[str, list[tuple[float, float]]] = {}
            for op in segment.ops:
                for lane in range(graph.lanes):
                    start, finish = run.starts[op.name, lane], run.finishes[op.name, lane]
                    require(bool((finish >= start - 1e-12).all()), segment, op, "finishes before it starts")
                    first = tuple(0 for _ in start.shape)
                    ends.setdefault(graph.stream_of(segment, op), []).append(
                        (float(start[first]), float(finish[tuple(0 for _ in finish.shape)]))
                    )
            for times in ends.values():
                times.sort()
                for (_, a), (b, _) in itertools.pairwise(times):
                    require(b >= a - 1e-10, segment, None, "two ops overlap on one stream")
    total = sum(step.time_s for step in schedule.path)
    if not isclose(total, schedule.period_s, rel_tol=1e-6, abs_tol=1e-9):
        raise VerifyError(f"the critical path adds up to {total:.6g} s, the phase takes {schedule.period_s:.6g} s")
