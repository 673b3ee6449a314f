"""Pictures of a training phase: view -> what is on it."""

from __future__ import annotations

from collections.abc import Callable

from ....base.units import BYTES, TIME, show
from ....plan.trained import TrainingResult
from ...facts.held_over_step import check_cells
from ...facts.pipeline_cells import step_chart
from ...facts.training_words import limit_text, schedule_text, stage_names
from . import pipeline_chart, training_memory
from .sheet import Sheet


def _pipeline(result: TrainingResult) -> Sheet:
    check_cells(result, "the pipeline chart")
    chart = step_chart(result.steps, stage_names(result))
    cells_s = result.steps.makespan_s
    idle = sum(result.steps.bubbles_s) / (len(result.steps.bubbles_s) * cells_s)
    heading = [
        f"{result.name}: cells of one step, {schedule_text(result)}",
        f"{show(cells_s, TIME)} to the last gradient, of which GPUs wait {idle:.1%} in the mean, and "
        f"{show(result.update_s, TIME)} for new weights",
        limit_text(result).removeprefix(f"{result.name}: "),
    ]
    return Sheet(heading, pipeline_chart.draw(chart), pipeline_chart.keys(chart))


def _memory(result: TrainingResult) -> Sheet:
    capacity = f"capacity {show(result.worst.capacity_B, BYTES)}, {'dashed' if training_memory.shows_capacity(result) else 'above'}"
    heading = [
        f"{result.name}: memory of a GPU over a step, by stage",
        f"{capacity}; from {show(result.steps.makespan_s, TIME)} on, the thin line, new weights are made",
    ]
    return Sheet(heading, training_memory.over_step(result), training_memory.keys(result))


TRAINING_SHEETS: dict[str, Callable[[TrainingResult], Sheet]] = {"pipeline": _pipeline, "memory": _memory}
