"""The verifier of a schedule: streams in order, no op before its inputs, and a path that adds up to the time."""

from __future__ import annotations

import itertools
from math import isclose

import numpy as np

from ...ir.graph import Graph
from ...ir.op import Op
from ...ir.verify.violation import VerifyError, require
from .records import Run, Schedule


def verify_schedule(graph: Graph, schedule: Schedule) -> None:
    """Each rank's streams are totally ordered and no op starts before its inputs are there; the critical
    path adds up to the phase's time. Raises VerifyError."""
    seen: set[tuple[int, int]] = set()
    streams = {s.name: [(op, graph.stream_of(s, op)) for op in s.ops] for s in graph.segments}
    # Where most micro-batches follow from a few, the few are looked at.
    for cell in (c for row in schedule.cells for c in getattr(row, "evaluated", row)):
        for run in cell.evaluated:
            times = id(run.starts), id(run.finishes)  # which layers that began alike share
            if times not in seen:
                seen.add(times)
                _verify_run(graph, run, streams[run.segment])
    total = sum(step.time_s for step in schedule.path)
    if not isclose(total, schedule.period_s, rel_tol=1e-6, abs_tol=1e-9):
        raise VerifyError(f"the critical path adds up to {total:.6g} s, the phase takes {schedule.period_s:.6g} s")


def _verify_run(graph: Graph, run: Run, streams: list[tuple[Op, str]]) -> None:
    """`streams`: of the ops of its segment."""
    segment = graph.segment(run.segment)
    ends: dict[str, list[tuple[float, float]]] = {}
    for op, stream in streams:
        own = ends.setdefault(stream, [])
        for lane in range(graph.lanes):
            start, finish = run.starts.of((op.name, lane)), run.finishes.of((op.name, lane))
            if isinstance(start, float) and isinstance(finish, float):
                require(finish >= start - 1e-12, segment, op, "finishes before it starts")
                own.append((start, finish))
            else:
                require(bool(np.asarray(finish >= start - 1e-12).all()), segment, op, "finishes before it starts")
                own.append((np.asarray(start).item(0), np.asarray(finish).item(0)))
    for times in ends.values():
        times.sort()
        for (_, a), (b, _) in itertools.pairwise(times):
            require(b >= a - 1e-10, segment, None, "two ops overlap on one stream")
