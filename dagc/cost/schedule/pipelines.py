"""pipelines: the order of cells, a micro-batch on a stage each, and how long a pass takes, as data per kind of phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import NamedTuple

from ...base.frozen import record
from ...base.phase_kinds import DECODE, MIXED, PREFILL


class Cell(NamedTuple):
    """One micro-batch on one stage. `takes`: the stage whose result of this micro-batch it begins with, none where the host
    hands it in; `gives`: the stage that its own result is sent to."""

    stage: int
    takes: int | None
    gives: int | None


class Step(NamedTuple):
    """Seconds of a step, and what they consist of: `visits`, how often each stage is passed; `around`: also the sends
    between stages and the way of the sampled tokens back to the first; else a stage follows itself at once."""

    time_s: float
    visits: Mapping[int, int]
    around: bool


@record
class Pipeline:
    """`cells(stages)`: what a micro-batch passes, in an order in which each cell comes after the one it takes from. Cells of
    a stage run in the order of micro-batches. `step`: a step in steady state by (seconds of each stage alone, until it can begin
    anew, of each send, of the tokens' way back, micro-batches); without one, what counts is the makespan of all micro-batches."""

    cells: Callable[[int], tuple[Cell, ...]]
    step: Callable[[Sequence[float], Sequence[float], Sequence[float], float, int], Step] | None = None


def forward(stages: int) -> tuple[Cell, ...]:
    """Every stage once, the first to the last."""
    last = stages - 1
    return tuple(Cell(i, i - 1 if i else None, i + 1 if i < last else None) for i in range(stages))


def token_loop(
    stage_s: Sequence[float], busy_s: Sequence[float], sends_s: Sequence[float], return_s: float, microbatches: int
) -> Step:
    """A micro-batch starts its next step when its tokens are back; stages take the micro-batches one after the other, each when what
    it copies for the next one is there. So a step takes as long as the way round, or as the slowest stage with all of them."""
    around = sum(stage_s) + fsum(sends_s) + return_s
    slowest = max(busy_s)
    if around >= microbatches * slowest:
        return Step(around, {i: 1 for i in range(len(stage_s))}, True)
    return Step(microbatches * slowest, {list(busy_s).index(slowest): microbatches}, False)


PIPELINES: Mapping[str, Pipeline] = {
    PREFILL.name: Pipeline(forward),
    DECODE.name: Pipeline(forward, token_loop),
    MIXED.name: Pipeline(forward, token_loop),
}
"""By kind of phase."""
