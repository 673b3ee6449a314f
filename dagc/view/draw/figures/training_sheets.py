"""Pictures of a training phase: view -> what is on it."""

from __future__ import annotations

from collections.abc import Callable

from ....base.units import BYTES, TIME, show
from ....plan.plan import CompiledPlan
from ....plan.trained import TrainingResult
from ....spec.metrics.metric import percent
from ...facts.axes_words import axes_text
from ...facts.gpu_map import gpu_map as devices
from ...facts.held_over_step import check_cells
from ...facts.lanes.shown_part import Choice
from ...facts.pipeline_cells import step_chart
from ...facts.training_words import batches_text, limit_text, schedule_text, stage_names, update_text
from .. import step_layers
from . import gpu_map, pipeline_chart, step_waterfall, training_cards, training_layers, training_memory
from .sheet import Sheet


def _pipeline(plan: CompiledPlan, result: TrainingResult, choice: Choice) -> Sheet:
    check_cells(result, "the pipeline chart")
    chart = step_chart(result.steps, stage_names(result))
    cells_s = result.steps.makespan_s
    idle = sum(result.steps.bubbles_s) / (len(result.steps.bubbles_s) * cells_s)
    heading = [
        f"{result.name}: cells of one step, {schedule_text(result)}",
        f"{show(cells_s, TIME)} to the last gradient, of which GPUs wait {idle:.1%} in the mean, and "
        f"{show(result.update_s, TIME)} for new weights",
        limit_text(result),
    ]
    return Sheet(heading, pipeline_chart.draw(chart), pipeline_chart.keys(chart))


def _memory(plan: CompiledPlan, result: TrainingResult, choice: Choice) -> Sheet:
    capacity = f"capacity {show(result.worst.capacity_B, BYTES)}, {'dashed' if training_memory.shows_capacity(result) else 'above'}"
    heading = [
        f"{result.name}: memory of a GPU over a step, by stage",
        f"{capacity}; from {show(result.steps.makespan_s, TIME)} on, the thin line, new weights are made",
    ]
    return Sheet(heading, training_memory.over_step(result), training_memory.keys(result))


def _map(plan: CompiledPlan, result: TrainingResult, choice: Choice) -> Sheet:
    found = devices(plan, result.name)
    by = choice.color_by
    return Sheet(gpu_map.heading(found, by), gpu_map.draw(found, by), gpu_map.keys(found, by))


def _overview(plan: CompiledPlan, result: TrainingResult, choice: Choice) -> Sheet:
    heading = [
        f"{result.name}: {len(result.gpus)} GPUs, {axes_text(result.graph)}",
        batches_text(result),
        f"a step of {show(result.time_s, TIME)}, {schedule_text(result)}, MFU {percent(result.mfu)}",
        *update_text(result).split("; "),
    ]
    return Sheet(heading, training_cards.draw(result), training_cards.keys(result))


def _layer(plan: CompiledPlan, result: TrainingResult, choice: Choice) -> Sheet:
    return Sheet(step_layers.heading(result), training_layers.draw(result), training_layers.keys(result))


def _path(plan: CompiledPlan, result: TrainingResult, choice: Choice) -> Sheet:
    heading = [
        f"{result.name}: longest path of a step, all cells of a kind on a stage added up",
        limit_text(result),
    ]
    return Sheet(heading, step_waterfall.draw(result), step_waterfall.keys(result))


TRAINING_SHEETS: dict[str, Callable[[CompiledPlan, TrainingResult, Choice], Sheet]] = {
    "pipeline": _pipeline,
    "memory": _memory,
    "map": _map,
    "layer": _layer,
    "overview": _overview,
    "path": _path,
}
