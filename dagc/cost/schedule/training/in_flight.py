"""in_flight: the activations that a GPU holds at most, and at which forward cell.

A GPU runs one entry after the other, so what it holds follows from its order alone. A gradient of inputs alone can hold more than
it frees: what the gradient of weights reads. In a loop it changes by the same amount with
every run: the most is in the first run or in the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ....base.frozen import record, replace
from .cell_orders import Cell, Entry, Part, PipelineSchedule, cells_of


@record
class Peak:
    """`held` at most, from when `entry` begins, whose first cell is the `number`-th of its chunk on this GPU, of forward cells or of
    gradients."""

    held: float
    entry: Entry
    number: int

    @property
    def cell(self) -> Cell:
        return cells_of(self.entry)[0]


def peaks(
    schedule: PipelineSchedule,
    whole: Sequence[float] | None = None,
    rest: Sequence[float] | None = None,
    *,
    only: int | None = None,
) -> tuple[Peak, ...]:
    """By GPU, or of one alone. `whole`: what a micro-batch holds on each virtual stage from its forward cell to the end of its gradient, or of that
    of its input; `rest`: what it still holds from there to the end of the weights' gradient. Without them,
    all of it until the end, counted in micro-batches of a stage: of what a GPU would hold if it had one chunk of one copy."""
    if whole is None:
        chunks = peaks(schedule, [1.0] * schedule.stages, [1.0] * schedule.stages)
        return tuple([replace(peak, held=peak.held * schedule.gpus / schedule.stages) for peak in chunks])
    rest = whole if rest is None else rest
    gpus = range(schedule.gpus) if only is None else (only,)
    return tuple([_peak(schedule, gpu, whole, rest) for gpu in gpus])


def _peak(schedule: PipelineSchedule, gpu: int, whole: Sequence[float], rest: Sequence[float]) -> Peak:
    stage_at = schedule.stage_at

    found: Peak | None = None
    now = 0.0
    done: Counter[tuple[bool, int]] = Counter()
    changes: dict[tuple[int, Part], float] = {}
    for chunk in range(schedule.chunks):
        _, stage = stage_at[gpu, chunk]
        changes[chunk, Part.FORWARD], changes[chunk, Part.BACKWARD] = whole[stage], -whole[stage]
        changes[chunk, Part.INPUT], changes[chunk, Part.WEIGHT] = rest[stage] - whole[stage], -rest[stage]
    for loop in schedule.orders[gpu]:
        begun, inside = now, Counter[tuple[bool, int]]()
        highest: list[tuple[float, Entry, int]] = []
        for entry in loop.body:
            after, first = now, inside[_counted(cells_of(entry)[0])]
            for cell in cells_of(entry):
                change = changes[cell[1:]]
                after += change
                if change > 0:
                    highest.append((now + change, entry, first))
                inside[_counted(cell)] += cell.part is not Part.WEIGHT
            now = after
        each = now - begun
        later = loop.times - 1 if each > 0 else 0
        for held, entry, number in highest:
            if found is None or held + later * each > found.held:
                counted = _counted(cells_of(entry)[0])
                at = done[counted] + later * inside[counted] + number
                found = Peak(held + later * each, entry.later(later * loop.step), at)
        now = begun + loop.times * each
        for counted, count in inside.items():
            done[counted] += count * loop.times
    if found is None:
        raise ValueError(f"GPU {gpu} has no forward cell")
    return found


def _counted(cell: Cell) -> tuple[bool, int]:
    """Forward cells of a chunk are counted together, and so are gradients."""
    return cell.part is Part.FORWARD, cell.chunk
