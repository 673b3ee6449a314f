"""What a GPU of a pipeline holds over a training step: what is always there, and activations that come and go with its cells."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...cost.schedule.training.cell_orders import Cell, Part, cells_of
from ...plan.trained import TrainingResult

BINS = 1200
"""Moments that are told apart: of each the most that is held."""
RELATIVE = 1e-9
"""Of what a micro-batch holds, sums that are rounding."""
MOST_CELLS = 1_000_000
"""Of all GPUs of a pipeline, in what lists each."""


@record
class HeldOverStep:
    """`points`: (seconds, bytes of activations) from a moment on, the last one at the end of the step."""

    stage: int
    points: tuple[tuple[float, float], ...]

    @property
    def most_B(self) -> float:
        return max(size_B for _, size_B in self.points)


def held_over_step(result: TrainingResult, stage: int) -> HeldOverStep:
    """A forward cell holds its activations from when it begins; a gradient frees them when it ends. What a gradient of inputs leaves
    for that of weights beyond what it frees is held from its begin."""
    end_s, kept = result.time_s, result.kept
    least_B = RELATIVE * max((own.whole_B for own in kept), default=0.0)
    points: list[tuple[float, float]] = [(0.0, 0.0)]
    now = 0.0
    place = -1
    for moment_s, change_B in _changes(result, stage):
        now = 0.0 if abs(now + change_B) <= least_B else now + change_B
        own = int(moment_s / end_s * BINS)
        if own == place:
            at_s, most_B = points[-1]
            points[-1] = at_s, max(most_B, now)
            left = now
            continue
        if place >= 0 and left != points[-1][1]:
            points.append((min(moment_s, (place + 1) / BINS * end_s), left))
        points.append((moment_s, now))
        place, left = own, now
    if points[-1][1] != now:
        points.append((min(end_s, (place + 1) / BINS * end_s), now))
    return HeldOverStep(stage, (*points, (end_s, now)))


def _changes(result: TrainingResult, stage: int) -> Iterator[tuple[float, float]]:
    """(moment, bytes more) in the order of the cells."""
    seats = result.steps.schedule.stage_at
    for entry, start_s, end_s in result.steps.written(stage):
        found = [_change_B(result, seats[stage, cell.chunk][1], cell) for cell in cells_of(entry)]
        yield from ((start_s, change_B) for change_B in found if change_B > 0)
        yield from ((end_s, change_B) for change_B in found if change_B < 0)


def _change_B(result: TrainingResult, virtual: int, cell: Cell) -> float:
    kept = result.kept[virtual]
    if cell.part is Part.FORWARD:
        return kept.whole_B
    if cell.part is Part.BACKWARD:
        return -kept.whole_B
    return kept.late_B - kept.whole_B if cell.part is Part.INPUT else -kept.late_B


def cell_count(result: TrainingResult) -> int:
    """Cells of a step, of all GPUs of a pipeline; at most three a micro-batch and chunk."""
    schedule = result.steps.schedule
    return 3 * schedule.microbatches * schedule.stages * len(schedule.routes)


def too_many_cells(result: TrainingResult) -> str:
    """Why the cells of a step cannot be listed, or nothing."""
    count = cell_count(result)
    if count <= MOST_CELLS:
        return ""
    return f"a step of `{result.name}` has {count:,} cells, more than {MOST_CELLS:,}"


def check_cells(result: TrainingResult, what: str) -> None:
    """Raises SpecError with E05 where a step has too many cells to list them."""
    reason = too_many_cells(result)
    if reason:
        help = ("fewer micro-batches have the same shape",)
        raise SpecError([Diagnostic("E05", f"{what} would be too large", because=(reason,), help=help)])
