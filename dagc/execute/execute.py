"""Run a graph on a set of ranks, each holding its shards; collectives move data between them.

The model graph is the same thing on one rank with nothing split, so both runs share every line of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Graph, Op, Segment, Weight
from ..ir.mesh import Mesh
from ..ir.ops.attributes import (
    AttendAttrs,
    CombineAttrs,
    DispatchAttrs,
    NormAttrs,
    RouteAttrs,
    TemperAttrs,
    values,
)
from ..ir.ops.ops import ACTIVATIONS, attend_extras
from ..ir.ops.sequence import SEQUENCE_DIMS, order
from ..ir.ops.states import state_of
from ..ir.sharding import Axes
from ..spec.spec import Routing
from .checkpoint import CheckpointError
from .declared import check
from .failure import CannotRun, ExecutionError, Wrong
from .numpy import ops as k
from .numpy.collectives import collective, slice_value
from .rotary import Rotary
from .routed import RoutedRows, dispatch_of
from .traffic import Moved, count
from .work import executed

NORMS = ("rms_norm", "layer_norm")
ROUNDING = 1e-9
"""Largest difference of numbers that should be the same, relative to the largest of them."""
ELEMENTWISE = ("scale", "shift", "clamp", "rsqrt", *ACTIVATIONS)
ROW = "row."
"""Rows of one expert: no dimension of a block has such a name."""

Coordinates = Mapping[str, int]
History = Mapping[tuple[int, str], k.Floats]
"""(layer, cache op) -> what a pass finds there, [batch, .., context - new tokens, ..]."""
WeightSource = Callable[[Segment, int, Weight], k.Floats]
"""(segment, layer, weight) -> the whole weight, dims in its order."""


def random_tensor(name: str, shape: tuple[int, ...], scale: float = 1.0) -> k.Floats:
    """The same numbers for the same name, whoever asks."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(rng.standard_normal(shape) * scale)


def random_weight(segment: Segment, layer: int, weight: Weight) -> k.Floats:
    """Normal numbers, scaled by the root of what a contraction sums over."""
    shape = tuple(int(segment.size(d)) for d in weight.dims)
    fan = prod(shape[:-1]) if len(shape) > 1 and weight.scope == "dense" else shape[-2] if len(shape) > 1 else 1
    return random_tensor(f"{segment.name}.{layer}.{weight.name}", shape, 1.0 if len(shape) == 1 else fan**-0.5)


@dataclass(frozen=True)
class Inputs:
    """What a run is given: token ids [sequences, seq], weights, and for a decode step the cache that it finds (random
    without `history`). `balanced`: tokens go to experts in turn instead of by their scores."""

    tokens: k.Ints
    routing: Routing
    weights: WeightSource = random_weight
    history: History | None = None
    balanced: bool = False


@dataclass
class Machine:
    """Ranks of one stage (every stage has the same mesh). `offset`: first global sequence of the current part;
    `watch` sees every result; `traffic`: of each collective every call; `sent`: elements that ranks hand over, by stages;
    `wholes`: weights by layer and name; `placements`: of routed rows by segment and dispatch; `caches`: shapes of caches
    and states; `work`: FLOPs of each op, every call, a
    number a rank; `pairs`: of queries and keys in the last attention."""

    graph: Graph
    inputs: Inputs
    mesh: Mesh
    ranks: list[dict[str, int]] = field(init=False)
    offset: int = 0
    watch: Callable[[Segment, int, Op, list[object]], None] | None = None
    traffic: dict[tuple[str, str], list[Moved]] = field(default_factory=dict)
    sent: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    wholes: dict[tuple[int, str], k.Floats] = field(default_factory=dict)
    states: dict[tuple[int | str, ...], k.Floats] = field(default_factory=dict)
    caches: dict[tuple[str, str], list[tuple[int, ...]]] = field(default_factory=dict)
    work: dict[tuple[str, str], list[list[float]]] = field(default_factory=dict)
    pairs: float = 0.0
    placements: dict[tuple[str, str], RoutedRows] = field(default_factory=dict)

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
        return self.mesh.part(size, axes, rank)

    def parts(self, shape: tuple[int, ...], layout: tuple[Axes, ...], rank: Coordinates) -> tuple[slice, ...]:
        """The block of a tensor of this shape that a layout gives a rank."""
        return tuple(self.part(n, axes, rank) for n, axes in zip(shape, layout, strict=True))

    def shard(self, whole: k.Floats, layout: tuple[Axes, ...], rank: Coordinates) -> k.Floats:
        return whole[self.parts(whole.shape, layout, rank)]

    def dealt(self, whole: NDArray[Any], dims: tuple[str, ...], *, back: bool = False) -> NDArray[Any]:
        """A tensor of the model with its tokens in the order in which this mesh holds them, or `back` in their own."""
        if self.mesh.zigzag:
            for axis, dim in enumerate(dims):
                if dim in SEQUENCE_DIMS:
                    held = order(whole.shape[axis], self.mesh)
                    whole = whole.take(np.argsort(held) if back else held, axis)
        return whole

    def whole(self, segment: Segment, dims: tuple[str, ...], scope: str = "dense") -> tuple[int, ...]:
        """Shape of the whole tensor."""
        return tuple(int(segment.size(d, scope)) for d in dims)

    def rows(self, segment: Segment, name: str) -> RoutedRows:
        """The routed rows that a value, or an expert weight, is of."""
        dispatch = dispatch_of(segment, name)
        key = (segment.name, dispatch.name)
        if key not in self.placements:
            # The model itself has no spare copies; a split one has those of its placement.
            expert = dispatch.dims[0]
            spare = int(segment.size(expert, "experts") - segment.sizes[expert]) if self.graph.level == "placed" else 0
            self.placements[key] = RoutedRows.of(segment, dispatch, self.mesh, self.inputs.routing, spare)
        return self.placements[key]

    # -- running ---------------------------------------------------------------------------------

    def run(self) -> list[k.Ints | k.Floats]:
        """Every part of the batch through every layer; the result of each part, in order of sequences: chosen tokens,
        or the values of whatever the last block returns. Raises ExecutionError."""
        parts = self.graph.microbatches * self.graph.lanes
        size = self.inputs.tokens.shape[0] // parts
        out = []
        for part in range(parts):
            self.offset = part * size
            tokens = self.dealt(self.inputs.tokens[self.offset : self.offset + size], ("batch", "seq"))
            values: list[object] = [tokens] * len(self.ranks)
            layers = self.graph.layers
            for stage in self.graph.stages:
                if stage.index:
                    self.hand_over(stage.index, values)
                for segment, layer in islice(layers, sum(n for _, n in stage.layers)):
                    values = self.layer(segment, layer, values)
            out.append(self.gathered(values))
        return out

    def hand_over(self, stage: int, values: list[object]) -> None:
        """Every rank sends its shard to its equal on the next stage, as the edge between them says."""
        edge = next((e for e in self.graph.sends if (e.source, e.target) == (stage - 1, stage)), None)
        if edge is None:
            raise ExecutionError(f"stage {stage}", f"stage {stage - 1} sends it nothing")
        segment = self.graph.segment(self.graph.stages[stage].layers[0][0])
        shape = self.whole(segment, edge.dims)
        for rank, value in zip(self.ranks, values, strict=True):
            block = tuple(p.stop - p.start for p in self.parts(shape, edge.sharding.dims, rank))
            if not isinstance(value, np.ndarray) or value.shape != block:
                raise ExecutionError(f"send {stage - 1} -> {stage}", f"the edge carries blocks of {block}")
        self.sent.setdefault((edge.source, edge.target), []).extend(_array(value).size for value in values)

    def gathered(self, values: list[object]) -> k.Ints | k.Floats:
        """The last value lies split over the batch only: put its pieces together, the batch first."""
        segment = self.graph.segments[-1]
        layout, dims = segment.sharding_of(segment.output), segment.dims_of(segment.output)
        axis = dims.index("batch")
        axes = layout.dims[axis] if layout is not None else ()
        pieces: dict[int, k.Ints | k.Floats] = {}
        for rank, value in zip(self.ranks, values, strict=True):
            chosen = {k.Best: "index", k.Routed: "experts"}.get(type(value))
            result = getattr(value, chosen) if chosen else _array(value)
            if not alike(pieces.setdefault(self.block(axes, rank), result), result):
                raise ExecutionError(f"{segment.name}/{segment.output}", "replicas of the result differ")
        whole = np.concatenate([pieces[i] for i in range(len(pieces))], axis=axis)
        return np.moveaxis(self.dealt(whole, segment.dims_of(segment.output), back=True), axis, 0)

    def layer(self, segment: Segment, layer: int, entry: list[object]) -> list[object]:
        env: dict[str, list[object]] = {segment.input: entry}
        if segment.input == "tokens" and segment.entry is not None:
            env["tokens"] = [self.shard(v, segment.entry.dims, r) for v, r in zip(entry, self.ranks, strict=True)]  # type: ignore[arg-type]
        for op in segment.ops:
            where = f"{segment.name}[{layer}]/{op.name}"
            try:
                values = self.step(segment, layer, op, env)
                check(self, segment, op, values)
            except CheckpointError:
                raise
            except Wrong as error:
                raise ExecutionError(where, str(error)) from error
            except Exception as error:  # whatever it is, it says nothing about the lowering
                raise ExecutionError(where, str(error) or type(error).__name__, wrong=False) from error
            if not all(map(k.finite, values)):
                raise ExecutionError(where, "the result is not finite")
            env[op.name] = values
            state = state_of(segment, op)
            after = [self.states[layer, op.name, *r.values()] for r in self.ranks] if state is not None else []
            if op.kind == "cache" or state is not None:
                held = after if state is not None else values
                self.caches[segment.name, op.name] = [_array(value).shape for value in held]
            if self.watch is not None:
                self.watch(segment, layer, op, values)
                if state is not None:
                    self.watch(segment, layer, state, [*after])
        return env[segment.output]

    def step(self, segment: Segment, layer: int, op: Op, env: Mapping[str, list[object]]) -> list[object]:
        """One op on every rank."""
        if op.is_collective:
            values = collective(self, segment, op, env)
            moved = count(self, segment, op, env[op.inputs[0]], values)
            self.traffic.setdefault((segment.name, op.name), []).append(moved)
            return values
        if op.kind == "slice":
            return slice_value(self, segment, op, env)
        values, work = [], []
        for i, rank in enumerate(self.ranks):
            x = [self.operand(segment, layer, n, env, i) for n in op.inputs]
            values.append(self.compute(segment, layer, op, rank, x))
            work.append(executed(segment, op, x, values[-1], self.pairs))
        self.work.setdefault((segment.name, op.name), []).append(work)
        return values

    def operand(self, segment: Segment, layer: int, name: str, env: Mapping[str, list[object]], index: int) -> object:
        return self.weight(segment, layer, name, self.ranks[index]) if name.startswith("@") else env[name][index]

    def weight(self, segment: Segment, layer: int, name: str, rank: Coordinates) -> object:
        """A shard of a weight; of routed experts a mapping physical expert -> its matrix."""
        weight = segment.weight[name]
        if (layer, name) not in self.wholes:
            self.wholes[layer, name] = self.inputs.weights(segment, layer, weight)
        whole = self.wholes[layer, name]
        layout = weight.sharding.dims if weight.sharding is not None else ((),) * whole.ndim
        if weight.scope != "experts":
            return self.shard(whole, layout, rank)
        rows = self.rows(segment, name)
        at = weight.dims.index(rows.expert)
        inner = layout[:at] + layout[at + 1 :]
        held = range(len(rows.slots))[self.part(len(rows.slots), layout[at], rank)]
        return {p: self.shard(np.take(whole, rows.slots[p], axis=at), inner, rank) for p in held}

    def origin(self, op: Op, rank: Coordinates, segment: Segment) -> tuple[int, int]:
        """Global batch and seq index of a rank's first token."""
        seq = int(segment.sizes["seq"])
        batch = int(segment.sizes["batch"])
        return self.offset + self.part(batch, op.loop("batch"), rank).start, self.part(seq, op.loop("seq"), rank).start

    def positions(self, segment: Segment, axes: Axes, rank: Coordinates, dim: str) -> k.Ints:
        """Positions in the sequence of a rank's tokens. New tokens stand at the end of the context."""
        size = int(segment.sizes[dim])
        before = int(segment.sizes["context"]) - size if dim == "seq" else 0
        return order(size, self.mesh)[self.part(size, axes, rank)] + before

    # -- ops -------------------------------------------------------------------------------------

    def compute(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        dims = [segment.dims_of(n) for n in op.inputs]
        if any(isinstance(value, k.Ragged) for value in x) and op.kind != "combine":
            return self.ragged(segment, op, dims, x)
        if op.kind == "contract":
            return k.contract(_array(x[0]), dims[0], _array(x[1]), dims[1], op.dims)
        if op.kind in ("multiply", "add"):
            a, b = (k.aligned(_array(v), d, op.dims) for v, d in zip(x, dims, strict=True))
            return a * b if op.kind == "multiply" else a + b
        if op.kind in NORMS:
            return self.norm(segment, op, x)
        if op.kind in ("row_sum", "row_square_sum"):
            return k.row_sum(op.kind, _array(x[0]))
        if op.kind in ELEMENTWISE:
            return k.elementwise(op.kind, _array(x[0]), op.attrs)
        if op.kind in ("rope", "temper"):
            axis = op.dims.index("seq")
            positions = self.positions(segment, op.loop("seq"), rank, "seq")
            if op.kind == "rope":
                return Rotary(**values(op.attrs)).rotate(_array(x[0]), positions, axis)
            temper = op.of(TemperAttrs)
            return k.temper(_array(x[0]), positions, axis, temper.floor, temper.scale)
        kernel = getattr(self, f"op_{op.kind}", None)
        if kernel is None:
            raise CannotRun(f"no kernel for `{op.kind}`")
        return kernel(segment, layer, op, rank, x)

    def norm(self, segment: Segment, op: Op, x: list[object]) -> object:
        """By the row sums that a split width was given, else by those of the row itself."""
        gain = next((_array(v) for n, v in zip(op.inputs, x, strict=True) if n.startswith("@")), None)
        given = [_array(v) for n, v in zip(op.inputs[1:], x[1:], strict=True) if not n.startswith("@")]
        sums = given or [k.row_sum(kind, _array(x[0])) for kind in ("row_square_sum", "row_sum")]
        width = int(segment.size(op.dims[-1]))
        return k.norm(op.kind, _array(x[0]), gain, sums, width, op.of(NormAttrs).eps)

    def ragged(self, segment: Segment, op: Op, dims: list[tuple[str, ...]], x: list[object]) -> k.Ragged:
        """An op on routed rows, expert by expert. Of two operands either may be the rows, or both."""
        rows = self.rows(segment, op.name)
        inner = [
            (ROW, *rows.inner(d)) if isinstance(v, k.Ragged) else rows.inner(d) for v, d in zip(x, dims, strict=True)
        ]
        first = next(v for v in x if isinstance(v, k.Ragged))

        def part(value: object, p: int) -> k.Floats:
            """Of one expert; what is no row and no weight of experts is the same for all of them."""
            if isinstance(value, k.Ragged):
                return value.rows[p][1]
            return np.asarray(value[p]) if isinstance(value, dict) else _array(value)

        out = (ROW, *rows.inner(op.dims))
        if op.kind == "contract":
            return first.map(lambda p, _: k.contract(part(x[0], p), inner[0], part(x[1], p), inner[1], out))
        if op.kind in ("multiply", "add"):
            join = np.multiply if op.kind == "multiply" else np.add

            def joined(p: int, _: k.Floats) -> k.Floats:
                a, b = (k.aligned(part(v, p), d, out) for v, d in zip(x, inner, strict=True))
                return np.asarray(join(a, b))

            return first.map(joined)
        if op.kind in NORMS:
            return first.map(lambda p, data: self.norm(segment, op, [data, *(part(v, p) for v in x[1:])]))
        if op.kind in ("row_sum", "row_square_sum"):
            return first.map(lambda _, data: k.row_sum(op.kind, data))
        if op.kind not in ELEMENTWISE:
            raise CannotRun(f"no kernel for `{op.kind}` of routed rows")
        return first.map(lambda _, data: k.elementwise(op.kind, data, op.attrs))

    def op_lookup(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        ids, table = np.asarray(x[0]), _array(x[1])
        vocab = segment.dims_of(op.inputs[1])[0]
        first = self.part(int(segment.sizes[vocab]), op.loop(vocab), rank).start
        inside = (ids >= first) & (ids < first + len(table))
        return np.where(inside[..., None], table[np.where(inside, ids - first, 0)], 0.0)

    def op_cache(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        """A whole prompt: what was computed. Else what was there, with the new tokens at its end."""
        new, tokens = _array(x[0]), int(segment.sizes["seq"])
        context, axis = int(segment.sizes["context"]), op.dims.index("context")
        if tokens == context:
            return new
        layout = op.sharding.dims if op.sharding is not None else ((),) * len(op.dims)
        mine = self.remembered(segment, layer, op, layout, rank).copy()
        if self.part(context, layout[axis], rank).stop == context:
            tail = [slice(None)] * mine.ndim
            tail[axis] = slice(-tokens, None)
            mine[tuple(tail)] = new
        return mine

    def remembered(self, segment: Segment, layer: int, op: Op, layout: tuple[Axes, ...], rank: Coordinates) -> k.Floats:
        """A rank's part of the cache or state that a decode step finds, with room for the new tokens."""
        if self.inputs.history is None:
            sequences = self.inputs.tokens.shape[0]
            shape = tuple(sequences if d == "batch" else int(segment.sizes[d]) for d in op.dims)
            history = random_tensor(f"cache.{segment.name}.{layer}.{op.name}", shape)
        else:
            history = self.inputs.history[layer, op.name]
            if "context" in op.dims:
                axis = op.dims.index("context")
                history = np.concatenate(
                    [history, np.zeros_like(np.take(history, np.arange(int(segment.sizes["seq"])), axis))], axis
                )
        part = range(self.offset, self.offset + int(segment.sizes["batch"]))
        return self.shard(np.take(history, part, axis=op.dims.index("batch")), layout, rank)

    def state(self, segment: Segment, layer: int, op: Op, rank: Coordinates) -> k.Floats:
        """What a sequential op remembers before the pass: nothing at the start of a prompt."""
        state = state_of(segment, op)
        assert state is not None and state.sharding is not None
        if segment.sizes["seq"] < segment.sizes["context"]:
            return self.remembered(segment, layer, state, state.sharding.dims, rank)
        return self.shard(np.zeros(self.whole(segment, state.dims)), state.sharding.dims, rank)

    def op_conv(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        channels = (*op.dims[2:], segment.dims_of(op.inputs[1])[-1])
        taps = k.aligned(_array(x[1]), segment.dims_of(op.inputs[1]), channels)
        line = self.dealt(_array(x[0]), segment.dims_of(op.inputs[0]), back=True)
        out, state = k.conv(line, taps, self.state(segment, layer, op, rank))
        self.states[layer, op.name, *rank.values()] = state
        return self.dealt(out, op.dims)

    def op_delta(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        rows = op.dims[:-1]
        width = [(*rows, segment.dims_of(n)[-1]) for n in op.inputs[:3]] + [rows, rows]
        named = zip(x, op.inputs, width, strict=True)
        turned = ((self.dealt(_array(a), segment.dims_of(n), back=True), n, out) for a, n, out in named)
        q, key, v, decay, rate = (k.aligned(a, segment.dims_of(n), out) for a, n, out in turned)
        out, state = k.delta(q, key, v, decay, rate, self.state(segment, layer, op, rank))
        self.states[layer, op.name, *rank.values()] = state
        return self.dealt(out, op.dims)

    def op_select(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        q, key, weights = map(_array, x)
        queries, context = (self.positions(segment, op.loop(d), rank, d) for d in ("seq", "context"))
        turn = np.argsort(context)  # ties go to the first in the sequence, wherever it lies
        seen = k.visible(queries, context[turn], True, np.inf, np.inf)
        self.pairs = float(seen.sum() * q.shape[0])
        return context[turn][k.select(q, key[:, turn], weights, seen, int(segment.sizes[op.dims[-1]]))]

    def op_attend(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        attrs = op.of(AttendAttrs)
        pairs = attrs.pairs
        named = [(_array(v), segment.dims_of(n)) for v, n in zip(x, op.inputs, strict=True)]
        queries, split = named[:pairs], op.loop("context")
        context = self.positions(segment, split, rank, "context")
        seen = k.visible(
            self.positions(segment, op.loop("seq"), rank, "seq"),
            context,
            attrs.causal,
            attrs.window or np.inf,
            attrs.chunk or np.inf,
        )
        width = attrs.width or float(sum(q.shape[-1] for q, _ in queries))
        factor = attrs.scale / np.sqrt(width)
        sink, selected = attend_extras(op)
        by_name = dict(zip(op.inputs, named, strict=True))
        sinks = None
        if sink is not None and not self.block(split, rank):  # only one piece of a split context counts them
            sinks = k.aligned(*by_name[sink], op.dims[:-1])
        dims: tuple[str, ...] = ("seq", "context")
        if selected is not None:
            seen = seen & (by_name[selected][0][..., None] == context).any(axis=-2)
            dims = ("batch", *dims)
        keys, value = named[pairs : 2 * pairs], named[2 * pairs]
        self.pairs = float(seen.sum()) * (1 if selected is not None else self.sequences(segment, op, rank))
        found = k.attend(queries, keys, value, op.dims, seen, dims, factor, sinks)
        return found if split else k.normalised(found)

    def sequences(self, segment: Segment, op: Op, rank: Coordinates) -> int:
        """How many a rank has."""
        part = self.part(int(segment.sizes["batch"]), op.loop("batch"), rank)
        return int(part.stop - part.start)

    def op_route(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        router = k.Router(**values(op.of(RouteAttrs)))
        scores = _array(x[0])
        if self.inputs.balanced:
            batch, _ = self.origin(op, rank, segment)
            position = (batch + np.arange(scores.shape[0])[:, None]) * int(segment.sizes["seq"])
            position = (position + self.positions(segment, op.loop("seq"), rank, "seq"))[..., None] * router.top_k
            return router.forced(scores, (position + np.arange(router.top_k)) % scores.shape[-1])
        return router(scores, _array(x[1]) if len(x) > 1 else None)

    def op_dispatch(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        """Tokens for every physical expert that this rank may reach: all but those that a rank with the same
        tokens selects for itself."""
        routed = x[1]
        assert isinstance(routed, k.Routed)
        rows = self.rows(segment, op.name)
        attrs = op.of(DispatchAttrs)
        stay = tuple(a for a in op.loop(rows.expert) if a not in attrs.exchange)
        held = set(range(len(rows.slots))[self.part(len(rows.slots), stay, rank)])
        return k.dispatch(_array(x[0]), routed, self.origin(op, rank, segment), rows.copies, held, attrs.weighted)

    def op_combine(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        ragged, routed = x
        assert isinstance(ragged, k.Ragged) and isinstance(routed, k.Routed)
        self.at_home(segment, op, rank, ragged)
        return k.combine(ragged, routed, self.origin(op, rank, segment), op.of(CombineAttrs).weighted)

    def at_home(self, segment: Segment, op: Op, rank: Coordinates, ragged: k.Ragged) -> None:
        """What comes back to a rank are rows of the tokens that it owns."""
        batch, seq = int(segment.sizes["batch"]), int(segment.sizes["seq"])
        owned = self.part(batch, op.loop("batch"), rank), self.part(seq, op.loop("seq"), rank)
        for keys, _ in ragged.rows.values():
            for column, part, first in zip(keys.T, owned, (self.offset, 0), strict=False):
                if ((column < part.start + first) | (column >= part.stop + first)).any():
                    raise Wrong("a row came back to a rank that does not own its token")

    def op_last(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        """The value at the last position; nothing where another rank holds it."""
        axis = segment.dims_of(op.inputs[0]).index("seq")
        positions = self.positions(segment, op.loop("seq"), rank, "seq")
        found = np.take(_array(x[0]), int(positions.argmax()), axis)
        return found if positions.max() == segment.sizes["context"] - 1 else np.zeros_like(found)

    def op_argmax(self, segment: Segment, layer: int, op: Op, rank: Coordinates, x: list[object]) -> object:
        dim = segment.dims_of(op.inputs[0])[-1]
        first = self.part(int(segment.sizes[dim]), op.loop(dim), rank).start
        scores = _array(x[0])
        return k.Best(scores.max(axis=-1), scores.argmax(axis=-1) + first)


def _array(value: object) -> k.Floats:
    assert isinstance(value, np.ndarray)
    return value


def alike(a: k.Ints | k.Floats, b: k.Ints | k.Floats) -> bool:
    """The same choices, or the same numbers up to rounding."""
    if a.shape != b.shape or a.dtype.kind in "iu":
        return np.array_equal(a, b)
    return bool(np.abs(a - b).max(initial=0.0) <= ROUNDING * np.abs(a).max(initial=0.0))
