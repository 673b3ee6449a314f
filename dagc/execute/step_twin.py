"""A small twin of a whole training step: small sizes, the schedule with few micro-batches, and in each virtual stage one layer of each
kind that it has."""

from __future__ import annotations

from ..cost.schedule.training.schedule_table import SCHEDULES, Unmet, make
from ..cost.schedule.training.verify_orders import verify_orders
from ..pipeline.train import costed_cells, step_of
from ..plan.trained import TrainingResult
from ..spec.unit import Unit
from .lowered_alike import otherwise
from .prove import verified
from .prove_training import whole_model
from .twin import NoTwin, Twin, few_layers, or_no_twin, twin_of


def twin_of_step(result: TrainingResult, unit: Unit) -> tuple[Twin, TrainingResult]:
    """The twin, and what is found about its step. Raises NoTwin."""
    whole = result.steps.schedule
    virtual = result.stages if whole.chunks > 1 else ()
    count = few_microbatches(whole.name, whole.gpus, whole.microbatches, whole.chunks)
    with or_no_twin():
        twin = verified(twin_of(result.graph, whole_model(unit), unit.routing, virtual=virtual, microbatches=count))
    if differs := otherwise(result.graph, twin.placed):
        raise NoTwin(f"it was lowered otherwise: {differs}")
    schedule = make(whole.name, whole.gpus, count, whole.chunks)
    verify_orders(schedule)
    small = twin.unit(unit)
    return twin, step_of(small, schedule, costed_cells(small, twin.placed), few_layers(result.stages))


def few_microbatches(name: str, gpus: int, microbatches: int, chunks: int) -> int:
    """The least number that fills a pipeline of so many GPUs and that the schedule takes; no more than the plan's own."""
    for count in range(min(microbatches, gpus + 1), microbatches):
        try:
            for need in SCHEDULES[name].needs:
                need(name, gpus, count, chunks)
        except Unmet:
            continue
        return count
    return microbatches
