"""What each kind of op computes in torch, on the tensors of one rank: one line per kind in `TORCH`. Collectives have a table
of their own (`torch/comm.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...ir.ops.attention_operands import attend_extras, entry_operands
from ...ir.ops.attributes.attention import AttendAttrs, PoolAttrs, SelectAttrs, TemperAttrs
from ...ir.ops.attributes.attrs import values
from ...ir.ops.attributes.elementwise import ClampAttrs, DropoutAttrs, PartAttrs, ScaleAttrs, ShiftAttrs, SinkhornAttrs
from ...ir.ops.attributes.experts import CombineAttrs, DispatchAttrs, RouteAttrs
from ...ir.ops.attributes.recurrent import DeltaAttrs
from ...ir.ops.sequence import order
from ...ir.routed_dims import chosen_from, thins
from ..dispatcher import Backend, OpCall, Rule
from ..dropout_mask import dropped_where
from ..numpy.ops import visible
from ..numpy.rotary import Rotary
from ..numpy.router import Router as RouterRule
from ..rule_makers import (
    along_context,
    contracted,
    delta_layouts,
    each,
    fetched,
    new_rows,
    normed,
    packed,
    reached,
    rejoined,
    stayed,
    tokens_of,
    unpacked,
)
from ..values import Ragged
from . import gradients
from . import ops as k
from .ops import Tensor
from .resident import Resident
from .router import Router, capped
from .row_moves import kept_rows

Operands = Sequence[Any]


# -- ops that do not ask which token a row is of ----------------------------------------------------


def _aligned(join: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    return lambda call, x: join(*(k.aligned(v, d, call.out) for v, d in zip(x, call.dims, strict=True)))


_EACH_ROW: Mapping[str, Rule] = {
    "contract": contracted(k.contract),
    "multiply": _aligned(torch.mul),
    "add": _aligned(torch.add),
    "rms_norm": normed(k.rms_norm, (k.row_square_sum,)),
    "layer_norm": normed(k.layer_norm, (k.row_square_sum, k.row_sum)),
    "row_sum": each(k.row_sum),
    "row_square_sum": each(k.row_square_sum),
    "scale": lambda call, x: x[0] * call.op.of(ScaleAttrs).factor,
    "shift": lambda call, x: x[0] + call.op.of(ShiftAttrs).by,
    "clamp": lambda call, x: torch.clamp(x[0], call.op.of(ClampAttrs).low, call.op.of(ClampAttrs).high),
    "rsqrt": each(torch.rsqrt),
    "quantise": fetched(torch.stack),  # one dtype for a run: rounding is no part of what is compared
    "silu": each(torch.nn.functional.silu),
    "gelu": each(torch.nn.functional.gelu),
    "gelu_tanh": each(lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    "relu": each(torch.relu),
    "sigmoid": each(torch.sigmoid),
    "tanh": each(torch.tanh),
    "softplus": each(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "exp": each(torch.exp),
}
BY_ROW: Mapping[str, Rule] = {**_EACH_ROW, **gradients.through(_EACH_ROW, gradients.EACH_ROW), **gradients.ROWS}
"""Rules that hold for the rows of an expert as they do for tokens (`OpKind.on_rows`)."""


# -- ops that do ------------------------------------------------------------------------------------


def _lookup(call: OpCall, x: Operands) -> Tensor:
    ids, table = x
    first = call.part(call.dims[1][0]).start
    inside = (ids >= first) & (ids < first + len(table))
    return table[torch.where(inside, ids - first, 0)] * inside[..., None]


def _rope(call: OpCall, x: Operands) -> Tensor:
    rotary, resident = Rotary.of(call.op.attrs), _resident(call)
    width = rotary.width(x[0].shape[-1])

    def make() -> list[Tensor]:
        tokens = tokens_of(call.out)
        angle = call.positions(tokens)[:, None] * rotary.frequencies(width)
        shape = [1] * x[0].ndim
        shape[call.out.index(tokens)], shape[-1] = angle.shape
        return [resident.real(f(angle).reshape(shape) * rotary.magnitude) for f in (np.cos, np.sin)]

    if len(x) > 1:  # of numbers that each layer has for itself
        tokens = tokens_of(call.out)
        angle = resident.real(call.positions(tokens))[:, None] * resident.real(rotary.frequencies(width)) * x[1]
        shape = [1] * x[0].ndim
        shape[call.out.index(tokens)], shape[-1] = angle.shape
        cos, sin = (f(angle).reshape(shape) * rotary.magnitude for f in (torch.cos, torch.sin))
    else:
        cos, sin = resident.once(("rope", call.segment.name, call.op.name), make)
    return k.turned(x[0], cos, -sin if rotary.inverse else sin, *rotary.halves(x[0].shape[-1]))


def _temper(call: OpCall, x: Operands) -> Tensor:
    positions = call.positions("seq")
    shape = [1] * x[0].ndim
    shape[call.out.index("seq")] = len(positions)
    attrs = call.op.of(TemperAttrs)
    steps = np.log1p(np.floor((positions + attrs.first) / attrs.floor))
    return x[0] * _resident(call).real((steps * attrs.scale + 1.0).reshape(shape))


def _cache(call: OpCall, x: Operands) -> Tensor:
    """A whole prompt: what was computed. Else what was there, with the new tokens at its end."""
    if call.whole_prompt:
        return x[0]
    mine = _resident(call).cache(call.segment, call.layer, call.op)
    if call.shards.takes_new_tokens(call.segment, call.op, call.rank):
        axis, tokens = call.out.index(along_context(call.out)), new_rows(call)
        mine.narrow(axis, mine.shape[axis] - tokens, tokens).copy_(x[0])
    return mine


def _attend(call: OpCall, x: Operands) -> Any:
    """Of a piece of the context the output as it is, and the statistics of its rows."""
    op, attrs, resident = call.op, call.op.of(AttendAttrs), _resident(call)
    named, pairs, split = list(zip(x, call.dims, strict=True)), attrs.pairs, op.loop("context")

    def make() -> Tensor:
        reach = attrs.window or math.inf, attrs.chunk or math.inf
        seen = visible(call.positions("seq"), call.positions("context"), attrs.causal, *reach) & call.related
        return resident.exact(seen)

    seen = resident.once(("seen", call.segment.name, op.name), make)
    seen_dims: tuple[str, ...] = ("seq", "context")
    factor = attrs.scale / math.sqrt(attrs.width or float(sum(v.shape[-1] for v, _ in named[:pairs])))
    sink, selected = attend_extras(op)
    by_name = dict(zip(op.inputs, named, strict=True))
    sinks = None
    if attrs.chosen and selected is not None:
        context = resident.exact(call.positions("context"))
        seen, seen_dims = k.of_chosen(*by_name[selected], seen, context)
    if sink is not None and not call.shards.block(split, call.rank):  # only one piece of a split context counts them
        sinks = k.aligned(*by_name[sink], call.out[:-1])
    sources = [k.Seen(named[pairs : 2 * pairs], named[2 * pairs], seen, seen_dims)]
    if attrs.entries and not call.shards.block(split, call.rank):  # as sinks
        keys, values = (tuple(by_name[name] for name in names) for names in entry_operands(op))
        along = along_context(keys[0][1])
        whole = resident.once(("whole", call.segment.name, op.name), lambda: resident.exact(call.whole_groups(along)))
        whole_dims: tuple[str, ...] = ("seq", along)
        if attrs.chosen_entries and selected is not None:
            places = torch.arange(whole.shape[1], device=whole.device)
            whole, whole_dims = k.of_chosen(*by_name[selected], whole, places, along)
        sources.append(k.Seen(list(keys), values[0], whole, whole_dims, along))
    output, maxima, sums = k.attend(named[:pairs], sources, call.out, factor, sinks, attrs.cap)
    return (output, maxima, sums) if split else output / sums[..., None]


def _select(call: OpCall, x: Operands) -> Tensor:
    resident = _resident(call)

    def make() -> tuple[Tensor, ...]:
        context = call.positions("context")
        turn = np.argsort(context)  # ties go to the first in the sequence, wherever it is
        parts = turn, context[turn], visible(call.positions("seq"), context[turn], True, math.inf, math.inf)
        return tuple(map(resident.exact, parts))

    count = int(call.segment.sizes[call.out[-1]])
    along = along_context(call.dims[1])
    if along != "context":
        whole = resident.once(
            ("whole", call.segment.name, call.op.name), lambda: resident.exact(call.whole_groups(along))
        )
        return k.select(x[0], x[1], x[2], whole, count)
    turn, context, seen = resident.once(("seen", call.segment.name, call.op.name), make)
    if len(x) == 2:
        attrs, at = call.op.of(SelectAttrs), resident.exact(call.positions("seq"))
        return context[k.select_blocks(x[0], x[1][:, turn], at, attrs.together, attrs.local, count)]
    return context[k.select(x[0], x[1][:, turn], x[2], seen, count)]


def _conv(call: OpCall, x: Operands) -> Tensor:
    taps = k.aligned(x[1], call.dims[1], (*call.out[2:], call.dims[1][-1]))
    state = _resident(call).state(call.segment, call.layer, call.op)
    return _dealt(call, k.conv(_in_turn(call, x[0]), taps, state))


def _pool(call: OpCall, x: Operands) -> Tensor:
    before = int(call.segment.size("context") - call.segment.size("seq"))
    state = _resident(call).state(call.segment, call.layer, call.op)
    return k.pool(_in_turn(call, x[0]), _in_turn(call, x[1]), x[2], before, state, call.op.of(PoolAttrs).overlap)


def _delta(call: OpCall, x: Operands) -> Tensor:
    rows = call.out[:-1]
    wanted = delta_layouts(call.dims, rows)
    named = zip(x, call.dims, wanted, strict=True)
    q, key, v, decay, rate = (_in_turn(call, k.aligned(a, d, out)) for a, d, out in named)
    return _dealt(
        call,
        k.delta(
            q,
            key,
            v,
            decay,
            rate,
            _resident(call).state(call.segment, call.layer, call.op),
            call.op.of(DeltaAttrs).correct,
        ),
    )


def _in_turn(call: OpCall, value: Tensor) -> Tensor:
    """The tokens [batch, seq, ..] of a whole sequence, first to last."""
    return _reordered(call, value, np.argsort(order(int(call.segment.sizes["seq"]), call.shards.mesh)))


def _dealt(call: OpCall, value: Tensor) -> Tensor:
    """Tokens that are first to last, in the order of the mesh."""
    return _reordered(call, value, order(int(call.segment.sizes["seq"]), call.shards.mesh))


def _reordered(call: OpCall, value: Tensor, tokens: Any) -> Tensor:
    return value[:, _resident(call).exact(tokens)] if call.shards.mesh.zigzag else value


def _dropout(call: OpCall, x: Operands) -> tuple[Tensor, Tensor]:
    mask = torch.from_numpy(dropped_where(call)).to(x[0].device)
    return torch.where(mask, x[0] / (1.0 - call.op.of(DropoutAttrs).rate), 0.0), mask.to(torch.uint8)


def _route(call: OpCall, x: Operands) -> tuple[Tensor, Tensor]:
    rule = RouterRule(**values(call.op.of(RouteAttrs)))
    empty = x[1].shape[-1] if rule.empty else 0
    x = [torch.cat(both, dim=-1) for both in zip(x[::2], x[1::2], strict=True)] if empty else x
    if rule.by_token:
        chosen = x[2][x[1].long()]
        weights = Router(rule).weights(x[0], chosen)
    else:
        chosen, weights = Router(rule)(x[0], x[1] if len(x) > 1 else None)
    return chosen, capped(rule, chosen, weights, x[0].shape[-1], empty) if rule.capacity else weights


def _empty_weight(call: OpCall, x: Operands) -> Tensor:
    chosen, weights = x
    return torch.where(chosen >= chosen_from(call.segment, call.dims[0][-1]), weights, 0.0).sum(dim=-1)


def _dispatch(call: OpCall, x: Operands) -> Ragged:
    rows = call.shards.rows(call.segment, call.op.name)
    attrs = call.op.of(DispatchAttrs)
    skips = attrs.skips or thins(call.segment, call.op)
    weights, some = x[2] if attrs.weighted else None, x[2] != 0.0 if skips else None
    some = some if some is None else some & (x[1] < len(rows.copies))  # those behind are empty
    chosen = x[1].clamp(max=len(rows.copies) - 1)
    return k.dispatch(x[0], chosen, weights, call.origin, rows.copies, reached(call, attrs.exchange), some)


def _combine(call: OpCall, x: Operands) -> Tensor:
    weights = x[2] if call.op.of(CombineAttrs).weighted else None
    return k.combine(x[0], x[1].shape[:2], weights, call.origin)


def _last(call: OpCall, x: Operands) -> Tensor:
    positions = call.positions("seq")
    last = x[0].select(call.dims[0].index("seq"), int(positions.argmax()))
    return last if positions.max() == call.segment.sizes["context"] - 1 else torch.zeros_like(last)


def _argmax(call: OpCall, x: Operands) -> Any:
    """Of a piece of the vocabulary the largest value, too."""
    largest, split = x[0].max(dim=-1), call.op.loop(call.dims[0][-1])
    index = largest.indices + call.part(call.dims[0][-1]).start
    return (index, largest.values) if split else index


def _repeat(call: OpCall, x: Operands) -> Tensor:
    value = k.aligned(x[0], call.dims[0], call.out)
    return value.expand([-1 if d in call.dims[0] else call.length(d) for d in call.out])


def _part(call: OpCall, x: Operands) -> Tensor:
    """A run of entries of the last dim, row by row in the result's further dims."""
    kept = x[0].shape[:-1]
    shape = [call.length(d) for d in call.out[len(kept) :]]
    return x[0].narrow(-1, call.op.of(PartAttrs).first, math.prod(shape)).reshape(*kept, *shape)


def _sinkhorn(call: OpCall, x: Operands) -> Tensor:
    return k.sinkhorn(x[0], call.op.of(SinkhornAttrs).iterations, call.op.of(SinkhornAttrs).eps)


def _slice(call: OpCall, x: Operands) -> Any:
    """A rank keeps its part of what it has."""
    value, op = x[0], call.op
    if isinstance(value, Ragged):
        return kept_rows(call.shards, call.segment, op, call.rank, value)
    have, got = call.segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    layouts = zip(value.shape, have.dims, got.dims, strict=True)
    parts = tuple(call.shards.part(n, after[len(before) :], call.rank) for n, before, after in layouts)
    return tuple(operand[parts] for operand in x)


def _resident(call: OpCall) -> Resident:
    """What stays on the device of the call's rank."""
    resident: Resident = call.host
    return resident


_FORWARD: Mapping[str, Rule] = {
    **BY_ROW,
    "lookup": _lookup,
    "rope": _rope,
    "temper": _temper,
    "cache": _cache,
    "attend": _attend,
    "select": _select,
    "conv": _conv,
    "pool": _pool,
    "delta": _delta,
    "route": _route,
    "empty_weight": _empty_weight,
    "dropout": _dropout,
    "expert_copy": fetched(torch.stack),
    "dispatch": _dispatch,
    "combine": _combine,
    "last": _last,
    "argmax": _argmax,
    "repeat": _repeat,
    "part": _part,
    "sinkhorn": _sinkhorn,
    "slice": _slice,
    **dict.fromkeys(("rename", "host_cache"), lambda call, x: x[0]),
    "unpack": unpacked,
    "stay": stayed,
    "rejoin": rejoined(torch.cat),
    "pack": packed(torch.cat),
}
TORCH: dict[str, Rule] = {**_FORWARD, **gradients.through(_FORWARD, gradients.THROUGH), **gradients.OF_TOKENS}

BACKEND = Backend(TORCH, frozenset({"combine", "slice"}) | gradients.OF_ROWS, k.rows_of_each, torch.cat, torch.stack)
