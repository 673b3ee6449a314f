"""How much an export may list: pictures and graphs have an entry for every op of every micro-batch."""

from __future__ import annotations

from ...base.diagnostics import Diagnostic, SpecError
from ...plan.result import PhaseResult
from ...plan.step_totals import called
from ...plan.trained import TrainingResult
from .unroll import counts

MOST_HELD = 1_000_000
"""Nodes of what is complete in memory before it is written."""
MOST_STREAMED = 50_000_000
"""Nodes of what is written rank by rank."""


def too_many(result: PhaseResult, most: int = MOST_HELD, times: int = 1) -> str:
    """Why a phase cannot be listed, or nothing. `times`: entries for each node of the folded graph."""
    nodes = counts(result)[0] * times
    if nodes <= most:
        return ""
    return f"`{result.name}` has {nodes:,} nodes in {result.graph.microbatches:,} micro-batches, more than {most:,}"


def check_size(result: PhaseResult, what: str, most: int = MOST_HELD, times: int = 1) -> None:
    """Raises SpecError with E05."""
    reason = too_many(result, most, times)
    if reason:
        help = ("fewer micro-batches have the same shape",)
        raise SpecError([Diagnostic("E05", f"{what} would be too large", because=(reason,), help=help)])


def step_nodes(result: TrainingResult) -> int:
    """Ops of all ranks in a training step, written out."""
    return sum(
        len(result.graph.stages[stage].gpus) * sum(calls for _, _, calls in called(result, stage))
        for stage in range(result.steps.schedule.gpus)
    )


def check_step_size(result: TrainingResult, what: str, most: int = MOST_HELD) -> None:
    """Raises SpecError with E05."""
    if (nodes := step_nodes(result)) > most:
        reason = (
            f"`{result.name}` has {nodes:,} nodes in {result.graph.microbatches:,} micro-batches, more than {most:,}"
        )
        help = ("fewer micro-batches have the same shape",)
        raise SpecError([Diagnostic("E05", f"{what} would be too large", because=(reason,), help=help)])
