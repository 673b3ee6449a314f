"""Run a graph in NumPy on a set of ranks, each with its shards; collectives move data between them.

The model graph is the same thing on one rank with nothing split, so both runs share every line of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ..base.collectives import GATHER, SCATTER
from ..ir.graph import Graph
from ..ir.handed_on import sent
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.experts import RouteAttrs
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, state_of
from ..ir.requests import IDS, RequestMove, request_moves
from ..ir.routed_dims import chosen_from
from ..ir.segment import Segment
from .checkpoint import CheckpointError
from .declared import check, finite
from .dispatcher import Backend, Env, OpCall, Results, RunPlace, run_layer
from .failure import ExecutionError, Wrong
from .inputs import Inputs
from .numpy.collectives import collective
from .numpy.rules import BACKEND, Notes
from .record import Handed, Record
from .shards import Coordinates, Shards
from .traffic import count
from .values import Floats, Ints
from .work import executed

ROUNDING = 1e-9
"""Largest difference of numbers that should be the same, relative to the largest of them."""
Watch = Callable[[Segment, int, Op, list[object]], None]
"""(segment, layer, op, the ranks' first results)."""


@dataclass
class RankMachine:
    """Ranks of one stage (every stage has the same mesh), all in this process. `watch` sees every result; `record`: what
    was moved, computed and stored."""

    graph: Graph
    inputs: Inputs
    mesh: Mesh
    watch: Watch | None = None
    record: Record = field(default_factory=Record)
    shards: Shards = field(init=False)
    moves: dict[str, RequestMove] = field(init=False)
    backend: Backend = field(default=BACKEND, init=False)
    _states: list[Floats] = field(default_factory=list)
    _work: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shards = Shards(self.graph, self.inputs, self.mesh)
        self.moves = {move.kind: move for move in request_moves(self.graph)}

    def here(self, on: str = "") -> Sequence[Coordinates]:
        return self.shards.at(on)

    # -- running ---------------------------------------------------------------------------------

    def run(self) -> list[Ints | Floats]:
        """Every part of the batch through every layer; the result of each part, in order of sequences: chosen tokens,
        or the values of whatever the last block returns. Raises ExecutionError."""
        parts = self.graph.microbatches * self.graph.lanes
        size = self.inputs.tokens.shape[0] // parts
        out = []
        for part in range(parts):
            self.shards.offset = part * size
            values = self.entry(self.inputs.tokens[part * size : (part + 1) * size])
            layers = self.graph.layers
            beside: Env = {}
            for stage in self.graph.stages:
                if stage.index:
                    self.hand_over(stage.index, values, beside)
                for segment, layer in islice(layers, sum(n for _, n in stage.layers)):
                    values = run_layer(self, segment, layer, values, beside)
            out.append(self.gathered(values))
        return out

    def entry(self, tokens: Ints) -> list[object]:
        """Token ids, as the first segment takes them."""
        whole, first = self.shards.dealt(tokens, ("batch", "seq")), self.graph.embedding
        if first.input != IDS or first.entry is None:
            return [whole] * len(self.here())
        move = self.moves.get(SCATTER.name)
        if move is None:
            return [self.shards.shard(whole, first.entry.dims, rank) for rank in self.here()]
        return self.scattered(move, whole)

    def scattered(self, move: RequestMove, whole: Ints) -> list[object]:
        """The front end gives every rank of a group its part of what the root holds."""
        ranks = self.here()
        out: list[Ints] = [whole] * len(ranks)
        for members in self.shards.groups(move.axes):
            held = self.shards.shard(whole, move.whole.dims, ranks[members[0]])
            for i in members:
                out[i] = self.shards.shard(held, move.cut, ranks[i])
            sent = sum(out[i].size for i in members[1:])
            self.record.requests.setdefault(move.kind, []).append(Handed(held.size, sent))
        return [*out]

    def hand_over(self, stage: int, values: list[object], beside: Env, *, back: bool = False) -> None:
        """Every rank sends its shard to its equal on the next stage, and those of what goes `beside` it, as the edge between them says;
        nothing else is there. `back`: gradients, the other way."""
        edge = next((e for e in self.graph.sends if (e.source, e.target) == (stage - 1, stage)), None)
        if edge is None:
            raise ExecutionError(f"stage {stage}", f"stage {stage - 1} sends it nothing")
        ends = (edge.target, edge.source) if back else (edge.source, edge.target)
        kept: Env = {}
        for k, (name, segment, here, layout) in enumerate(sent(self.graph, edge, back=back)):
            given = beside[name] if k else values
            kept |= {name: given} if k else {}
            shape = self.shards.whole(segment, segment.dims_of(here), segment.scope_of(here))
            sizes = self.record.sent.setdefault((*ends, name), [])
            for rank, value in zip(self.here(), given, strict=True):
                block = tuple(p.stop - p.start for p in self.shards.parts(shape, layout.dims, rank))
                if not isinstance(value, np.ndarray) or value.shape != block:
                    raise ExecutionError(
                        f"send {ends[0]} -> {ends[1]}", f"the edge carries blocks of {block} of `{name}`"
                    )
                sizes.append(value.size)
        beside.clear()
        beside.update(kept)

    def gathered(self, values: list[object]) -> Ints | Floats:
        """The last value is split over the batch only: the front end puts its pieces together, the batch first."""
        segment = self.graph.head
        layout, dims = segment.sharding_of(segment.output), segment.dims_of(segment.output)
        axis = dims.index("batch")
        axes = layout.dims[axis] if layout is not None else ()
        pieces: dict[int, Ints | Floats] = {}
        sizes = [value.size if isinstance(value, np.ndarray) else 0 for value in values]
        move = self.moves.get(GATHER.name)
        for first, *others in self.shards.groups(move.axes) if move is not None else ():
            taken = Handed(sizes[first], sum(sizes[i] for i in others))
            self.record.requests.setdefault(GATHER.name, []).append(taken)
        for rank, result in zip(self.here(), values, strict=True):
            assert isinstance(result, np.ndarray)
            if not alike(pieces.setdefault(self.shards.block(axes, rank), result), result):
                raise ExecutionError(f"{segment.name}/{segment.output}", "replicas of the result differ")
        whole = np.concatenate([pieces[i] for i in range(len(pieces))], axis=axis)
        return np.moveaxis(self.shards.dealt(whole, dims, back=True), axis, 0)

    # -- what the dispatcher asks ------------------------------------------------------------------

    def weight(self, segment: Segment, layer: int, name: str, rank: Coordinates) -> object:
        return self.shards.weight(segment, layer, name, rank)

    def lend(self, place: RunPlace, rank: Coordinates) -> Notes:
        return Notes()

    def collective(self, place: RunPlace, operands: Results) -> Results:
        results = collective(self.shards, place.segment, place.op, operands)
        moved = count(self.shards, place.segment, place.op, operands[0], results[0])
        self.record.traffic.setdefault((place.segment.name, place.op.name), []).append(moved)
        return results

    def done(self, call: OpCall, x: Sequence[Any], value: object) -> None:
        flops = executed(call.segment, call.op, x, value, call.host.pairs)
        if flops is not None:
            self._work.append(flops)
        if call.host.state is not None:
            self._states.append(call.host.state)

    def around(self, place: RunPlace, step: Callable[[], Results]) -> Results:
        segment, layer, op = place
        where = f"{segment.name}[{layer}]/{op.name}"
        self._work, self._states = [], []
        try:
            results = step()
            check(self.shards, segment, op, results)
        except CheckpointError:
            raise
        except Wrong as error:
            raise ExecutionError(where, str(error)) from error
        except Exception as error:  # whatever it is, it says nothing about the lowering
            raise ExecutionError(where, str(error) or type(error).__name__, wrong=False) from error
        if not finite(op, results):
            raise ExecutionError(where, "the result is not finite")
        if self._work:
            self.record.work.setdefault((segment.name, op.name), []).append(self._work)
        turn = layer, self.shards.offset
        if isinstance(op.attrs, RouteAttrs) and (op.attrs.skip or op.attrs.capacity or op.attrs.empty):
            first = chosen_from(segment, op.dims[-1])
            kept = [(np.asarray(w) != 0) & (np.asarray(c) < first) for c, w in zip(*results, strict=True)]
            share = sum(np.count_nonzero(each) for each in kept) / sum(each.size for each in kept)
            self.record.kept.setdefault((segment.name, op.dims[-1]), {})[turn] = share
        if self.record.kept:
            self.record.turns.setdefault((segment.name, op.name), []).append(turn)
        self.remember(place, results[0])
        return results

    def remember(self, place: RunPlace, values: list[object]) -> None:
        """Caches and states that the pass leaves; and whoever watches sees every result."""
        segment, layer, op = place
        state = state_of(segment, op)
        remembered = [*self._states] if state is not None else values if OPS[op.kind].tokens is Tokens.CACHE else []
        if remembered:
            self.record.caches[segment.name, op.name] = [v.shape for v in remembered if isinstance(v, np.ndarray)]
        if self.watch is not None:
            self.watch(segment, layer, op, values)
            if state is not None:
                self.watch(segment, layer, state, [*self._states])


def alike(a: Ints | Floats, b: Ints | Floats) -> bool:
    """The same choices, or the same numbers up to rounding."""
    if a.shape != b.shape or a.dtype.kind in "iu":
        return np.array_equal(a, b)
    return bool(np.abs(a - b).max(initial=0.0) <= ROUNDING * np.abs(a).max(initial=0.0))
