"""One rank of a training step: its cells in the order of the schedule, then new weights.

Ops are walked as in inference (`rank.py`); what a cell begins with and hands on is said in `dagc.execute.step_messages`. Two cells
that overlap run one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from ...base.collectives import SEND
from ...base.frozen import replace
from ...cost.schedule.training.cell_orders import Cell, Part, PipelineSchedule
from ...ir.graph import Stage
from ...ir.handed_on import Made, crossing, crossing_back
from ...ir.op import BACKWARD, FORWARD, RECOMPUTE, UPDATE, WEIGHT, Op
from ...ir.ops.attributes.training import AccumulateAttrs, StoreAttrs
from ...ir.segment import Segment
from ...ir.sharding import Sharding
from ..dispatcher import Env, run_cells
from ..step_messages import Message, cells, given, holders, layers_of, taken
from ..training import Key, given_back, owner, stores, taken_in
from .channels import Channels, open_channels
from .ops import Tensor
from .packed_messages import Parts
from .processes import LaunchError
from .rank import Rank

RECV = "recv"
COPIES = "copies"
"""A sum of gradients over GPUs that have the same stage."""
RUNS = {
    Part.FORWARD: (FORWARD,),
    Part.BACKWARD: (RECOMPUTE, BACKWARD, WEIGHT),
    Part.INPUT: (RECOMPUTE, BACKWARD),
    Part.WEIGHT: (WEIGHT,),
}
"""What each part of a micro-batch runs of a layer."""
LATER = {Part.FORWARD: (RECOMPUTE, BACKWARD, WEIGHT), Part.INPUT: (WEIGHT,)}
"""And what runs later: only values that it reads are kept."""


@dataclass
class TrainingRank(Rank):
    """`stages`: layers of each virtual stage of the schedule; `limit`: the longest wait for another rank. After a step: `losses` of tokens by micro-batch, where the model's end is, and `of_routers` those of each layer; `gradients` of
    each weight as its op adds them up, which may be partial; `kept`: values of layers that wait for their gradients, by (micro-batch,
    chunk)."""

    schedule: PipelineSchedule = field(kw_only=True)
    stages: tuple[Stage, ...] = field(kw_only=True)
    limit: timedelta | None = field(default=None, kw_only=True)
    losses: dict[int, Tensor] = field(default_factory=dict, init=False)
    of_routers: dict[Key, dict[int, Any]] = field(default_factory=dict, init=False)
    gradients: dict[Key, tuple[Segment, Op, Tensor]] = field(default_factory=dict, init=False)
    kept: dict[tuple[int, int], list[Env]] = field(default_factory=dict, init=False)
    handed: dict[Message, list[Tensor]] = field(default_factory=dict, init=False)
    layers: list[list[tuple[Segment, int]]] = field(init=False)
    channels: Channels = field(init=False)
    copies: dict[int, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layers = layers_of(self.shards.graph, self.stages)
        self.channels = open_channels(self.schedule, self.ranks, self.parts_of, self.device, self.dtype, self.limit)
        for stage, gpus in enumerate(holders(self.schedule)):
            if len(gpus) > 1:
                for row in self.ranks.number[list(gpus)].reshape(len(gpus), -1).T.tolist():
                    group = dist.new_group(sorted(row), timeout=self.limit)
                    if self.ranks.rank in row:
                        self.copies[stage] = group

    @property
    def gpu(self) -> int:
        """Of the pipeline."""
        return self.ranks.at[0]

    @property
    def own(self) -> list[int]:
        """Virtual stages that are here, in order."""
        return sorted(stage for (gpu, _), (_, stage) in self.schedule.stage_at.items() if gpu == self.gpu)

    def parts_of(self, message: Message) -> Parts:
        """This rank's part of what a message has: as the first layer of a stage takes an activation, and the last a gradient; then what goes
        beside the residual stream."""
        segment = self.layers[message.to][0 if message.forward else -1][0]
        name, layout = segment.input, segment.entry
        if not message.forward:
            assert segment.upstream is not None
            name, layout = segment.upstream.name, segment.upstream.sharding
        layout = layout or Sharding(((),) * len(segment.dims_of(name)))
        parts = [(self.part_of(segment, name, layout)[0], self.dtype)]
        for made in self.beside_of(message).values():
            at = made.segment.sharding_of(made.value)
            assert at is not None
            parts.append(self.part_of(made.segment, made.value, at))
        return parts

    def beside_of(self, message: Message) -> Mapping[str, Made]:
        """What it has beside the residual stream, or its gradient."""
        graph = replace(self.shards.graph, stages=self.stages)
        return crossing(graph, message.to) if message.forward else crossing_back(graph, message.to + 1)

    # -- running ---------------------------------------------------------------------------------

    def wait(self) -> None:
        """For what this rank computes, not for what it has sent: that may wait for another rank, which waits for this one."""
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def run(self) -> float:
        """One step from the weights as they were given; the seconds that it took."""
        self.times.clear()
        self.spans.clear()
        self.resident.as_before()
        for found in (self.losses, self.of_routers, self.gradients, self.kept, self.handed):
            found.clear()
        self.channels.begin()
        self.wait()
        dist.barrier()
        self.began_s = time.perf_counter()
        for cell in cells(self.schedule, self.gpu):
            self.cell(cell)
        self.channels.finish()
        self.update()
        self.wait()
        return time.perf_counter() - self.began_s

    def cell(self, cell: Cell) -> None:
        """Raises LaunchError where a rank that this one waits for does not go on."""
        _, stage = self.schedule.stage_at[self.gpu, cell.chunk]
        self.part = cell.microbatch
        self.shards.offset = cell.microbatch * self.sequences
        try:
            if cell.part is Part.FORWARD:
                self.forward(cell, stage)
            else:
                self.backward(cell, stage)
        except LaunchError as error:
            raise LaunchError(f"process {self.ranks.rank} in cell {self.schedule.said(cell)}: {error}") from None

    @property
    def sequences(self) -> int:
        """Of a micro-batch, on all ranks."""
        return int(self.shards.inputs.tokens.shape[0]) // self.schedule.microbatches

    def forward(self, cell: Cell, stage: int) -> None:
        value, beside = self.begin_with(cell)
        value = self.own_tokens() if value is None else value
        kept = []
        for segment, layer in self.layers[stage]:
            env: Env = {segment.input: [value], **taken_in(segment, beside)}
            run_cells(self, segment, layer, env, RUNS[cell.part])
            value = env[segment.output][0]
            beside.update({name: env[made] for name, made in segment.handed})
            for op in segment.ops:
                if op.kind == "router_loss" and op.cell == FORWARD:
                    self.of_routers.setdefault((layer, op.name), {})[cell.microbatch] = env[op.name][0]
            kept.append(only_read(env, segment, LATER[cell.part]))
        self.kept[cell.microbatch, cell.chunk] = kept
        if not self.hand_on(cell, value, beside):
            self.losses[cell.microbatch] = value

    def backward(self, cell: Cell, stage: int) -> None:
        """Gradients of a chunk, the last layer first: of its input, of its weights, or both."""
        key = cell.microbatch, cell.chunk
        upstream, back = self.begin_with(cell)
        kept = self.kept.pop(key)
        for at in reversed(range(len(kept))):
            (segment, layer), env = self.layers[stage][at], kept[at]
            if cell.part is not Part.WEIGHT:
                if segment.upstream is not None:
                    env[segment.upstream.name] = [upstream]
                env |= given_back(segment, env, back)
            run_cells(self, segment, layer, env, RUNS[cell.part])
            if cell.part is not Part.WEIGHT:
                upstream = env[segment.downstream][0] if segment.downstream else None
                back |= {name: env[value] for name, value in segment.gives}
            if cell.part is not Part.INPUT:
                self.add_up(segment, layer, env)
            kept[at] = only_read(env, segment, LATER.get(cell.part, ()))
        if cell.part is Part.INPUT:
            self.kept[key] = kept
        if upstream is not None:
            self.hand_on(cell, upstream, back)

    def add_up(self, segment: Segment, layer: int, env: Env) -> None:
        for op in segment.ops:
            if isinstance(op.attrs, AccumulateAttrs):
                value: Any = env[op.name][0].to(self.resident.sums)  # type: ignore[attr-defined]
                at, home, key = owner(self.shards.graph, segment, layer, op.attrs.weight)
                self.gradients[key] = at, home, self.gradients[key][2] + value if key in self.gradients else value

    def update(self) -> None:
        """New weights, from the gradients of all micro-batches, in place of the old ones."""
        self.part = 0
        for stage in self.own:
            for segment, layer in self.layers[stage]:
                self.update_layer(segment, layer, self.copies.get(stage))

    def update_layer(self, segment: Segment, layer: int, copies: Any) -> None:
        """`copies`: the group of ranks that have the same layer, whose gradients are added up."""
        env: Env = {}
        for op in segment.ops:
            key = layer, op.attrs.weight if isinstance(op.attrs, AccumulateAttrs) else ""
            if key in self.gradients:
                value = self.gradients[key][2]
                if copies is not None:
                    with self.timed(("", COPIES)):
                        value = value.contiguous().clone()
                        dist.all_reduce(value, group=copies)
                    self.gradients[key] = segment, op, value
                env[op.name] = [value]
        run_cells(self, segment, layer, env, (UPDATE,))
        for op in segment.ops:
            if isinstance(op.attrs, StoreAttrs):
                places = [(segment, layer, f"@{op.attrs.weight}"), *self.shared(segment, op.attrs.weight)]
                for own, at, name in places:  # a shared table may be in another order there
                    new: Any = env[op.name][0]
                    turned = new.permute([op.dims.index(dim) for dim in own.weight[name].dims])
                    self.resident.store(own, at, name, turned)

    def new_weights(self) -> Iterator[tuple[Key, Tensor]]:
        """What the next step would read, in the order of dims of the ops that made it."""
        for segment, layer in chain.from_iterable(self.layers[stage] for stage in self.own):
            for op in segment.ops:
                if isinstance(op.attrs, StoreAttrs):
                    name, weight = f"@{op.attrs.weight}", op.attrs.weight
                    dims = segment.weight[name].dims
                    found = self.resident.stored(segment, layer, name)
                    yield (layer, weight), found.permute([dims.index(dim) for dim in op.dims])

    def shared(self, first: Segment, weight: str) -> Iterator[tuple[Segment, int, str]]:
        """Weights of layers here that are a table of the first layer, and of which they make no new one themselves."""
        for segment, layer in chain.from_iterable(self.layers[stage] for stage in self.own):
            for own in segment.weights:
                tied = first is self.shards.graph.embedding and own.tied == f"@{weight}"
                if tied and not stores(segment, own.name.removeprefix("@")):
                    yield segment, layer, own.name

    # -- between cells -----------------------------------------------------------------------------

    def own_tokens(self) -> Tensor:
        """Each rank reads the ids of its own sequences."""
        first, at = self.shards.graph.embedding, self.shards.offset
        whole = self.shards.dealt(self.shards.inputs.tokens[at : at + self.sequences], first.input_dims)
        dims = first.entry.dims if first.entry is not None else ((),) * whole.ndim
        return self.resident.exact(self.shards.shard(whole, dims, self.ranks.coordinates).copy())

    def begin_with(self, cell: Cell) -> tuple[Tensor | None, Env]:
        """What a cell begins with, from another GPU or from this one, and what comes beside it; None at an end of the model."""
        message = taken(self.schedule, self.gpu, cell)
        if message is None:
            return None, {}
        if message.source == message.target:
            value, *others = self.handed.pop(message)
        else:
            with self.timed(("", RECV)):
                value, *others = self.channels.receive(message)
        return value, dict(zip(self.beside_of(message), ([one] for one in others), strict=True))

    def hand_on(self, cell: Cell, value: Tensor, beside: Env) -> bool:
        """Whether there is anybody to hand it on to."""
        message = given(self.schedule, self.gpu, cell)
        if message is None:
            return False
        others: list[Any] = [beside[name][0] for name in self.beside_of(message)]
        if message.source == message.target:
            self.handed[message] = [value, *others]
            return True
        with self.timed(("", SEND.name)):
            self.channels.send(message, [value, *others])
        return True


def only_read(env: Env, segment: Segment, later: Iterable[str]) -> Env:
    """Values that ops of these cells read, and those whose gradients come from layers behind."""
    read = {name for op in segment.ops if op.cell in later for name in op.inputs}
    if BACKWARD in later and segment.gets:
        read |= {one.name for one in segment.taken} | {value for _, value in segment.handed}
    return {name: value for name, value in env.items() if name in read}
