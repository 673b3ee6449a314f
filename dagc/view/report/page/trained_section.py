"""A training phase's part of the page: its step in figures, its pipeline, its memory, and what its GPUs do."""

from __future__ import annotations

from collections.abc import Iterator

from ....base.units import BYTES, FLOPS_PER_TOKEN, TIME, TOKEN_RATE, show
from ....plan.plan import CompiledPlan
from ....plan.step_totals import busiest
from ....plan.trained import TrainingResult
from ....spec.metrics.metric import percent
from ...draw.figures import pipeline_chart, training_cards, training_layers, training_memory
from ...draw.figures.markup import Markup, join, tag
from ...draw.figures.svg import legend
from ...facts import training_words as said
from ...facts.axes_words import axes_text
from ...facts.held_over_step import too_many_cells
from ...facts.pipeline_cells import step_chart
from .. import training_tables as tables
from ..headline import alternative_text
from . import devices
from .html_tables import fact_cards, table
from .page_sections import Section, anchor_of
from .phase import fold

OPS = 24


def sections(plan: CompiledPlan) -> Iterator[Section]:
    """One a training phase."""
    for name, result in plan.trainings.items():
        yield Section(anchor_of("phase", name), name, join(_training(plan, result)), name, "phase")


def _training(plan: CompiledPlan, result: TrainingResult) -> Iterator[Markup]:
    gpus = len(result.gpus)
    layout = f"{axes_text(result.graph)}; {said.batches_text(result)}"
    yield tag("p", f"{gpus} GPU{'s' if gpus > 1 else ''}: {layout}")
    if text := alternative_text(plan, result.name):
        yield tag("p", text.capitalize())
    yield tag("p", said.step_text(result), cls="binding")
    yield tag("p", " ".join(map(said.sentence, said.how_text(result))))
    yield _cards(result)
    stage = busiest(result)
    whose = f" of a GPU of stage {stage}, which works longest" if result.steps.schedule.gpus > 1 else " of a GPU"
    reason = too_many_cells(result)
    yield fold("Pipeline", *((tag("p", reason, cls="soft"),) if reason else _pipeline(result)))
    yield fold("Memory per GPU", *_memory(result, drawn=not reason))
    yield fold("Stages", training_cards.draw(result).framed(), legend(training_cards.keys(result)))
    yield fold("GPU map", devices.draw(plan, result))
    yield fold("Layers", *_layers(result))
    words = "Of one layer, alone on its slowest rank; collectives also under compute."
    rows = tables.cell_rows(result)
    yield fold(
        "Cells of one micro-batch", tag("p", words, cls="soft"), table(tables.CELLS_HEAD, rows, numbers=(1, 3, 4, 5))
    )
    rows = tables.collective_rows(result, stage)
    found = table(tables.COLLECTIVES_HEAD, rows, numbers=(3, 4, 5, 6)) if rows else tag("p", "There are none.")
    yield fold(f"Collectives in a step{whose}", found)
    yield fold(
        f"Longest ops in a step{whose}", table(tables.OPS_HEAD, tables.op_rows(result, stage, OPS), numbers=(3, 4, 5))
    )
    yield tag("p", f"{said.sentence(said.kernels_text(result))} {said.sentence(said.error_text(result))}", cls="soft")


def _pipeline(result: TrainingResult) -> Iterator[Markup]:
    chart = step_chart(result.steps, said.stage_names(result))
    words = "Each box is a cell of one micro-batch, with its number."
    if result.update_s:
        words += f" Behind the last one {show(result.update_s, TIME)} for new weights."
    yield tag("p", words, cls="soft")
    yield pipeline_chart.draw(chart).framed()
    yield legend(pipeline_chart.keys(chart))


def _layers(result: TrainingResult) -> Iterator[Markup]:
    yield tag("p", "What each cell does in one layer, on one GPU and for one micro-batch.", cls="soft")
    yield training_layers.draw(result).framed()
    yield legend(training_layers.keys(result))


def _memory(result: TrainingResult, *, drawn: bool) -> Iterator[Markup]:
    yield training_memory.bars(result).framed()
    yield legend(training_memory.keys(result))
    yield table(tables.MEMORY_HEAD, tables.memory_rows(result), numbers=range(1, len(tables.MEMORY_HEAD)))
    if drawn:
        yield tag("p", "Over a step: activations come with forward cells, and go with their gradients.", cls="soft")
        yield training_memory.over_step(result).framed()


def _cards(result: TrainingResult) -> Markup:
    worst = result.worst
    again = f"{percent(result.hfu)} with what is recomputed" if result.training.recompute else ""
    facts = [
        ("step", show(result.time_s, TIME), f"floor of its cells {show(result.floor_s, TIME)}" if result.floor_s else ""),
        (
            "throughput", show(result.throughput_tok_s, TOKEN_RATE),
            f"{show(result.throughput_tok_s / len(result.gpus), TOKEN_RATE)} per GPU",
        ),
        ("MFU", percent(result.mfu), "; ".join(filter(None, (again, show(result.flops_per_token, FLOPS_PER_TOKEN))))),
        ("memory, fullest GPU", show(worst.peak_B, BYTES), f"{result.fraction:.1%} of {show(worst.capacity_B, BYTES)}"),
        ("bubble", percent(result.bubble), said.schedule_text(result)),
        ("exposed communication", percent(result.exposed), "data is moved and nothing computed"),
        ("update", show(result.update_s, TIME), f"{result.training.optimizer}, ZeRO {result.training.zero}"),
    ]  # fmt: skip
    return fact_cards(facts)
