"""verify_orders: the verifier of a schedule: every cell once and in order, nothing before what it takes, no deadlock, and no more
held than is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ....ir.verify.violation import VerifyError
from .cell_orders import Cell, Loop, Part, PipelineSchedule, Seat, cells_of
from .in_flight import peaks
from .makespan import step_times
from .stage_times import StageTimes


def verify_orders(schedule: PipelineSchedule, most: Sequence[float] | None = None, *, progress: bool = True) -> None:
    """`most`: by GPU, what it may hold, in micro-batches of a stage. `progress`: whether all GPUs come to their ends is looked at
    too, which whoever times the schedule finds anyway."""
    _check_routes(schedule)
    for gpu in range(schedule.gpus):
        _check_order(schedule, gpu)
    if progress:
        step_times(schedule, StageTimes.alike(schedule.stages, 1.0, 2.0, 1.0))
    if most is not None:
        for gpu, (peak, allowed) in enumerate(zip(peaks(schedule), most, strict=True)):
            if peak.held > allowed + 1e-9:
                held = f"GPU {gpu} holds {peak.held:g} micro-batches of a stage when {schedule.said(peak.cell)} begins"
                raise VerifyError(f"{held}; the schedule is to hold {allowed:g} at most")


def _check_routes(schedule: PipelineSchedule) -> None:
    """Every chunk of every GPU is a virtual stage of one route, and every micro-batch has a route."""
    seats = Counter(seat for route in schedule.routes for seat in route.seats)
    wanted = {Seat(gpu, chunk) for gpu in range(schedule.gpus) for chunk in range(schedule.chunks)}
    for seat in sorted(wanted ^ set(seats)) or [seat for seat, count in seats.items() if count > 1]:
        raise VerifyError(f"chunk {seat.chunk} of GPU {seat.gpu} is {seats[seat]} virtual stages; each is one")
    if len({len(route.seats) for route in schedule.routes}) > 1:
        raise VerifyError("routes have unequal numbers of virtual stages; each has the whole model")
    after = 0
    for route in schedule.routes:
        if route.first != after:
            raise VerifyError(f"a route begins with micro-batch {route.first}; {after} is the next without one")
        after += route.count
    if after != schedule.microbatches:
        raise VerifyError(f"{after} of {schedule.microbatches} micro-batches have a route")
    if len(schedule.orders) != schedule.gpus:
        raise VerifyError(f"{len(schedule.orders)} of {schedule.gpus} GPUs have an order")


def _check_order(schedule: PipelineSchedule, gpu: int) -> None:
    """Micro-batches pass each chunk in ascending order, as a receiver takes what is sent in the order of the sender, and each cell
    comes after its own of the part before. Both hold in all runs of a loop if they do in the first and in the last: numbers
    and counts change by the same with every run."""
    routes = {seat: route for route in schedule.routes for seat in route.seats}
    done: Counter[tuple[Part, int]] = Counter()
    split: dict[int, list[range]] = {}  # chunk -> micro-batches whose input gradients come apart
    for loop in schedule.orders[gpu]:
        each = Counter(_counted(cell) for entry in loop.body for cell in cells_of(entry))
        _note_split(loop, split)
        for run in sorted({0, loop.times - 1}):
            now = Counter({key: done[key] + run * count for key, count in each.items()})
            for key, count in done.items():
                now.setdefault(key, count)
            for entry in loop.body:
                late = entry.later(run * loop.step)
                for cell in cells_of(late):
                    first = routes[Seat(gpu, cell.chunk)].first
                    _check_cell(schedule, gpu, cell, now, first, split.get(cell.chunk, []))
                now.update(map(_counted, cells_of(late)))
        for key, count in each.items():
            done[key] += count * loop.times
    for chunk in range(schedule.chunks):
        count = routes[Seat(gpu, chunk)].count
        wanted = {Part.FORWARD: count, Part.BACKWARD: count, Part.WEIGHT: sum(map(len, split.get(chunk, [])))}
        for part, number in wanted.items():
            if done[part, chunk] != number:
                what = {Part.FORWARD: "forward", Part.BACKWARD: "backward", Part.WEIGHT: "weight"}[part]
                raise VerifyError(f"GPU {gpu} runs {done[part, chunk]} {what} cells of chunk {chunk}; {number} are due")


def _counted(cell: Cell) -> tuple[Part, int]:
    """Whole gradients and those of inputs alone are one sequence."""
    return (Part.BACKWARD if cell.part.is_gradient else cell.part), cell.chunk


def _note_split(loop: Loop, split: dict[int, list[range]]) -> None:
    inputs: dict[int, list[int]] = {}
    for entry in loop.body:
        for cell in cells_of(entry):
            if cell.part is Part.INPUT:
                inputs.setdefault(cell.chunk, []).append(cell.microbatch)
    for chunk, numbers in inputs.items():
        split.setdefault(chunk, []).append(range(numbers[0], numbers[0] + len(numbers) * loop.times))


def _check_cell(
    schedule: PipelineSchedule, gpu: int, cell: Cell, now: Counter[tuple[Part, int]], first: int, split: list[range]
) -> None:
    number = now[_counted(cell)]
    if cell.part is Part.WEIGHT:
        due = _at(split, number)
        ready = _before(split, first + now[Part.BACKWARD, cell.chunk], number)
        before = Part.INPUT
    else:
        due = first + number
        ready = cell.part is Part.FORWARD or number < now[Part.FORWARD, cell.chunk]
        before = Part.FORWARD
    if cell.microbatch != due:
        wanted = "no more is due" if due is None else f"{schedule.said(Cell(due, cell.chunk, cell.part))} is due"
        raise VerifyError(f"GPU {gpu} runs {schedule.said(cell)} where {wanted}")
    if not ready:
        earlier = Cell(cell.microbatch, cell.chunk, before)
        raise VerifyError(f"GPU {gpu} runs {schedule.said(cell)} before {schedule.said(earlier)}")


def _at(numbers: list[range], index: int) -> int | None:
    for each in numbers:
        if index < len(each):
            return each[index]
        index -= len(each)
    return None


def _before(numbers: list[range], end: int, index: int) -> bool:
    """Whether the number at this index is before `end`, that of the next gradient."""
    due = _at(numbers, index)
    return due is not None and due < end
