"""A training phase in the terminal: the step, where its time goes, and what the GPUs of its pipeline hold."""

from __future__ import annotations

from ...base.units import BYTES, FLOPS_PER_TOKEN, TIME, TOKEN_RATE, show
from ...plan.plan import CompiledPlan
from ...plan.step_totals import busiest
from ...plan.trained import TrainingResult
from ...spec.metrics.metric import percent
from ..facts import training_words as said
from ..facts.axes_words import axes_text
from . import training_tables as tables
from .headline import alternative_text
from .terminal_text import Paint, fitted


def training_lines(plan: CompiledPlan, result: TrainingResult, paint: Paint) -> list[str]:
    """A section of the report."""
    gpus = len(result.gpus)
    per_gpu = show(result.throughput_tok_s / gpus, TOKEN_RATE)
    again = f", hfu {percent(result.hfu)} with what is recomputed" if result.training.recompute else ""
    floor = f" (floor of its cells {show(result.floor_s, TIME)})" if result.floor_s else ""
    alternative = alternative_text(plan, result.name)
    stage = busiest(result)
    whose = f"of a GPU of stage {stage}, which works longest," if result.steps.schedule.gpus > 1 else "of a GPU"
    return [
        paint.rule(result.name),
        f"  {gpus} GPU{'s' if gpus > 1 else ''}: {axes_text(result.graph)}; {said.batches_text(result)}",
        *([f"  {alternative}"] if alternative else []),
        f"  step_time {show(result.time_s, TIME)}{floor}   {show(result.throughput_tok_s, TOKEN_RATE)} ({per_gpu} per GPU)",
        f"  mfu {percent(result.mfu)}{again}   {show(result.flops_per_token, FLOPS_PER_TOKEN)}",
        f"  {said.schedule_text(result)}: bubble {percent(result.bubble)}   exposed communication {percent(result.exposed)}",
        *(f"  {text}" for text in said.how_text(result)),
        f"  {said.kernels_text(result)}",
        f"  {said.error_text(result)}",
        f"  memory of a GPU by stage, of {show(result.worst.capacity_B, BYTES)}; micro-batches in flight: {_in_flight(result)}",
        *_table(tables.BRIEF_HEAD, tables.brief_memory_rows(result), "<>>>>>>>", paint),
        "  cells of one micro-batch in a layer, on its slowest rank:",
        *_table(tables.CELLS_HEAD, tables.cell_rows(result), "<><>>>", paint),
        f"  collectives {whose} in a step:",
        *_table(tables.COLLECTIVES_HEAD, tables.collective_rows(result, stage), "<<<>>>>", paint),
        f"  ops {whose} in a step, the longest:",
        *_table(tables.OPS_HEAD, tables.op_rows(result, stage), "<<<>>>", paint),
    ]


def _in_flight(result: TrainingResult) -> str:
    """`4, 3, 2, 1`, as the rows of the table have them."""
    return ", ".join(f"{need.in_flight:.3g}" for _, need in said.stages_alike(result))


def _table(head: tables.Row, rows: list[tables.Row], align: str, paint: Paint) -> list[str]:
    return fitted([head, *rows], align, paint.width) if rows else ["    none"]
