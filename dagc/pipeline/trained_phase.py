"""A training phase compiled, and judged by the memory of its GPUs."""

from __future__ import annotations

from collections import Counter

from ..base.units import BYTES, show
from ..cost.training import whole_sides
from ..plan.trained import TrainingResult
from ..spec.unit import Unit
from . import kept_phases
from .beside_1f1b import beside_usual, warn_of_order
from .lower import lowered
from .train import costed_cells, schedule_of, step_of, training_of


def compile_training(unit: Unit, *, cures: bool = False) -> TrainingResult:
    """With E04 where it does not fit; `cures`: look for what would make it fit. Raises SpecError."""
    result = kept_phases.kept(unit, step_found)
    if not result.fits:
        report(result, unit, helps(unit) if cures else ())
    return result


def step_found(unit: Unit) -> TrainingResult:
    """Whether it fits or not, beside the same step in the usual order. Raises SpecError."""
    schedule = schedule_of(unit, training_of(unit))
    own = costed_cells(unit, whole_sides.checked(lowered(unit), unit))
    result = beside_usual(step_of(unit, schedule, own), unit, own)
    warn_of_order(result, unit)
    warn_of_hosts(result, unit)
    return result


def warn_of_hosts(result: TrainingResult, unit: Unit) -> None:
    """W06 where hosts have less memory than what their GPUs keep there."""
    hardware, each_B = unit.spec.hardware, max(need.host_B for need in result.memory)
    if hardware.host_memory_B is None or not each_B:
        return
    gpus = max(Counter(gpu // hardware.per_host for gpu in unit.phase.gpus).values())
    if each_B * gpus > hardware.host_memory_B:
        needed, has = show(each_B * gpus, BYTES), show(hardware.host_memory_B, BYTES)
        unit.out.add(
            "W06", f"hosts have no room for what `{result.name}` keeps there", unit.phase.spans.get("offload", unit.phase.span),
            because=(f"{gpus} GPUs x {show(each_B, BYTES)} = {needed} of {has}",),
            help=("less `offload`, or more `microbatches`, which are smaller",),
        )  # fmt: skip


def helps(unit: Unit) -> tuple[str, ...]:
    from .training_cures import cures  # which compile the phase again

    return cures(unit)


def report(result: TrainingResult, unit: Unit, help: tuple[str, ...]) -> None:
    """E04 with the sum of the fullest GPU of a pipeline."""
    worst = result.worst
    parts = (
        ("weights", worst.weights_B), ("gradients", worst.gradients_B), ("optimizer", worst.optimizer_B),
        ("activations", worst.activations_B), *((("gathered", worst.gathered_B),) if worst.gathered_B else ()),
        ("working", worst.working_B), ("buffers", worst.buffers_B), ("reserve", worst.reserve_B),
    )  # fmt: skip
    unit.out.add(
        "E04",
        f"phase `{result.name}` does not fit: a GPU of stage {worst.gpu} needs {show(worst.peak_B, BYTES)} of "
        f"{show(worst.capacity_B, BYTES)}, {show(worst.peak_B - worst.capacity_B, BYTES)} too much",
        unit.phase.span,
        because=(" + ".join(f"{n} {show(v, BYTES)}" for n, v in parts) + f" = {show(worst.peak_B, BYTES)}",),
        help=help,
    )
