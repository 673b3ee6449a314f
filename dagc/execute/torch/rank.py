"""One rank of a placed graph: its ops on torch tensors, stage by stage and micro-batch by micro-batch.

The layout, the weights and the inputs are those of the numeric proof (`dagc.execute.execute`); only the arithmetic and the
communication are torch's. Lanes of a two-batch overlap run one after the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...ir.graph import Op, Segment
from ...ir.ops.attributes import (
    AttendAttrs,
    CombineAttrs,
    DispatchAttrs,
    NormAttrs,
    RouteAttrs,
    TemperAttrs,
    values,
)
from ...ir.ops.ops import attend_extras
from ...ir.ops.sequence import order
from ...ir.ops.states import SEQUENTIAL
from ...ir.routed_dims import rows_of
from ..execute import ELEMENTWISE, NORMS, ROW, Machine
from ..numpy.ops import Router as RouterRule
from ..numpy.ops import visible
from ..rotary import Rotary
from . import ops as k
from .comm import Communicator, Ranks

Key = tuple[str, str]
"""(segment, op); ("", "send") and ("", "recv") between stages."""


@dataclass
class Rank:
    """`times`: seconds of each op in the last run; `watched`: values of one op, by first sequence; `chosen`: tokens, where
    the model's end is here, in the same way."""

    layout: Machine
    ranks: Ranks
    comm: Communicator
    device: Any
    dtype: Any
    watch: str = ""
    times: dict[Key, float] = field(default_factory=dict)
    watched: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    chosen: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    kept: dict[tuple[object, ...], Any] = field(default_factory=dict)

    @property
    def here(self) -> dict[str, int]:
        return self.ranks.coordinates

    # -- running ---------------------------------------------------------------------------------

    @contextmanager
    def timed(self, key: Key) -> Iterator[None]:
        """Between points where the device has nothing left to do."""
        self.wait()
        start = time.perf_counter()
        yield
        self.wait()
        self.times[key] = self.times.get(key, 0.0) + time.perf_counter() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def run(self) -> float:
        """Every part of the batch through this rank's stage; the seconds that it took."""
        self.times.clear()
        graph = self.layout.graph
        parts = graph.microbatches * graph.lanes
        size = self.layout.inputs.tokens.shape[0] // parts
        stage = self.ranks.at[0]
        before = sum(n for s in graph.stages[:stage] for _, n in s.layers)
        sent: list[tuple[Any, Any]] = []
        self.wait()
        dist.barrier()
        start = time.perf_counter()
        for part in range(parts):
            self.layout.offset = part * size
            value = self.received(stage) if stage else self.tokens(size)
            for segment, layer in islice(graph.layers, before, before + sum(n for _, n in graph.stages[stage].layers)):
                value = self.layer(segment, layer, value)
            if stage == len(graph.stages) - 1 and isinstance(value, k.Best):
                self.chosen[self.layout.offset] = value.index.cpu().numpy()
            if stage < len(graph.stages) - 1:
                with self.timed(("", "send")):
                    target = int(self.ranks.number[(stage + 1, *self.ranks.at[1:])])
                    value = value.contiguous()
                    sent.append((dist.isend(value, target), value))
        for work, _ in sent:
            work.wait()
        self.wait()
        return time.perf_counter() - start

    def tokens(self, size: int) -> Any:
        first = self.layout.graph.segments[0]
        whole = self.layout.inputs.tokens[self.layout.offset : self.layout.offset + size]
        whole = self.layout.dealt(whole, first.input_dims)
        dims = first.entry.dims if first.entry is not None else ((),) * whole.ndim
        return torch.as_tensor(self.layout.shard(whole, dims, self.here).copy(), device=self.device)  # type: ignore[arg-type]

    def received(self, stage: int) -> Any:
        graph = self.layout.graph
        edge = next(e for e in graph.sends if e.target == stage)
        segment = graph.segment(graph.stages[stage].layers[0][0])
        shape = [
            int(segment.sizes[d]) // self.layout.mesh.size(axes)
            for d, axes in zip(edge.dims, edge.sharding.dims, strict=True)
        ]
        value = torch.empty(shape, dtype=self.dtype, device=self.device)
        with self.timed(("", "recv")):
            dist.recv(value, int(self.ranks.number[(stage - 1, *self.ranks.at[1:])]))
        return value

    def layer(self, segment: Segment, layer: int, entry: Any) -> Any:
        env: dict[str, Any] = {segment.input: entry}
        for op in segment.ops:
            x = [self.weight(segment, layer, n) if n.startswith("@") else env[n] for n in op.inputs]
            self.prepare(segment, layer, op)
            with self.timed((segment.name, op.name)):
                env[op.name] = self.step(segment, layer, op, x)
            if op.name == self.watch:
                self.watched[self.layout.offset] = env[op.name].double().cpu().numpy()
        return env[segment.output]

    def step(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        if op.is_collective:
            return self.comm.run(segment, op, x[0], x[1:])
        if op.kind == "slice":
            return self.cut(segment, op, x[0])
        return self.compute(segment, layer, op, x)

    # -- what is made once -------------------------------------------------------------------------

    def once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def real(self, array: Any) -> Any:
        return torch.as_tensor(np.ascontiguousarray(array), device=self.device, dtype=self.dtype)

    def weight(self, segment: Segment, layer: int, name: str) -> Any:
        """A shard; of routed experts a mapping physical expert -> its matrix."""

        def make() -> Any:
            found = self.layout.weight(segment, layer, name, self.here)
            self.layout.wholes.clear()
            return {p: self.real(w) for p, w in found.items()} if isinstance(found, dict) else self.real(found)

        return self.once(("weight", layer, name), make)

    def prepare(self, segment: Segment, layer: int, op: Op) -> None:
        """What a decode step finds in the cache is no part of its time."""
        if op.kind == "cache" and segment.sizes["seq"] != segment.sizes["context"]:
            self.found(segment, layer, op)
        elif op.kind in SEQUENTIAL:
            self.state(segment, layer, op)

    def state(self, segment: Segment, layer: int, op: Op) -> Any:
        """What a sequential op remembers before the pass, in its own precision."""
        model = op.kind == "conv"  # the last inputs; the matrices of the delta rule are fp32 at least
        dtype = self.dtype if model else torch.promote_types(self.dtype, torch.float32)
        key = ("state", layer, op.name, self.layout.offset)
        return self.once(key, lambda: self.real(self.layout.state(segment, layer, op, self.here)).to(dtype))

    def found(self, segment: Segment, layer: int, op: Op) -> Any:
        """The rank's part of the cache, without the new tokens."""

        def make() -> Any:
            assert op.sharding is not None
            split = tuple(int(segment.sizes[d]) for d in op.dims)
            sizes = [n // self.layout.mesh.size(axes) for n, axes in zip(split, op.sharding.dims, strict=True)]
            sizes[op.dims.index("context")] = int(segment.sizes["seq"])
            return self.real(self.layout.op_cache(segment, layer, op, self.here, [np.zeros(sizes)]))

        return self.once(("cache", layer, op.name, self.layout.offset), make)

    def whole_numbers(self, segment: Segment, op: Op, dim: str) -> Any:
        return self.layout.positions(segment, op.loop(dim), self.here, dim)

    # -- ops -------------------------------------------------------------------------------------

    def compute(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        dims = [segment.dims_of(n) for n in op.inputs]
        if op.kind != "combine" and any(isinstance(v, k.Ragged) for v in x):
            return self.ragged(segment, op, dims, x)
        if op.kind == "contract":
            return k.contract(x[0], dims[0], x[1], dims[1], op.dims)
        if op.kind in ("multiply", "add"):
            a, b = (k.aligned(v, d, op.dims) for v, d in zip(x, dims, strict=True))
            return a * b if op.kind == "multiply" else a + b
        if op.kind in NORMS:
            return self.norm(segment, op, x)
        if op.kind in ("row_sum", "row_square_sum"):
            return k.row_sum(op.kind, x[0])
        if op.kind in ELEMENTWISE:
            return k.elementwise(op.kind, x[0], op.attrs)
        return getattr(self, f"op_{op.kind}")(segment, layer, op, x)

    def norm(self, segment: Segment, op: Op, x: list[Any]) -> Any:
        """By the row sums that a split width was given, else by those of the row itself."""
        gain = next((v for n, v in zip(op.inputs, x, strict=True) if n.startswith("@")), None)
        given = [v for n, v in zip(op.inputs[1:], x[1:], strict=True) if not n.startswith("@")]
        sums = given or [k.row_sum(kind, x[0]) for kind in ("row_square_sum", "row_sum")]
        return k.norm(op.kind, x[0], gain, sums, int(segment.size(op.dims[-1])), op.of(NormAttrs).eps)

    def ragged(self, segment: Segment, op: Op, dims: list[tuple[str, ...]], x: list[Any]) -> k.Ragged:
        """An op on routed rows: all at once, or expert by expert where weights of experts take part."""
        own = rows_of(op.dims)
        inner = [
            (*((ROW,) if isinstance(v, k.Ragged) else ()), *(n for n in d if own is None or n not in own))
            for v, d in zip(x, dims, strict=True)
        ]
        out = (ROW, *op.dims[2:])
        first = next(v for v in x if isinstance(v, k.Ragged))
        if not any(isinstance(v, Mapping) for v in x):
            whole = [v.data if isinstance(v, k.Ragged) else v for v in x]
            return first.with_data(self.of_rows(segment, op, inner, whole, out))
        parts = [torch.split(v.data, v.counts()) if isinstance(v, k.Ragged) else None for v in x]
        done = []
        for i, p in enumerate(first.held):
            values = [
                part[i] if part is not None else v[p] if isinstance(v, Mapping) else v
                for v, part in zip(x, parts, strict=True)
            ]
            done.append(self.of_rows(segment, op, inner, values, out))
        return first.with_data(torch.cat(done))

    def of_rows(self, segment: Segment, op: Op, dims: list[tuple[str, ...]], x: list[Any], out: tuple[str, ...]) -> Any:
        if op.kind == "contract":
            return k.contract(x[0], dims[0], x[1], dims[1], out)
        if op.kind in ("multiply", "add"):
            a, b = (k.aligned(v, d, out) for v, d in zip(x, dims, strict=True))
            return a * b if op.kind == "multiply" else a + b
        if op.kind in NORMS:
            return self.norm(segment, op, x)
        if op.kind in ("row_sum", "row_square_sum"):
            return k.row_sum(op.kind, x[0])
        return k.elementwise(op.kind, x[0], op.attrs)

    def cut(self, segment: Segment, op: Op, value: Any) -> Any:
        if isinstance(value, k.Ragged):
            return self.comm.kept(segment, op, value)
        have, got = segment.sharding_of(op.inputs[0]), op.sharding
        assert have is not None and got is not None
        whole = value.experts if isinstance(value, k.Routed) else value.index if isinstance(value, k.Best) else value
        parts = tuple(
            self.layout.part(n, g[len(h) :], self.here)
            for n, h, g in zip(whole.shape, have.dims, got.dims, strict=True)
        )
        if isinstance(value, k.Best):
            return k.Best(value.value[parts], value.index[parts])
        return k.Routed(whole[parts], value.weights[parts]) if isinstance(value, k.Routed) else whole[parts]

    def op_lookup(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        ids, table = x
        vocab = segment.dims_of(op.inputs[1])[0]
        first = self.layout.part(int(segment.sizes[vocab]), op.loop(vocab), self.here).start
        inside = (ids >= first) & (ids < first + len(table))
        return table[torch.where(inside, ids - first, 0)] * inside[..., None]

    def op_rope(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        rotary = Rotary(**values(op.attrs))
        width = int(x[0].shape[-1] * rotary.fraction) // 2 * 2

        def make() -> Any:
            angle = self.whole_numbers(segment, op, "seq")[:, None] * rotary.frequencies(width)
            shape = [1] * x[0].ndim
            shape[op.dims.index("seq")], shape[-1] = angle.shape
            return [self.real(f(angle).reshape(shape) * rotary.magnitude) for f in (np.cos, np.sin)]

        cos, sin = self.once(("rope", segment.name, op.name), make)
        return k.turned(x[0], cos, sin, width, rotary.interleaved)

    def op_temper(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        positions = self.whole_numbers(segment, op, "seq")
        shape = [1] * x[0].ndim
        shape[op.dims.index("seq")] = len(positions)
        temper = op.of(TemperAttrs)
        floor, scale = temper.floor, temper.scale
        return x[0] * self.real((np.log1p(np.floor((positions + 1) / floor)) * scale + 1.0).reshape(shape))

    def op_cache(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        """A whole prompt: what was computed. Else what was there, with the new tokens at its end."""
        tokens, context = int(segment.sizes["seq"]), int(segment.sizes["context"])
        if tokens == context:
            return x[0]
        mine = self.found(segment, layer, op)
        axis = op.dims.index("context")
        assert op.sharding is not None
        if self.layout.part(context, op.sharding.dims[axis], self.here).stop == context:
            mine.narrow(axis, mine.shape[axis] - tokens, tokens).copy_(x[0])
        return mine

    def op_attend(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        attrs = op.of(AttendAttrs)
        pairs = attrs.pairs
        named = [(v, segment.dims_of(n)) for v, n in zip(x, op.inputs, strict=True)]
        split = op.loop("context")

        def make() -> Any:
            options = attrs.causal, attrs.window or math.inf, attrs.chunk or math.inf
            own, context = (self.whole_numbers(segment, op, dim) for dim in ("seq", "context"))
            return torch.as_tensor(visible(own, context, *options), device=self.device)

        seen = self.once(("seen", segment.name, op.name), make)
        seen_dims: tuple[str, ...] = ("seq", "context")
        width = attrs.width or float(sum(v.shape[-1] for v, _ in named[:pairs]))
        factor = attrs.scale / math.sqrt(width)
        sinks = None
        sink, selected = attend_extras(op)
        if selected is not None:
            context = torch.as_tensor(self.whole_numbers(segment, op, "context"), device=self.device)
            seen = seen & (named[op.inputs.index(selected)][0][..., None] == context).any(dim=-2)
            seen_dims = ("batch", *seen_dims)
        if sink is not None and not self.layout.block(split, self.here):
            sinks = k.aligned(*named[op.inputs.index(sink)], op.dims[:-1])
        keys, value = named[pairs : 2 * pairs], named[2 * pairs]
        found = k.attend(named[:pairs], keys, value, op.dims, (seen, seen_dims), factor, sinks)
        return found if split else k.normalised(found)

    def op_select(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        def make() -> Any:
            own, context = (self.whole_numbers(segment, op, dim) for dim in ("seq", "context"))
            turn = np.argsort(context)  # ties go to the first in the sequence, wherever it lies
            parts = turn, context[turn], visible(own, context[turn], True, math.inf, math.inf)
            return tuple(torch.as_tensor(part, device=self.device) for part in parts)

        turn, context, seen = self.once(("seen", segment.name, op.name), make)
        return context[k.select(x[0], x[1][:, turn], x[2], seen, int(segment.sizes[op.dims[-1]]))]

    def op_conv(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        dims = segment.dims_of(op.inputs[1])
        taps = k.aligned(x[1], dims, (*op.dims[2:], dims[-1]))
        return self.dealt(segment, k.conv(self.in_turn(segment, x[0]), taps, self.state(segment, layer, op)))

    def op_delta(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        rows = op.dims[:-1]
        wanted = [(*rows, segment.dims_of(n)[-1]) for n in op.inputs[:3]] + [rows, rows]
        named = zip(x, op.inputs, wanted, strict=True)
        q, key, v, decay, rate = (self.in_turn(segment, k.aligned(a, segment.dims_of(n), dims)) for a, n, dims in named)
        return self.dealt(segment, k.delta(q, key, v, decay, rate, self.state(segment, layer, op)))

    def in_turn(self, segment: Segment, value: Any) -> Any:
        """The tokens [batch, seq, ..] of a whole sequence, first to last."""
        return self.reordered(value, np.argsort(order(int(segment.sizes["seq"]), self.layout.mesh)))

    def dealt(self, segment: Segment, value: Any) -> Any:
        """Tokens that are first to last, in the order in which the mesh holds them."""
        return self.reordered(value, order(int(segment.sizes["seq"]), self.layout.mesh))

    def reordered(self, value: Any, tokens: Any) -> Any:
        return value[:, torch.as_tensor(tokens, device=self.device)] if self.layout.mesh.zigzag else value

    def op_route(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        rule = RouterRule(**values(op.of(RouteAttrs)))
        return k.Router(rule)(x[0], x[1] if len(x) > 1 else None)

    def op_dispatch(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        rows = self.layout.rows(segment, op.name)
        attrs = op.of(DispatchAttrs)
        stay = tuple(a for a in op.loop(rows.expert) if a not in attrs.exchange)
        held = range(len(rows.slots))[self.layout.part(len(rows.slots), stay, self.here)]
        origin = self.layout.origin(op, self.here, segment)
        return k.dispatch(x[0], x[1], origin, rows.copies, held, attrs.weighted)

    def op_combine(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        return k.combine(x[0], x[1], self.layout.origin(op, self.here, segment), op.of(CombineAttrs).weighted)

    def op_last(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        positions = self.whole_numbers(segment, op, "seq")
        last = x[0].select(segment.dims_of(op.inputs[0]).index("seq"), int(positions.argmax()))
        return last if positions.max() == segment.sizes["context"] - 1 else torch.zeros_like(last)

    def op_argmax(self, segment: Segment, layer: int, op: Op, x: list[Any]) -> Any:
        dim = segment.dims_of(op.inputs[0])[-1]
        first = self.layout.part(int(segment.sizes[dim]), op.loop(dim), self.here).start
        found = x[0].max(dim=-1)
        return k.Best(found.values, found.indices + first)
