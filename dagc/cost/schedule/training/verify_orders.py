"""verify_orders: the verifier of a schedule: every cell once and in order, nothing before what it takes, no deadlock, and no more
held than is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ....ir.verify.violation import VerifyError
from .cell_orders import Cell, Loop, Part, PipelineSchedule, Seat, cells_of
from .in_flight import peaks
from .makespan import step_times
from .stage_times import StageTimes


def verify_orders(schedule: PipelineSchedule, most: Sequence[float] | None = None, *, progress: bool = True) -> None:
    """`most`: by GPU, what it may hold, in micro-batches of a stage. `progress`: whether all GPUs come to their ends is looked at
    too, which whoever times the schedule finds anyway. Raises VerifyError."""
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


class _Done(NamedTuple):
    """Of a chunk: how many cells of each place in `PLACES` are done, its first micro-batch, and which micro-batches' input gradients
    come apart from those of the weights."""

    counts: list[int]
    first: int
    split: list[range]


PLACES = {Part.FORWARD: 0, Part.BACKWARD: 1, Part.INPUT: 1, Part.WEIGHT: 2}
"""Whole gradients and those of inputs alone are one sequence."""
SAID = ("forward", "backward", "weight")
FORWARD, GRADIENT, WEIGHT = range(3)


def _check_order(schedule: PipelineSchedule, gpu: int) -> None:
    """Micro-batches pass each chunk in ascending order, as a receiver takes what is sent in the order of the sender, and each cell
    comes after its own of the part before. Both hold in all runs of a loop if they do in the first and in the last: numbers
    and counts change by the same with every run."""
    routes = {seat: route for route in schedule.routes for seat in route.seats}
    chunks = [_Done([0, 0, 0], routes[Seat(gpu, chunk)].first, []) for chunk in range(schedule.chunks)]
    for loop in schedule.orders[gpu]:
        before = [list(chunk.counts) for chunk in chunks]
        _note_split(loop, chunks)
        _check_run(schedule, gpu, loop, 0, chunks)
        if loop.times > 1:
            for chunk, old in zip(chunks, before, strict=True):
                each = [now - then for now, then in zip(chunk.counts, old, strict=True)]
                chunk.counts[:] = [then + (loop.times - 1) * more for then, more in zip(old, each, strict=True)]
            _check_run(schedule, gpu, loop, (loop.times - 1) * loop.step, chunks)
    for number, chunk in enumerate(chunks):
        count = routes[Seat(gpu, number)].count
        for said, done, due in zip(SAID, chunk.counts, (count, count, sum(map(len, chunk.split))), strict=True):
            if done != due:
                raise VerifyError(f"GPU {gpu} runs {done} {said} cells of chunk {number}; {due} are due")


def _note_split(loop: Loop, chunks: Sequence[_Done]) -> None:
    inputs: dict[int, list[int]] = {}
    for entry in loop.body:
        for cell in cells_of(entry):
            if cell.part is Part.INPUT:
                inputs.setdefault(cell.chunk, []).append(cell.microbatch)
    for chunk, numbers in inputs.items():
        chunks[chunk].split.append(range(numbers[0], numbers[0] + len(numbers) * loop.times))


def _check_run(schedule: PipelineSchedule, gpu: int, loop: Loop, later: int, chunks: Sequence[_Done]) -> None:
    """One run of a loop, whose micro-batches are so much later than in the first."""
    for entry in loop.body:
        cells = cells_of(entry)
        for cell in cells:
            counts, first, split = chunks[cell.chunk]
            place = PLACES[cell.part]
            number = counts[place]
            due = first + number if place != WEIGHT else _at(split, number)
            if cell.microbatch + later != due:
                wanted = (
                    "no more is due" if due is None else f"{schedule.said(Cell(due, cell.chunk, cell.part))} is due"
                )
                raise VerifyError(f"GPU {gpu} runs {schedule.said(cell.later(later))} where {wanted}")
            # Of weights, what is due is before the next gradient.
            if (place == GRADIENT and number >= counts[FORWARD]) or (
                place == WEIGHT and due >= first + counts[GRADIENT]
            ):
                earlier = Cell(due, cell.chunk, Part.FORWARD if place == GRADIENT else Part.INPUT)
                raise VerifyError(f"GPU {gpu} runs {schedule.said(cell.later(later))} before {schedule.said(earlier)}")
        for cell in cells:
            chunks[cell.chunk].counts[PLACES[cell.part]] += 1


def _at(numbers: Sequence[range], index: int) -> int | None:
    """The index-th of numbers in several ranges."""
    for each in numbers:
        if index < len(each):
            return each[index]
        index -= len(each)
    return None
