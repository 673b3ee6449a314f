"""A training step beside the same in 1F1B: what its schedule gains or loses, said where 1F1B is better."""

from __future__ import annotations

from ..base.diagnostics import SpecError
from ..base.frozen import replace
from ..base.pipeline_schedules import SCHEDULES
from ..base.units import BYTES, TIME, show
from ..cost.schedule.training.cell_orders import Overlap
from ..ir.graph import Stage, runs
from ..plan.trained import TrainingResult, Usual
from ..spec.unit import Unit
from .lower import lowered
from .train import USUAL, CostedCells, chunks_of, costed_cells, schedule_of, step_of, training_of

SLOWER = 1.05
"""Times 1F1B's step, from which on a schedule is worth a word where 1F1B fits."""
FULLER = 1.1
"""Times its memory, where it takes as long."""


def beside_usual(result: TrainingResult, unit: Unit, own: CostedCells) -> TrainingResult:
    """The result with what 1F1B would come to, where that is another order. Its stages have the layers of a GPU's chunks."""
    schedule, training = result.steps.schedule, training_of(unit)
    if schedule.name == USUAL or schedule.gpus == 1:
        return result
    phase, given = unit.phase, unit.phase.strategy.layers_per_stage
    if given is not None and len(given) != schedule.gpus:
        counts = [0] * schedule.gpus
        for (gpu, _), (route, stage) in schedule.stage_at.items():
            counts[gpu] += given[stage] if route == 0 else 0
        phase = replace(phase, strategy=replace(phase.strategy, layers_per_stage=tuple(counts)))
    phase = replace(phase, training=replace(training, schedule=USUAL, virtual=1))
    other = replace(unit, phase=phase)
    tied = any(weight.tied for weight in result.graph.head.weights)
    try:
        # Copies of a shared table are part of the graph; all else is the same, whatever stage a layer is on.
        if tied and SCHEDULES[schedule.name].ends_meet:
            found = step_of(other, schedule_of(other, training_of(other)), costed_cells(other, lowered(other)))
        else:
            names = [name for stage in result.graph.stages for name, count in stage.layers for _ in range(count)]
            cut = chunks_of(names, schedule.gpus, phase.strategy.layers_per_stage)
            stages = tuple(Stage(k, runs(layers)) for k, layers in enumerate(cut))
            found = step_of(other, schedule_of(other, training_of(other)), own, stages)
    except SpecError:
        return result
    return replace(result, usual=Usual(found.time_s, found.worst.peak_B, found.fits))


def warn_of_order(result: TrainingResult, unit: Unit) -> None:
    """W06 where 1F1B would be better, and where pairs of cells were asked for and there is none."""
    usual, spans = result.usual, unit.phase.spans
    at = spans.get("schedule", unit.phase.span)
    title = SCHEDULES[result.steps.schedule.name].title
    if usual is not None and usual.fits and result.time_s > SLOWER * usual.time_s:
        unit.out.add(
            "W06", f"{title} takes {result.time_s / usual.time_s:.2f} times as long as 1F1B, which fits, too", at,
            because=(
                f"a step of {show(result.time_s, TIME)} with {show(result.worst.peak_B, BYTES)} on the fullest GPU, "
                f"of {show(usual.time_s, TIME)} with {show(usual.peak_B, BYTES)} in 1F1B",
            ),
            help=(f"write `schedule = {USUAL}`",),
        )  # fmt: skip
    elif usual is not None and result.time_s > 0.999 * usual.time_s and result.worst.peak_B > FULLER * usual.peak_B:
        unit.out.add(
            "W06", f"{title} needs {result.worst.peak_B / usual.peak_B:.2f} times the memory of 1F1B and is no faster", at,
            because=(f"{show(result.worst.peak_B, BYTES)} on the fullest GPU, {show(usual.peak_B, BYTES)} in 1F1B",),
            help=(f"write `schedule = {USUAL}`",),
        )  # fmt: skip
    if unit.phase.training is not None and unit.phase.training.exchange_overlap == "full":
        orders = result.steps.schedule.orders
        if not any(isinstance(entry, Overlap) for order in orders for loop in order for entry in loop.body):
            count = result.graph.microbatches
            unit.out.add(
                "W06", "`exchange_overlap = full` does nothing: no forward cell runs beside a backward cell",
                spans.get("exchange_overlap", unit.phase.span),
                because=(f"{count} micro-batch{'es' if count > 1 else ''}, and no gradient before the last forward cell",),
                help=("write more `microbatches`, or leave it out",),
            )  # fmt: skip
