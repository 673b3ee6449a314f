"""When token ids are handed out and what was chosen is taken in: outside of what GPUs do, as late or as early as can be."""

from __future__ import annotations

from ...base.collectives import SCATTER
from ...ir.requests import RequestMove
from ...plan.result import PhaseResult


def took_s(result: PhaseResult, move: RequestMove) -> float:
    """Seconds of one call."""
    return float(result.requests[move.kind].time_s.max())


def begin_s(result: PhaseResult, move: RequestMove, microbatch: int, lane: int) -> float:
    """When the call for a lane of a micro-batch begins. A scatter is over when its ids are needed first, so it may begin before the
    pass, at a negative time; a gather begins when what it takes in is there."""
    graph, cell = result.graph, result.schedule.cells[move.stage][microbatch]
    if move.kind == SCATTER.name:
        run = cell[0]
        segment = graph.segment(run.segment)
        readers = (op for op in segment.ops if segment.input in segment.sources(op))
        needed_s = run.start_s + min(float(run.starts[op.name, lane].min()) for op in readers)
        return needed_s - took_s(result, move)
    run = cell[-1]
    finish = run.finishes[graph.segment(run.segment).output, lane]
    return run.start_s + (run.count - 1) * run.period_s + float(finish.max())
