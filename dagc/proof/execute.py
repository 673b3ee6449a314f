"""Run a graph on a set of ranks, each holding its shards; collectives move data between them.

The model graph is the same thing on one rank with nothing split, so both runs share every line of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ..ir.graph import Graph, Op, Segment
from ..ir.mesh import Mesh
from ..ir.ops import attend_operands
from ..ir.routing import expert_probabilities, place_experts
from ..ir.sharding import Axes
from ..spec import Routing
from . import kernels as k
from .collectives import collective, slice_value

Coordinates = Mapping[str, int]


def random_tensor(name: str, shape: tuple[int, ...], scale: float = 1.0) -> k.Floats:
    """The same numbers for the same name, whoever asks."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(rng.standard_normal(shape) * scale)


@dataclass(frozen=True)
class Inputs:
    """Token ids [sequences, seq] and sizes of the whole run. A decode step attends to a random cache."""

    tokens: k.Ints
    routing: Routing
    redundant: int


@dataclass
class Machine:
    """Ranks of one stage (every stage has the same mesh). `offset`: first global sequence of the current part."""

    graph: Graph
    inputs: Inputs
    mesh: Mesh
    ranks: list[dict[str, int]] = field(default_factory=list)
    offset: int = 0
    watch: Callable[[Segment, int, Op, list[object]], None] | None = None

    def __post_init__(self) -> None:
        names = [name for name, _ in self.mesh.atoms]
        self.ranks = [dict(zip(names, index, strict=True)) for index in np.ndindex(self.mesh.shape)]

    # -- layouts ---------------------------------------------------------------------------------

    def block(self, axes: Axes, rank: Coordinates) -> int:
        """Which block of a split dimension a rank holds: mixed radix, major axis first."""
        index = 0
        for axis in axes:
            index = index * self.mesh.sizes[axis] + rank[axis]
        return index

    def part(self, size: int, axes: Axes, rank: Coordinates) -> slice:
        step = size // self.mesh.size(axes)
        start = self.block(axes, rank) * step
        return slice(start, start + step)

    def shard(self, whole: k.Floats, layout: tuple[Axes, ...], rank: Coordinates) -> k.Floats:
        return whole[tuple(self.part(n, axes, rank) for n, axes in zip(whole.shape, layout, strict=True))]

    # -- running ---------------------------------------------------------------------------------

    def run(self) -> list[k.Best]:
        """Every part of the batch through every layer; the chosen tokens of each part, in order of sequences."""
        parts = self.graph.microbatches * self.graph.lanes
        size = self.inputs.tokens.shape[0] // parts
        out = []
        for part in range(parts):
            self.offset = part * size
            values: list[object] = [self.inputs.tokens[self.offset : self.offset + size]] * len(self.ranks)
            for segment in self.graph.segments:
                for layer in range(segment.repeat):
                    values = self.layer(segment, layer, values)
            out.append(self.gathered(values))
        return out

    def gathered(self, values: list[object]) -> k.Best:
        """The last value lies split over the batch only: put its pieces together."""
        segment = self.graph.segments[-1]
        layout = segment.sharding_of(segment.output)
        axes = layout.dims[0] if layout is not None else ()
        pieces: dict[int, k.Best] = {}
        for rank, value in zip(self.ranks, values, strict=True):
            assert isinstance(value, k.Best)
            known = pieces.setdefault(self.block(axes, rank), value)
            if not np.array_equal(known.index, value.index):
                raise ValueError("replicas of the result differ")
        ordered = [pieces[i] for i in range(len(pieces))]
        return k.Best(np.concatenate([p.value for p in ordered]), np.concatenate([p.index for p in ordered]))

    def layer(self, segment: Segment, layer: int, entry: list[object]) -> list[object]:
        env: dict[str, list[object]] = {segment.input: entry}
        if segment.input == "tokens" and segment.entry is not None:
            env["tokens"] = [self.shard(v, segment.entry.dims, r) for v, r in zip(entry, self.ranks, strict=True)]  # type: ignore[arg-type]
        for op in segment.ops:
            if op.is_collective:
                env[op.name] = collective(self, segment, op, env)
            elif op.kind == "slice":
                env[op.name] = slice_value(self, segment, op, env)
            else:
                env[op.name] = [
                    self.compute(segment, layer, op, rank, [self.operand(segment, layer, n, env, i) for n in op.inputs])
                    for i, rank in enumerate(self.ranks)
                ]
            if self.watch is not None:
                self.watch(segment, layer, op, env[op.name])
        return env[segment.output]

    def operand(self, segment: Segment, layer: int, name: str, env: Mapping[str, list[object]], index: int) -> object:
        return self.weight(segment, layer, name, self.ranks[index]) if name.startswith("@") else env[name][index]

    def weight(self, segment: Segment, layer: int, name: str, rank: Coordinates) -> object:
        """A shard of a random weight; of routed experts a mapping physical expert -> its matrix."""
        weight = segment.weight[name]
        shape = tuple(int(segment.size(d)) for d in weight.dims)
        fan = prod(shape[:-1]) if len(shape) > 1 and weight.scope == "dense" else shape[-2] if len(shape) > 1 else 1
        whole = random_tensor(f"{segment.name}.{layer}.{name}", shape, 1.0 if len(shape) == 1 else fan**-0.5)
        layout = weight.sharding.dims if weight.sharding is not None else ((),) * len(shape)
        if weight.scope != "experts":
            return self.shard(whole, layout, rank)
        slots, _ = self.physical(segment)
        held = range(len(slots))[self.part(len(slots), layout[0], rank)]
        return {p: self.shard(whole[slots[p]], layout[1:], rank) for p in held}

    def physical(self, segment: Segment) -> tuple[list[int], dict[int, list[int]]]:
        """Expert of every physical expert, and the physical experts of every expert."""
        grouped = next(op for op in segment.ops if op.scope == "experts" and op.kind == "contract")
        count, top_k = int(segment.sizes["expert"]), int(segment.sizes["choice"])
        p = expert_probabilities(self.inputs.routing, count, top_k)
        ranks = self.mesh.size(grouped.loop("expert"))
        # The model itself has no spare copies; a split one has those of its placement.
        spare = self.inputs.redundant if self.graph.level == "placed" else 0
        slots = place_experts(p, ranks, spare).slots.ravel().tolist()
        where: dict[int, list[int]] = {}
        for physical, expert in enumerate(slots):
            where.setdefault(expert, []).append(physical)
        return slots, where

    def origin(self, op: Op, rank: Coordinates, segment: Segment) -> tuple[int, int]:
        """Global batch and seq index of a rank's first token."""
        seq = int(segment.sizes["seq"])
        batch = int(segment.sizes["batch"])
        return self.offset + self.part(batch, op.loop("batch"), rank).start, self.part(seq, op.loop("seq"), rank).start

    def positions(self, segment: Segment, axes: Axes, rank: Coordinates, dim: str) -> k.Ints:
        """Positions in the sequence of a rank's tokens. The one token of a decode step stands last."""
        size = int(segment.sizes[dim])
        if dim == "seq" and size < segment.sizes["context"]:
            return np.asarray([int(segment.sizes["context"]) - 1])
        part = self.part(size, axes, rank)
        return np.arange(part.start, part.stop)

    # -- ops -------------------------------------------------------------------------------------

    def compute(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        dims = [segment.dims_of(n) for n in op.inputs]
        if isinstance(x[0], k.Ragged) and op.kind != "combine":
            return self.ragged(op, dims, x)
        if op.kind == "contract":
            return k.contract(_array(x[0]), dims[0], _array(x[1]), dims[1], op.dims)
        if op.kind in ("multiply", "add"):
            a, b = (k.aligned(_array(v), d, op.dims) for v, d in zip(x, dims, strict=True))
            return a * b if op.kind == "multiply" else a + b
        if op.kind == "scale":
            return _array(x[0]) * float(op.attr("factor", 1.0) or 1.0)
        if op.kind in ("rms_norm", "layer_norm"):
            sums = [_array(v) for v in x[2:]] or [k.row_sum(s, _array(x[0])) for s in ("row_square_sum", "row_sum")]
            return k.norm(op.kind, _array(x[0]), _array(x[1]), sums, int(segment.size(op.dims[-1])))
        if op.kind in ("row_sum", "row_square_sum"):
            return k.row_sum(op.kind, _array(x[0]))
        if op.kind in ("silu", "gelu", "relu", "sigmoid"):
            return k.activation(op.kind, _array(x[0]))
        if op.kind == "rope":
            axis = op.dims.index("seq")
            return k.rope(_array(x[0]), self.positions(segment, op.loop("seq"), rank, "seq"), axis)
        return getattr(self, f"op_{op.kind}")(segment, layer, op, rank, x)

    def ragged(self, op: Op, dims: list[tuple[str, ...]], x: list[object]) -> k.Ragged:
        first = x[0]
        assert isinstance(first, k.Ragged)
        if op.kind == "contract":
            weights = x[1]
            assert isinstance(weights, dict)
            inner, outer = ("n", dims[0][-1]), ("n", op.dims[-1])
            return first.map(lambda p, data: k.contract(data, inner, weights[p], dims[1][1:], outer))
        if op.kind in ("multiply", "add"):
            second = x[1]
            assert isinstance(second, k.Ragged)
            join = np.multiply if op.kind == "multiply" else np.add
            return first.map(lambda p, data: join(data, second.rows[p][1]))
        if op.kind == "scale":
            return first.map(lambda p, data: data * float(op.attr("factor", 1.0) or 1.0))
        return first.map(lambda p, data: k.activation(op.kind, data))

    def op_lookup(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        ids, table = np.asarray(x[0]), _array(x[1])
        vocab = segment.dims_of(op.inputs[1])[0]
        first = self.part(int(segment.sizes[vocab]), op.loop(vocab), rank).start
        inside = (ids >= first) & (ids < first + len(table))
        return np.where(inside[..., None], table[np.where(inside, ids - first, 0)], 0.0)

    def op_cache(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        """Prefill: the cache is what was computed. Decode: random history with the new token at its end."""
        new = _array(x[0])
        context, axis = int(segment.sizes["context"]), op.dims.index("context")
        if segment.sizes["seq"] == context:
            return new
        shape = [int(segment.sizes[d]) for d in op.dims]
        shape[0] = self.inputs.tokens.shape[0]
        history = random_tensor(f"cache.{segment.name}.{layer}.{op.name}", tuple(shape))
        history = history[self.offset : self.offset + int(segment.sizes["batch"])]
        layout = op.sharding.dims if op.sharding is not None else ((),) * len(shape)
        mine = self.shard(history, layout, rank).copy()
        if self.part(context, layout[axis], rank).stop == context:
            tail = [slice(None)] * mine.ndim
            tail[axis] = slice(-1, None)
            mine[tuple(tail)] = new
        return mine

    def op_attend(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        queries, keys, _ = attend_operands(op)
        named = [(_array(v), segment.dims_of(n)) for v, n in zip(x, op.inputs, strict=True)]
        split = op.loop("context")
        at = (self.positions(segment, op.loop("seq"), rank, "seq"), self.positions(segment, split, rank, "context"))
        found = k.attend(
            named[: len(queries)],
            named[len(queries) : 2 * len(keys)],
            named[-1],
            op.dims,
            at,
            bool(op.attr("causal", True)),
            float(op.attr("width", 0.0) or 0.0) or None,
        )
        return found if split else k.normalised(found)

    def op_route(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        return k.route(
            _array(x[0]),
            int(op.attr("top_k", 1) or 1),
            str(op.attr("score", "softmax")),
            bool(op.attr("normalize", True)),
            int(op.attr("groups", 1) or 1),
            int(op.attr("groups_limit", 1) or 1),
        )

    def op_dispatch(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        """Tokens for every physical expert that this rank may reach: all but those that a rank with the same
        tokens selects for itself."""
        routed = x[1]
        assert isinstance(routed, k.Routed)
        slots, where = self.physical(segment)
        home = str(op.attr("exchange", "") or "").split("+")
        stay = tuple(a for a in op.loop("expert") if a not in home)
        held = set(range(len(slots))[self.part(len(slots), stay, rank)])
        return k.dispatch(_array(x[0]), routed, self.origin(op, rank, segment), where, held)

    def op_combine(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        ragged, routed = x
        assert isinstance(ragged, k.Ragged) and isinstance(routed, k.Routed)
        return k.combine(ragged, routed, self.origin(op, rank, segment))

    def op_last(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        seq, axes = int(segment.sizes["seq"]), op.loop("seq")
        last = np.take(_array(x[0]), -1, axis=segment.dims_of(op.inputs[0]).index("seq"))
        return last if self.part(seq, axes, rank).stop == seq else np.zeros_like(last)

    def op_argmax(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        dim = segment.dims_of(op.inputs[0])[-1]
        first = self.part(int(segment.sizes[dim]), op.loop(dim), rank).start
        scores = _array(x[0])
        return k.Best(scores.max(axis=-1), scores.argmax(axis=-1) + first)


def _array(value: object) -> k.Floats:
    assert isinstance(value, np.ndarray)
    return value
