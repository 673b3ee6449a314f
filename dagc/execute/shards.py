"""Rank arithmetic: which part of every value, weight and cache a rank of a mesh has. Nothing here computes a value; the
runs in NumPy and in torch, the twin's checks and the counting of bytes all ask here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..ir.entries import entries_dim
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.experts import DispatchAttrs
from ..ir.ops.attributes.losses import LabelsAttrs
from ..ir.ops.attributes.training import WeightAttrs
from ..ir.ops.leaving import EVERY
from ..ir.ops.op_set import state_of
from ..ir.ops.packing import sequences_of_row
from ..ir.ops.sequence import SEQUENCE_DIMS, order
from ..ir.segment import Segment
from ..ir.sharding import AT_EXPERTS, Axes, Sharding
from .failure import CannotRun
from .inputs import Inputs, random_tensor
from .routed import RoutedRows, dispatch_of
from .values import Floats, Ints

Coordinates = Mapping[str, int]
"""A rank of a mesh: its place along each atom."""


@dataclass
class Shards:
    """The parts of one graph, of every rank of a stage (every stage has the same mesh). `offset`: first global sequence (of a
    mixed step first packed row) of the part of the batch that runs. `wholes`: weights by layer and name; `placements`: of routed rows by segment,
    dispatch and the way to place experts. `expert_ranks`: those that have experts alone, where there are any; all others are `ranks`."""

    graph: Graph
    inputs: Inputs
    mesh: Mesh
    offset: int = 0
    ranks: list[dict[str, int]] = field(init=False)
    expert_ranks: list[dict[str, int]] = field(init=False)
    wholes: dict[tuple[int, str], Floats] = field(default_factory=dict)
    placements: dict[tuple[str, str, str], RoutedRows] = field(default_factory=dict)
    _blocks: dict[tuple[object, ...], tuple[slice, ...]] = field(default_factory=dict)
    _shapes: dict[tuple[object, ...], list[tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = self._all("")
        self.expert_ranks = self._all(AT_EXPERTS) if self.mesh.apart is not None else []

    def _all(self, on: str) -> list[dict[str, int]]:
        names = self.mesh.on(on)
        return [dict(zip(names, at, strict=True)) for at in np.ndindex(*(self.mesh.sizes[name] for name in names))]

    def at(self, on: str) -> list[dict[str, int]]:
        """The ranks that have a value, or run an op, which is `on` them (see Sharding)."""
        return self.expert_ranks if on else self.ranks

    # -- blocks of a tensor ------------------------------------------------------------------------

    def block(self, axes: Axes, rank: Coordinates) -> int:
        """Which block of a split dimension a rank has: mixed radix, major axis first."""
        index = 0
        for axis in axes:
            index = index * self.mesh.sizes[axis] + rank[axis]
        return index

    def part(self, size: int, axes: Axes, rank: Coordinates) -> slice:
        return self.mesh.part(size, axes, rank)

    def parts(self, shape: tuple[int, ...], layout: tuple[Axes, ...], rank: Coordinates) -> tuple[slice, ...]:
        """The block of a tensor of this shape that a layout gives a rank."""
        key = shape, layout, *rank.items()
        found = self._blocks.get(key)
        if found is None:
            found = tuple([self.part(n, axes, rank) for n, axes in zip(shape, layout, strict=True)])
            self._blocks[key] = found
        return found

    def shapes(self, shape: tuple[int, ...], layout: Sharding) -> list[tuple[int, ...]]:
        """Of a tensor of this shape what each of the ranks that have it has."""
        key = shape, layout.dims, layout.on
        found = self._shapes.get(key)
        if found is None:
            every = (self.parts(shape, layout.dims, rank) for rank in self.at(layout.on))
            found = self._shapes[key] = [tuple([p.stop - p.start for p in parts]) for parts in every]
        return found

    def groups(self, axes: Axes, on: str = "") -> Iterator[list[int]]:
        """Ranks, by their place among those that are `on`, of each group over some axes; the first of a group first."""
        found: dict[tuple[int, ...], list[int]] = {}
        for i, rank in enumerate(self.at(on)):
            found.setdefault(tuple(at for axis, at in rank.items() if axis not in axes), []).append(i)
        yield from found.values()

    def shard(self, whole: NDArray[Any], layout: tuple[Axes, ...], rank: Coordinates) -> NDArray[Any]:
        return whole[self.parts(whole.shape, layout, rank)]

    def dealt(self, whole: NDArray[Any], dims: tuple[str, ...], *, back: bool = False) -> NDArray[Any]:
        """A tensor of the model with its tokens in the order of this mesh, or `back` in their own."""
        if self.mesh.zigzag:
            for axis, dim in enumerate(dims):
                if dim in SEQUENCE_DIMS:
                    tokens = order(whole.shape[axis], self.mesh)
                    whole = whole.take(np.argsort(tokens) if back else tokens, axis)
        return whole

    def whole(self, segment: Segment, dims: tuple[str, ...], scope: str = "dense") -> tuple[int, ...]:
        """Shape of the whole tensor."""
        return tuple(int(segment.size(d, scope)) for d in dims)

    # -- tokens of a rank --------------------------------------------------------------------------

    def origin(self, op: Op, rank: Coordinates, segment: Segment) -> tuple[int, int]:
        """Global batch and seq index of a rank's first token."""
        seq = int(segment.sizes["seq"])
        batch = int(segment.sizes["batch"])
        return self.first(segment) + self.part(batch, op.loop("batch"), rank).start, self.part(
            seq, op.loop("seq"), rank
        ).start

    def first(self, segment: Segment) -> int:
        """First global sequence that runs; of a part of a mixed step the first of that part's."""
        return self.offset * sequences_of_row(segment)

    def positions(self, segment: Segment, axes: Axes, rank: Coordinates, dim: str) -> Ints:
        """Positions in the sequence of a rank's tokens. New tokens are at the end of the context."""
        size = int(segment.sizes[dim])
        before = int(segment.sizes.get("context", size)) - size if dim == "seq" else 0
        return order(size, self.mesh)[self.part(size, axes, rank)] + before

    def rows(self, segment: Segment, name: str) -> RoutedRows:
        """The routed rows that a value, or an expert weight, is of: where the dispatch sends them, or where the weight was put."""
        dispatch = dispatch_of(segment, name)
        how = segment.weight_of(name).placed if segment.is_weight(name) else dispatch.of(DispatchAttrs).placed
        key = (segment.name, dispatch.name, how)
        if key not in self.placements:
            # The model itself has no spare copies; a split one has those of its placement.
            expert = dispatch.dims[0]
            spare = int(segment.size(expert, "experts") - segment.sizes[expert]) if self.graph.level == "placed" else 0
            self.placements[key] = RoutedRows.of(segment, dispatch, self.mesh, self.inputs.routing, spare, how)
        return self.placements[key]

    # -- what a rank is given ----------------------------------------------------------------------

    def weight(self, segment: Segment, layer: int, name: str, rank: Coordinates) -> object:
        """A shard of a weight; of routed experts a mapping physical expert -> its matrix."""
        weight = segment.weight[name]
        whole = self.whole_weight(segment, layer, name)
        layout = weight.sharding.dims if weight.sharding is not None else ((),) * whole.ndim
        if weight.scope != "experts":
            return self.shard(whole, layout, rank)
        rows = self.rows(segment, name)
        at = weight.dims.index(rows.expert)
        inner = layout[:at] + layout[at + 1 :]
        experts = range(len(rows.slots))[self.part(len(rows.slots), layout[at], rank)]
        return {p: self.shard(np.take(whole, rows.slots[p], axis=at), inner, rank) for p in experts}

    def read(self, segment: Segment, name: str, value: Any, rank: Coordinates) -> Any:
        """A value as an op reads it: of a copy of experts' weights a mapping, as of the weights themselves."""
        if name not in segment.copies or segment.weight_of(name).scope != "experts":
            return value
        rows, dims, layout = self.rows(segment, name), segment.dims_of(name), segment.sharding_of(name)
        at = dims.index(rows.expert)
        axes = layout.dims[at] if layout is not None else ()
        own = range(len(rows.slots))[self.part(len(rows.slots), axes, rank)]
        return {expert: value[(*(slice(None),) * at, k)] for k, expert in enumerate(own)}

    def master(self, segment: Segment, layer: int, op: Op, rank: Coordinates) -> Floats:
        """A rank's part of a weight, in the layout of an op of the optimizer."""
        name = f"@{op.of(WeightAttrs).weight}"
        dims = segment.weight[name].dims
        layout = op.sharding.dims if op.sharding is not None else ((),) * len(op.dims)
        whole = self.whole_weight(segment, layer, name).transpose([dims.index(d) for d in op.dims])
        found: Floats = self.shard(whole, layout, rank)
        return found

    def whole_weight(self, segment: Segment, layer: int, name: str) -> Floats:
        """All of a weight, its dims in its order. One that is tied has no numbers of its own: it is the first layer's."""
        if (layer, name) not in self.wholes:
            weight, first = segment.weight[name], self.graph.embedding
            if weight.tied in first.weight:
                dims = first.weight[weight.tied].dims
                table = self.whole_weight(first, -1, weight.tied)
                self.wholes[layer, name] = table.transpose([dims.index(d) for d in weight.dims])
            else:
                self.wholes[layer, name] = self.inputs.weights(segment, layer, weight)
        return self.wholes[layer, name]

    def labels(self, segment: Segment, op: Op, rank: Coordinates) -> Ints:
        """A rank's part of the tokens that follow those of this micro-batch, the next ones or some further ahead."""
        if self.inputs.labels is None:
            raise CannotRun("no labels are given")
        first = self.first(segment)
        begin = op.of(LabelsAttrs).ahead - 1
        end = begin + int(segment.sizes["seq"])
        if self.inputs.labels.shape[1] < end:
            raise CannotRun(f"labels are given for {self.inputs.labels.shape[1]} tokens of a sequence, not {end}")
        part = self.inputs.labels[first : first + int(segment.sizes["batch"]), begin:end]
        layout = op.sharding.dims if op.sharding is not None else ((),) * len(op.dims)
        found: Ints = self.shard(self.dealt(part, op.dims), layout, rank)
        return found

    def cache(self, segment: Segment, layer: int, op: Op, rank: Coordinates) -> Floats:
        """A rank's part of the cache or state that a decode step finds, with room for the new tokens. A copy."""
        layout = op.sharding.dims if op.sharding is not None else ((),) * len(op.dims)
        rows = EVERY if EVERY in op.dims else "batch"
        if self.inputs.history is None:
            sequences = self.inputs.tokens.shape[0] * sequences_of_row(segment)
            shape = tuple(sequences if d == rows else int(segment.size(d)) for d in op.dims)
            history = random_tensor(f"cache.{segment.name}.{layer}.{op.name}", shape)
        else:
            history = self.inputs.history[layer, op.name]
            grouped = entries_dim(op.dims)
            if grouped is not None:  # of begun groups there is an entry already
                axis, count = op.dims.index(grouped), int(segment.size(grouped))
                room = np.zeros_like(np.take(history, [0] * (count - history.shape[axis]), axis))
                history = np.concatenate([history, room], axis)
            if "context" in op.dims:
                axis = op.dims.index("context")
                room = np.zeros_like(np.take(history, np.arange(int(segment.sizes["seq"])), axis))
                history = np.concatenate([history, room], axis)
        first = self.first(segment)
        part = range(first, first + int(segment.sizes[rows]))
        return self.shard(np.take(history, part, axis=op.dims.index(rows)), layout, rank).copy()

    def takes_new_tokens(self, segment: Segment, op: Op, rank: Coordinates) -> bool:
        """Whether a rank's part of a cache is the one with the end of the context. Every rank has all entries of groups."""
        if "context" not in op.dims:
            return True
        context = int(segment.sizes["context"])
        layout = op.sharding.dims if op.sharding is not None else ((),) * len(op.dims)
        return bool(self.part(context, layout[op.dims.index("context")], rank).stop == context)

    def state(self, segment: Segment, layer: int, op: Op, rank: Coordinates) -> Floats:
        """What a sequential op remembers before the pass: nothing at the start of a prompt."""
        state = state_of(segment, op)
        assert state is not None and state.sharding is not None
        if segment.sizes["seq"] < segment.sizes["context"]:
            return self.cache(segment, layer, state, rank)
        return self.shard(np.zeros(self.whole(segment, state.dims)), state.sharding.dims, rank)
