"""One rank of a placed graph: its ops on torch tensors, stage by stage and micro-batch by micro-batch.

Layouts, weights and inputs are those of the numeric proof (`dagc.execute.shards`), and so is the walk over the ops; only the
arithmetic and the communication are torch's. Lanes of a two-batch overlap run one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...base.collectives import GATHER, SCATTER
from ...base.dtypes import INDICES
from ...ir.handed_on import sent
from ...ir.segment import Segment
from ...ir.sharding import Sharding
from ..chosen import chooses_tokens
from ..dispatcher import Backend, Env, OpCall, Results, RunPlace, run_layer
from ..marks import Mark
from ..shards import Coordinates, Shards
from .comm import collective
from .communicator import Communicator
from .front_end import FrontEnd
from .groups import Ranks
from .packed_messages import Parts, packed, room, unpacked
from .processes import LaunchError, in_vain
from .resident import Resident
from .rules import BACKEND
from .spans import Span

Key = tuple[str, str]
"""(segment, op); ("", "send") and ("", "recv") between stages; ("", "scatter") and ("", "gather") with the front end."""


@dataclass
class Rank:
    """`times`: seconds of each op in the last run; `watched`: values of one op, by first sequence; `chosen`: tokens, where
    the model's end is here, in the same way; `taken`: those that the front end took in, where it is here. `spans`: of the last
    run, in order, as seconds since all ranks began; `marks`: each is named in the profiler's trace."""

    shards: Shards
    ranks: Ranks
    comm: Communicator
    device: Any
    dtype: Any
    watch: str = ""
    marks: bool = False
    spans: list[Span] = field(default_factory=list)
    part: int = field(default=0, init=False)
    began_s: float = field(default=0.0, init=False)
    times: dict[Key, float] = field(default_factory=dict)
    watched: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    chosen: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    taken: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    backend: Backend = field(default=BACKEND, init=False)
    resident: Resident = field(init=False)
    front_end: FrontEnd = field(init=False)

    def __post_init__(self) -> None:
        self.front_end = FrontEnd(self.comm)
        self.resident = Resident(self.shards, self.ranks.coordinates, self.device, self.dtype)

    def here(self, on: str = "") -> Sequence[Coordinates]:
        return [self.ranks.coordinates]

    # -- running ---------------------------------------------------------------------------------

    @contextmanager
    def timed(self, key: Key, layer: int | None = None) -> Iterator[None]:
        """Between points where the device has nothing left to do. `layer`: its index in the model, of what is inside of one."""
        self.wait()
        with self.marked(key, layer):
            start = time.perf_counter()
            yield
            self.wait()
            end = time.perf_counter()
        self.times[key] = self.times.get(key, 0.0) + end - start
        self.spans.append(Span(*key, layer, self.part, start - self.began_s, end - self.began_s))

    def marked(self, key: Key, layer: int | None) -> AbstractContextManager[object]:
        if not self.marks:
            return nullcontext()
        graph = self.shards.graph
        name = graph.layer_name(key[0], layer) if layer is not None else ""
        return torch.profiler.record_function(Mark(graph.phase, self.part, name, key[1]).text)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def run(self) -> float:
        """Every part of the batch through this rank's stage; the seconds that it took. Ids are handed out before, and what was chosen
        is taken in behind: no step waits for that."""
        self.times.clear()
        self.spans.clear()
        self.began_s = time.perf_counter()
        graph = self.shards.graph
        parts = graph.microbatches * graph.lanes
        size = self.shards.inputs.tokens.shape[0] // parts
        stage = self.ranks.at[0]
        before = sum(n for s in graph.stages[:stage] for _, n in s.layers)
        posted: list[tuple[Any, Any]] = []
        ids = [self.tokens(part, size) for part in range(parts)] if not stage else []
        self.wait()
        dist.barrier()
        start = time.perf_counter()
        self.spans = [s.later(self.began_s - start) for s in self.spans]
        self.began_s = start
        for part in range(parts):
            self.shards.offset, self.part = part * size, part
            value, *others = self.received(stage) if stage else [ids[part]]
            beside: Env = dict(zip(self.beside(stage), ([one] for one in others), strict=True))
            for segment, layer in islice(graph.layers, before, before + sum(n for _, n in graph.stages[stage].layers)):
                (value,) = run_layer(self, segment, layer, [value], beside)
            if stage == len(graph.stages) - 1 and chooses_tokens(graph):
                self.chosen[self.shards.offset] = value.cpu().numpy()
            if stage < len(graph.stages) - 1:
                with self.timed(("", "send")):
                    target = int(self.ranks.number[(stage + 1, *self.ranks.at[1:])])
                    whole = packed(
                        [value, *(beside[name][0] for name in self.beside(stage + 1))], self.parts(stage + 1)
                    )
                    posted.append((dist.isend(whole, target), whole))
        for work, _ in posted:
            work.wait()
        self.wait()
        took_s = time.perf_counter() - start
        if self.front_end.move(GATHER.name) is not None:
            for offset, value in self.chosen.items():
                self.part = offset // size
                with self.timed(("", GATHER.name)):
                    taken = self.front_end.gathered(torch.as_tensor(value))
                if taken is not None:
                    self.taken[offset] = taken
        return took_s

    def tokens(self, part: int, size: int) -> Any:
        """This rank's ids of the sequences of a part."""
        first = self.shards.graph.embedding
        self.part = part
        whole = self.shards.dealt(self.shards.inputs.tokens[part * size : (part + 1) * size], first.input_dims)
        if self.front_end.move(SCATTER.name) is not None:
            with self.timed(("", SCATTER.name)):
                mine = self.front_end.scattered(whole)
            return self.resident.exact(mine)
        dims = first.entry.dims if first.entry is not None else ((),) * whole.ndim
        return self.resident.exact(self.shards.shard(whole, dims, self.ranks.coordinates).copy())

    def beside(self, stage: int) -> tuple[str, ...]:
        """Names of what a stage receives beside the residual stream."""
        return next((e.values[1:] for e in self.shards.graph.sends if e.target == stage), ())

    def parts(self, stage: int) -> Parts:
        """What a stage receives."""
        graph = self.shards.graph
        edge = next(e for e in graph.sends if e.target == stage)
        return [self.part_of(segment, name, layout) for _, segment, name, layout in sent(graph, edge)]

    def part_of(self, segment: Segment, name: str, layout: Sharding) -> tuple[tuple[int, ...], Any]:
        """A rank's part of a value."""
        dims, scope, dtype = segment.dims_of(name), segment.scope_of(name), segment.dtype_of(name)
        split = zip(dims, layout.dims, strict=True)
        shape = tuple(int(segment.size(d, scope)) // self.shards.mesh.size(axes) for d, axes in split)
        return shape, getattr(torch, dtype) if dtype in INDICES else self.dtype

    def received(self, stage: int) -> list[Any]:
        parts = self.parts(stage)
        message = room(parts, self.device)
        with self.timed(("", "recv")):
            dist.recv(message, int(self.ranks.number[(stage - 1, *self.ranks.at[1:])]))
        return unpacked(message, parts)

    # -- what the dispatcher asks ------------------------------------------------------------------

    def weight(self, segment: Segment, layer: int, name: str, rank: Coordinates) -> object:
        return self.resident.weight(segment, layer, name)

    def lend(self, place: RunPlace, rank: Coordinates) -> Resident:
        return self.resident

    def collective(self, place: RunPlace, operands: Results) -> Results:
        segment, layer, op = place
        try:
            return [[value] for value in collective(self.comm, segment, op, [x for (x,) in operands])]
        except RuntimeError as error:
            reason = in_vain(error)
            if not reason:
                raise
            name = f"{self.shards.graph.layer_name(segment.name, layer)}/{op.name}"
            raise LaunchError(f"other processes did not come to `{name}`: {reason}") from error

    def done(self, call: OpCall, x: Sequence[Any], value: object) -> None:
        """Nothing is counted here: the proof counts."""

    def around(self, place: RunPlace, step: Callable[[], Results]) -> Results:
        """Timed without what is made once."""
        segment, layer, op = place
        for name in op.inputs:
            if name.startswith("@"):
                self.resident.weight(segment, layer, name)
        self.resident.prepare(segment.within(op.scope), layer, op)
        with self.timed((segment.name, op.name), layer):
            results = step()
        if op.name == self.watch:
            value: Any = results[0][0]
            self.watched[self.shards.offset] = value.double().cpu().numpy()
        return results
