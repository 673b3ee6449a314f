"""Channels between the GPUs of a pipeline: one for each direction, by the rule of `dagc.execute.step_messages`.

Each is a process group of two, so that NCCL has a communicator and a stream for it alone: what is sent one way never waits for what
comes the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ...cost.schedule.training.cell_orders import PipelineSchedule
from ..step_messages import Channel, Message, channels
from .groups import Ranks
from .ops import Tensor
from .packed_messages import Parts, packed, room, unpacked
from .processes import LaunchError, in_vain

PartsOf = Callable[[Message], Parts]
"""This rank's parts of what a message has."""


@dataclass
class Channels:
    """Those of one rank, which are to ranks at its place of the mesh. `orders`: of each channel what it takes; `groups`: process groups of
    this rank's. `coming`: receives that were posted; `sent`: sends, whose tensors have to stay until they are through."""

    orders: Mapping[Channel, tuple[Message, ...]]
    groups: Mapping[Channel, Any]
    ranks: Ranks
    parts: PartsOf
    device: Any
    posted: dict[Channel, int] = field(default_factory=dict)
    coming: dict[Message, tuple[Any, Tensor]] = field(default_factory=dict)
    sent: list[tuple[Message, Any, Tensor]] = field(default_factory=list)

    def begin(self) -> None:
        self.posted.clear()
        self.coming.clear()
        self.sent.clear()

    def send(self, message: Message, values: Sequence[Tensor]) -> None:
        """Comes back at once."""
        value = packed(values, self.parts(message))
        work = dist.isend(value, self.number(message.target), group=self.groups[message.source, message.target])
        self.sent.append((message, work, value))

    def receive(self, message: Message) -> list[Tensor]:
        """Everything on the channel up to the message is taken off it, in the order in which it was sent; then waits for this one. Raises
        LaunchError where it does not come."""
        channel = message.source, message.target
        order = self.orders[channel]
        while message not in self.coming:
            at = self.posted.get(channel, 0)
            if at == len(order):
                raise LaunchError(f"{message.said} is taken from GPU {message.source} of the pipeline a second time")
            self.posted[channel] = at + 1
            value = room(self.parts(order[at]), self.device)
            work = dist.irecv(value, self.number(message.source), group=self.groups[channel])
            self.coming[order[at]] = work, value
        work, value = self.coming.pop(message)
        waited(work, f"{message.said} did not come from process {self.number(message.source)}")
        return unpacked(value, self.parts(message))

    def finish(self) -> None:
        """Waits for what was sent."""
        for message, work, _ in self.sent:
            waited(work, f"process {self.number(message.target)} did not take {message.said}")
        self.sent.clear()

    def number(self, gpu: int) -> int:
        """The process of a GPU of the pipeline at this rank's place of the mesh."""
        return int(self.ranks.number[(gpu, *self.ranks.at[1:])])


def waited(work: Any, otherwise: str) -> None:
    """Raises LaunchError where the other process does not answer."""
    try:
        work.wait()
    except RuntimeError as error:
        reason = in_vain(error)
        if not reason:
            raise
        raise LaunchError(f"{otherwise}: {reason}") from error


def open_channels(
    schedule: PipelineSchedule, ranks: Ranks, parts: PartsOf, device: Any, dtype: Any, limit: timedelta | None
) -> Channels:
    """Every process makes all groups in one order, then sends a number through each channel of its own in that order: communicators are made
    on first use, by both ends at once."""
    orders, groups = channels(schedule), {}
    places = ranks.number[0].size
    table = ranks.number.reshape(len(ranks.number), places)
    for source, target in orders:
        for place in range(places):
            pair = [int(table[source, place]), int(table[target, place])]
            group = dist.new_group(pair, timeout=limit)
            if ranks.rank in pair:
                groups[source, target] = group
    token = torch.zeros(1, dtype=dtype, device=device)
    made = Channels(orders, groups, ranks, parts, device)
    for (source, target), group in groups.items():
        if source == ranks.at[0]:
            dist.send(token, made.number(target), group=group)
        else:
            dist.recv(token, made.number(source), group=group)
    return made
