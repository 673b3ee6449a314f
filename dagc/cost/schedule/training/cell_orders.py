"""cell_orders: a training step of a pipeline as data: which GPU holds which stage, and in which order it runs its cells.

An order is a few loops, so it is as long for thousands of micro-batches as for a few; `written` has every cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from ....base.frozen import record, replace


class Part(Enum):
    """What of a micro-batch runs. The gradients of a chunk come together (BACKWARD), or the one that the chunk before waits for
    first (INPUT) and that of the weights (WEIGHT) when there is time."""

    FORWARD = "F"
    BACKWARD = "B"
    INPUT = "I"
    WEIGHT = "W"

    __hash__ = (
        object.__hash__
    )  # of a member its own, which Python need not compute from its name for each look into a dict

    @property
    def is_gradient(self) -> bool:
        """Whether the chunk before waits for it."""
        return self in (Part.BACKWARD, Part.INPUT)


class Kind(NamedTuple):
    """A part of one of the chunks that a GPU holds: what a cell is besides its micro-batch."""

    chunk: int
    part: Part


class Cell(NamedTuple):
    """A part of a micro-batch on a chunk of a GPU."""

    microbatch: int
    chunk: int
    part: Part

    @property
    def kind(self) -> tuple[int, Part]:
        """Equal to the `Kind`, without making one for each of many cells."""
        return self[1:]

    def later(self, by: int) -> Cell:
        return Cell(self.microbatch + by, self.chunk, self.part)


class Overlap(NamedTuple):
    """A forward and a backward cell of different micro-batches that run at once, each under the other's communication."""

    forward: Cell
    backward: Cell

    def later(self, by: int) -> Overlap:
        return Overlap(self.forward.later(by), self.backward.later(by))


Entry = Cell | Overlap


def cells_of(entry: Entry) -> tuple[Cell, ...]:
    return (entry,) if isinstance(entry, Cell) else entry


@record
class Loop:
    """`times` runs of a body; every run has micro-batches `step` later than the one before."""

    body: tuple[Entry, ...]
    times: int = 1
    step: int = 1

    def written(self) -> Iterator[Entry]:
        for k in range(self.times):
            for entry in self.body:
                yield entry.later(k * self.step)


Order = tuple[Loop, ...]


class Seat(NamedTuple):
    """Where a virtual stage is: a GPU of the pipeline, and which of its chunks."""

    gpu: int
    chunk: int


@record
class Route:
    """The way of micro-batches `first` to `first + count - 1`: the seats of all virtual stages in forward order."""

    seats: tuple[Seat, ...]
    first: int
    count: int


@record(slots=False)
class PipelineSchedule:
    """`gpus` in a row (of one pipeline), each with `chunks` chunks and its own order. All routes have every stage of the model:
    with two of them there are two copies of its weights."""

    name: str
    gpus: int
    microbatches: int
    chunks: int
    routes: tuple[Route, ...]
    orders: tuple[Order, ...]

    @property
    def stages(self) -> int:
        """Virtual stages."""
        return len(self.routes[0].seats)

    @cached_property
    def stage_at(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(GPU, chunk) -> its route and virtual stage."""
        return {
            (seat.gpu, seat.chunk): (r, k) for r, route in enumerate(self.routes) for k, seat in enumerate(route.seats)
        }

    def written(self, gpu: int) -> Iterator[Entry]:
        """Every cell of a GPU in order."""
        for loop in self.orders[gpu]:
            yield from loop.written()

    def said(self, entry: Entry) -> str:
        """As it is printed: the chunk where a GPU has several, `&` between what overlaps."""
        return "&".join(
            f"{cell.part.value}{cell.microbatch}" + (f".{cell.chunk}" if self.chunks > 1 else "")
            for cell in cells_of(entry)
        )

    def text(self) -> str:
        """A line per GPU."""
        return "".join(f"{gpu}: {' '.join(map(self.said, self.written(gpu)))}\n" for gpu in range(self.gpus))


def first_microbatches(schedule: PipelineSchedule, microbatches: int) -> PipelineSchedule:
    """The same without later micro-batches. Nothing has to overlap in it."""
    if schedule.microbatches == microbatches:
        return schedule
    orders = []
    for gpu in range(schedule.gpus):
        kept = tuple(e for e in schedule.written(gpu) if max(c.microbatch for c in cells_of(e)) < microbatches)
        orders.append((Loop(kept),))
    routes = tuple(Route(r.seats, r.first, microbatches) for r in schedule.routes)
    return replace(schedule, microbatches=microbatches, routes=routes, orders=tuple(orders))


def loop_route(gpus: int, chunks: int, microbatches: int) -> tuple[Route, ...]:
    """From the last GPU back to the first, which has the next chunk."""
    return (Route(tuple(Seat(i, c) for c in range(chunks) for i in range(gpus)), 0, microbatches),)


def vee_route(gpus: int, microbatches: int) -> tuple[Route, ...]:
    """Down the row with the first chunks and back up with the second ones: the first GPU has the ends of the model."""
    down = [Seat(i, 0) for i in range(gpus)]
    return (Route((*down, *(Seat(i, 1) for i in reversed(range(gpus)))), 0, microbatches),)


def both_routes(gpus: int, microbatches: int) -> tuple[Route, ...]:
    """Half of the micro-batches down the row with one copy of the model, the others up with the other copy."""
    half = microbatches // 2
    down = tuple(Seat(i, 0) for i in range(gpus))
    up = tuple(Seat(i, 1) for i in reversed(range(gpus)))
    return Route(down, 0, half), Route(up, half, microbatches - half)
