"""What GPUs of a pipeline hand each other in a training step: activations forward, gradients back.

The rule by which no run of a verified schedule ends in a deadlock: between two GPUs there is a channel for each direction; what a channel
takes is in the order in which its sender makes it, which the schedule says to both; a send never waits. So a receive waits for cells of
its sender alone, and for earlier messages that are taken off the channel with it: GPUs wait for each other in a circle where
the orders of their cells do, which is what the verifier of schedules refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..cost.schedule.training.cell_orders import Cell, Part, PipelineSchedule, cells_of
from ..ir.graph import Graph, Stage
from ..ir.segment import Segment


class Message(NamedTuple):
    """The result of a cell, for the virtual stage `to`: of its forward cell an activation, else the gradient of one. `source`, `target`:
    GPUs of the pipeline; `chunk`: of the target."""

    microbatch: int
    to: int
    forward: bool
    source: int
    target: int
    chunk: int

    @property
    def what(self) -> str:
        return "activation" if self.forward else "gradient"

    @property
    def said(self) -> str:
        return f"the {self.what} of micro-batch {self.microbatch} for virtual stage {self.to}"


Channel = tuple[int, int]
"""GPUs of a pipeline: who sends, and who receives."""


def taken(schedule: PipelineSchedule, gpu: int, cell: Cell) -> Message | None:
    """What a cell begins with, unless that is at an end of the model or there since another cell of the chunk."""
    if cell.part is Part.WEIGHT:
        return None
    route, stage = schedule.stage_at[gpu, cell.chunk]
    forward = cell.part is Part.FORWARD
    return _message(schedule, route, stage - 1 if forward else stage + 1, stage, cell.microbatch, forward=forward)


def given(schedule: PipelineSchedule, gpu: int, cell: Cell) -> Message | None:
    """What a cell hands on."""
    if cell.part is Part.WEIGHT:
        return None
    route, stage = schedule.stage_at[gpu, cell.chunk]
    forward = cell.part is Part.FORWARD
    return _message(schedule, route, stage, stage + 1 if forward else stage - 1, cell.microbatch, forward=forward)


def _message(
    schedule: PipelineSchedule, route: int, source: int, target: int, microbatch: int, *, forward: bool
) -> Message | None:
    seats = schedule.routes[route].seats
    if not (0 <= source < len(seats) and 0 <= target < len(seats)):
        return None
    return Message(microbatch, target, forward, seats[source].gpu, seats[target].gpu, seats[target].chunk)


def cells(schedule: PipelineSchedule, gpu: int) -> Iterator[Cell]:
    """Of a GPU in order; of two that overlap the forward one first."""
    for entry in schedule.written(gpu):
        yield from cells_of(entry)


def channels(schedule: PipelineSchedule) -> Mapping[Channel, tuple[Message, ...]]:
    """What each channel between two GPUs takes, in order. What a GPU hands itself is on none."""
    found: dict[Channel, list[Message]] = {}
    for gpu in range(schedule.gpus):
        for cell in cells(schedule, gpu):
            message = given(schedule, gpu, cell)
            if message is not None and message.source != message.target:
                found.setdefault((message.source, message.target), []).append(message)
    return {channel: tuple(messages) for channel, messages in sorted(found.items())}


def holders(schedule: PipelineSchedule) -> tuple[tuple[int, ...], ...]:
    """Of each virtual stage the GPUs with a copy of its weights, whose gradients are to be added up: one, or one of each route."""
    return tuple(
        tuple(sorted({route.seats[stage].gpu for route in schedule.routes})) for stage in range(schedule.stages)
    )


def layers_of(graph: Graph, stages: tuple[Stage, ...]) -> list[list[tuple[Segment, int]]]:
    """The layers of each virtual stage with their indices in the model."""
    found, index = [], -1
    for stage in stages:
        names = [name for name, count in stage.layers for _ in range(count)]
        found.append([(graph.segment(name), index + k) for k, name in enumerate(names)])
        index += len(names)
    return found
