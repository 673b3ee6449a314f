"""ranges: how long every run of layers would take as a stage of its own."""

from __future__ import annotations

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import replace
from ...ir.graph import Graph, Stage, runs
from ..records import Costs
from .moments import State
from .scheduler import Scheduler


def range_times_s(graph: Graph, costs: Costs) -> NDArray[np.float64]:
    """[i, j]: seconds of a micro-batch in the layers from the i-th to before the j-th, alone on a stage, as the scheduler has
    `stage_s`; embedding and head count as layers. Shape [layers + 1, layers + 1]; infinite where j <= i."""
    names = [segment.name for segment, _ in graph.layers]
    count = len(names)
    times = np.full((count + 1, count + 1), np.inf)
    ends = tuple(Stage(i, runs(names[i:])) for i in range(count))
    scheduler = Scheduler(replace(graph, stages=ends), costs)
    idle = State((0.0,) * graph.lanes, (0.0,) * len(graph.streams))
    for i in range(count):
        done = i
        for run in scheduler.cell(i, idle)[0]:
            for k in range(1, run.count + 1):
                times[i, done + k] = run.start_s + k * run.period_s
            done += run.count
    return times
