"""pipeline_cells: what a chart of a training step shows: the cells of each GPU with their times, when it is idle, what it holds."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.frozen import record
from ...base.pipeline_schedules import SCHEDULES
from ...cost.schedule.training.cell_orders import Overlap, Part, cells_of
from ...cost.schedule.training.in_flight import peaks
from ...cost.schedule.training.makespan import StepTimes

RELATIVE = 1e-9
"""Of the step, gaps that are rounding."""


@record
class CellBar:
    """A cell. `half`: of two that overlap the upper (0) or the lower one (1), which begin and end together."""

    part: Part
    chunk: int
    microbatch: int
    start_s: float
    end_s: float
    half: int | None = None


@record
class GpuRow:
    """A GPU of the pipeline. `stages`: its virtual stages by chunk; `held`: the activations that it holds at most, in micro-batches
    of a stage, from `held_from_s` on. `name`, `about`: what it is called."""

    gpu: int
    name: str
    about: str
    stages: tuple[int, ...]
    bars: tuple[CellBar, ...]
    idle: tuple[tuple[float, float], ...]
    held: float
    held_from_s: float

    @property
    def idle_s(self) -> float:
        return sum(end_s - start_s for start_s, end_s in self.idle)


@record
class StepChart:
    """A step of all GPUs of a pipeline, each in a row."""

    title: str
    microbatches: int
    chunks: int
    end_s: float
    rows: tuple[GpuRow, ...]


def step_chart(times: StepTimes, names: Sequence[tuple[str, str]] = ()) -> StepChart:
    """Every cell, written out. `names`: of each GPU, if not its number and its virtual stages, what it is called, and more about it."""
    schedule = times.schedule
    title = SCHEDULES[schedule.name].title if schedule.name in SCHEDULES else schedule.name
    rows = tuple(_row(times, gpu, names) for gpu in range(schedule.gpus))
    return StepChart(title, schedule.microbatches, schedule.chunks, times.makespan_s, rows)


def _row(times: StepTimes, gpu: int, names: Sequence[tuple[str, str]]) -> GpuRow:
    schedule, end_s = times.schedule, times.makespan_s
    bars: list[CellBar] = []
    idle: list[tuple[float, float]] = []
    free_s = 0.0
    for entry, start_s, stop_s in times.written(gpu):
        if start_s - free_s > RELATIVE * end_s:
            idle.append((free_s, start_s))
        free_s = stop_s
        for k, cell in enumerate(cells_of(entry)):
            half = k if isinstance(entry, Overlap) else None
            bars.append(CellBar(cell.part, cell.chunk, cell.microbatch, start_s, stop_s, half))
    if end_s - free_s > RELATIVE * end_s:
        idle.append((free_s, end_s))
    stages = tuple(schedule.stage_at[gpu, chunk][1] for chunk in range(schedule.chunks))
    peak = peaks(schedule)[gpu]
    own = f"stage {stages[0]}" if len(stages) == 1 else f"stages {', '.join(map(str, stages))}"
    name, about = names[gpu] if names else (f"GPU {gpu}", own)
    return GpuRow(gpu, name, about, stages, tuple(bars), tuple(idle), peak.held, times.peak_start_s(gpu, peak))
