"""What each kind of op computes in NumPy: one line per kind in `NUMPY`. Collectives have a table of their own
(`numpy/collectives.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.ops.attention_operands import attend_extras, entry_operands
from ...ir.ops.attributes.attention import AttendAttrs, PoolAttrs, SelectAttrs, TemperAttrs
from ...ir.ops.attributes.attrs import values
from ...ir.ops.attributes.elementwise import ClampAttrs, DropoutAttrs, PartAttrs, ScaleAttrs, ShiftAttrs, SinkhornAttrs
from ...ir.ops.attributes.experts import CombineAttrs, DispatchAttrs, RouteAttrs
from ...ir.ops.attributes.recurrent import DeltaAttrs
from ...ir.routed_dims import chosen_from, thins
from ..dispatcher import Backend, OpCall, Rule
from ..dropout_mask import dropped_where
from ..failure import Wrong
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
from ..values import Floats, Ints, Ragged
from . import gradients
from . import ops as k
from .rotary import Rotary
from .router import Choice, Router
from .row_moves import move_rows

Operands = Sequence[Any]


@dataclass
class Notes:
    """What a rule says besides its result. `pairs`: of queries and keys that its mask let through, all sequences; `state`:
    what it remembers after the pass."""

    pairs: float = 0.0
    state: Floats | None = None


# -- ops that do not ask which token a row is of ----------------------------------------------------


def _aligned(join: Callable[[Floats, Floats], Any]) -> Rule:
    def rule(call: OpCall, x: Operands) -> Floats:
        a, b = (k.aligned(v, d, call.out) for v, d in zip(x, call.dims, strict=True))
        return np.asarray(join(a, b))

    return rule


BY_ROW: Mapping[str, Rule] = {
    "contract": contracted(k.contract),
    "multiply": _aligned(np.multiply),
    "add": _aligned(np.add),
    "rms_norm": normed(k.rms_norm, (k.row_square_sum,)),
    "layer_norm": normed(k.layer_norm, (k.row_square_sum, k.row_sum)),
    "row_sum": each(k.row_sum),
    "row_square_sum": each(k.row_square_sum),
    "scale": lambda call, x: x[0] * call.op.of(ScaleAttrs).factor,
    "shift": lambda call, x: x[0] + call.op.of(ShiftAttrs).by,
    "clamp": lambda call, x: np.clip(x[0], call.op.of(ClampAttrs).low, call.op.of(ClampAttrs).high),
    "rsqrt": each(lambda x: 1.0 / np.sqrt(x)),
    "quantise": fetched(np.stack),  # numbers have no dtype here: what is proved is the program
    "silu": each(lambda x: x * k.sigmoid(x)),
    "gelu": each(k.gelu),
    "gelu_tanh": each(k.gelu_tanh),
    "relu": each(lambda x: np.maximum(x, 0.0)),
    "sigmoid": each(k.sigmoid),
    "tanh": each(np.tanh),
    "softplus": each(lambda x: np.logaddexp(0.0, x)),
    "exp": each(np.exp),
    **gradients.BY_ROW,
}
"""Rules that hold for the rows of an expert as they do for tokens (`OpKind.on_rows`)."""


# -- ops that do ------------------------------------------------------------------------------------


def _lookup(call: OpCall, x: Operands) -> Floats:
    ids, table = x
    first = call.part(call.dims[1][0]).start
    inside = (ids >= first) & (ids < first + len(table))
    return np.where(inside[..., None], table[np.where(inside, ids - first, 0)], 0.0)


def _rope(call: OpCall, x: Operands) -> Floats:
    tokens = tokens_of(call.out)
    return Rotary.of(call.op.attrs).rotate(x[0], call.positions(tokens), call.out.index(tokens), *x[1:])


def _temper(call: OpCall, x: Operands) -> Floats:
    attrs = call.op.of(TemperAttrs)
    return k.temper(x[0], call.positions("seq"), call.out.index("seq"), attrs.floor, attrs.scale, attrs.first)


def _cache(call: OpCall, x: Operands) -> Floats:
    """A whole prompt: what was computed. Else what was there, with the new tokens at its end."""
    if call.whole_prompt:
        return np.asarray(x[0])
    mine = call.shards.cache(call.segment, call.layer, call.op, call.rank)
    if call.shards.takes_new_tokens(call.segment, call.op, call.rank):
        tail = [slice(None)] * mine.ndim
        tail[call.out.index(along_context(call.out))] = slice(-new_rows(call), None)
        mine[tuple(tail)] = x[0]
    return mine


def _attend(call: OpCall, x: Operands) -> Floats | tuple[Floats, Floats, Floats]:
    """Of a piece of the context the output as it is, and the statistics of its rows."""
    op, attrs, named = call.op, call.op.of(AttendAttrs), list(zip(x, call.dims, strict=True))
    pairs, split = attrs.pairs, op.loop("context")
    context, reach = call.positions("context"), (attrs.window or np.inf, attrs.chunk or np.inf)
    seen = k.visible(call.positions("seq"), context, attrs.causal, *reach) & call.related
    seen_dims: tuple[str, ...] = ("seq", "context")
    factor = attrs.scale / np.sqrt(attrs.width or float(sum(q.shape[-1] for q, _ in named[:pairs])))
    sink, selected = attend_extras(op)
    by_name = dict(zip(op.inputs, named, strict=True))
    sinks = None
    if sink is not None and not call.shards.block(split, call.rank):  # only one piece of a split context counts them
        sinks = k.aligned(*by_name[sink], call.out[:-1])
    batch = call.part("batch")
    sequences = batch.stop - batch.start
    call.host.pairs = float(seen.sum()) * sequences
    if attrs.chosen and selected is not None:
        seen, seen_dims, call.host.pairs = k.of_chosen(*by_name[selected], seen, context)
    sources = [k.Seen(named[pairs : 2 * pairs], named[2 * pairs], seen, seen_dims)]
    if attrs.entries and not call.shards.block(split, call.rank):  # as sinks
        keys, values = (tuple(by_name[name] for name in names) for names in entry_operands(op))
        along = along_context(keys[0][1])
        whole_dims: tuple[str, ...] = ("seq", along)
        whole = call.whole_groups(along)
        own_pairs = float(whole.sum()) * sequences
        if attrs.chosen_entries and selected is not None:
            whole, whole_dims, own_pairs = k.of_chosen(*by_name[selected], whole, np.arange(whole.shape[1]), along)
        call.host.pairs += own_pairs
        sources.append(k.Seen(list(keys), values[0], whole, whole_dims, along))
    output, maxima, sums = k.attend(named[:pairs], sources, call.out, factor, sinks, attrs.cap)
    return (output, maxima, sums) if split else np.asarray(output / sums[..., None])


def _select(call: OpCall, x: Operands) -> Any:
    queries, keys, *weights = x
    along = along_context(call.dims[1])
    if along != "context":
        seen, places = call.whole_groups(along), np.arange(keys.shape[1])
        call.host.pairs = float(seen.sum() * queries.shape[0])
        return places[k.select(queries, keys, weights[0], seen, int(call.segment.sizes[call.out[-1]]))]
    context = call.positions("context")
    turn = np.argsort(context)  # ties go to the first in the sequence, wherever it is
    count = int(call.segment.sizes[call.out[-1]])
    seen = k.visible(call.positions("seq"), context[turn], True, np.inf, np.inf)
    call.host.pairs = float(seen.sum() * queries.shape[0])
    if not weights:
        attrs = call.op.of(SelectAttrs)
        return context[turn][
            k.select_blocks(queries, keys[:, turn], call.positions("seq"), attrs.together, attrs.local, count)
        ]
    return context[turn][k.select(queries, keys[:, turn], weights[0], seen, count)]


def _conv(call: OpCall, x: Operands) -> Floats:
    taps = k.aligned(x[1], call.dims[1], (*call.out[2:], call.dims[1][-1]))
    line = call.shards.dealt(x[0], call.dims[0], back=True)
    out, call.host.state = k.conv(line, taps, call.shards.state(call.segment, call.layer, call.op, call.rank))
    return call.shards.dealt(out, call.out)


def _pool(call: OpCall, x: Operands) -> Floats:
    contents, gates = (call.shards.dealt(v, d, back=True) for v, d in zip(x[:2], call.dims[:2], strict=True))
    before = int(call.segment.size("context") - call.segment.size("seq"))
    state = call.shards.state(call.segment, call.layer, call.op, call.rank)
    out, call.host.state = k.pool(contents, gates, x[2], before, state, call.op.of(PoolAttrs).overlap)
    return out


def _delta(call: OpCall, x: Operands) -> Floats:
    rows = call.out[:-1]
    wanted = delta_layouts(call.dims, rows)
    in_turn = (call.shards.dealt(v, d, back=True) for v, d in zip(x, call.dims, strict=True))
    q, key, v, decay, rate = (k.aligned(a, d, out) for a, d, out in zip(in_turn, call.dims, wanted, strict=True))
    state = call.shards.state(call.segment, call.layer, call.op, call.rank)
    out, call.host.state = k.delta(q, key, v, decay, rate, state, call.op.of(DeltaAttrs).correct)
    return call.shards.dealt(out, call.out)


def _dropout(call: OpCall, x: Operands) -> tuple[Floats, Ints]:
    rate, mask = call.op.of(DropoutAttrs).rate, dropped_where(call)
    return np.where(mask, x[0] / (1.0 - rate), 0.0), mask.astype(np.uint8)


def _route(call: OpCall, x: Operands) -> Choice:
    router = Router(**values(call.op.of(RouteAttrs)))
    empty = x[1].shape[-1] if router.empty else 0
    x = [np.concatenate(both, axis=-1) for both in zip(x[::2], x[1::2], strict=True)] if empty else x
    scores = x[0]
    if call.shards.inputs.balanced:
        batch = call.origin[0] + np.arange(scores.shape[0])[:, None]
        position = (batch * int(call.segment.sizes["seq"]) + call.positions("seq"))[..., None] * router.top_k
        chosen, weights = router.forced(scores, (position + np.arange(router.top_k)) % scores.shape[-1])
    elif router.by_token:
        ids, table = x[1:]
        chosen, weights = router.forced(scores, table[ids].astype(np.int64))
    else:
        chosen, weights = router(scores, x[1] if len(x) > 1 else None)
    if router.capacity:
        weights = router.capped(chosen, weights, groups_of(call, scores.shape[:2]), scores.shape[-1], empty)
    return (chosen, weights)


def _empty_weight(call: OpCall, x: Operands) -> Floats:
    chosen, weights = x
    return np.asarray(np.where(chosen >= chosen_from(call.segment, call.dims[0][-1]), weights, 0.0).sum(axis=-1))


def groups_of(call: OpCall, shape: tuple[int, ...]) -> Ints:
    """Of the tokens of a rank [batch, seq]: one group, or in the model alone those of the ranks that it is compared with."""
    given = call.shards.inputs.groups
    return np.zeros(shape, dtype=np.int64) if given is None else given(call.segment.name, call.op.name)


def _dispatch(call: OpCall, x: Operands) -> Ragged:
    """Tokens for every physical expert that this rank may reach: all but those that a rank with the same tokens selects
    for itself."""
    rows = call.shards.rows(call.segment, call.op.name)
    attrs = call.op.of(DispatchAttrs)
    skips = attrs.skips or thins(call.segment, call.op)
    weights, some = x[2] if attrs.weighted else None, x[2] != 0.0 if skips else None
    some = some if some is None else some & (x[1] < len(rows.copies))  # those behind are empty
    return k.dispatch(
        x[0],
        np.minimum(x[1], len(rows.copies) - 1),
        weights,
        call.origin,
        rows.copies,
        reached(call, attrs.exchange),
        some,
    )


def _combine(call: OpCall, x: Operands) -> Floats:
    ragged, chosen, weights = x
    for column, dim, first in zip(ragged.keys.T, ("batch", "seq"), (call.shards.offset, 0), strict=False):
        part = call.part(dim)
        if ((column < part.start + first) | (column >= part.stop + first)).any():
            raise Wrong("a row came back to a rank that does not own its token")
    weights = weights if call.op.of(CombineAttrs).weighted else None
    return k.combine(ragged, chosen.shape[:2], weights, call.origin)


def _last(call: OpCall, x: Operands) -> Floats:
    """The value at the last position; nothing where another rank has it."""
    positions = call.positions("seq")
    value = np.take(x[0], int(positions.argmax()), call.dims[0].index("seq"))
    return value if positions.max() == call.segment.sizes["context"] - 1 else np.zeros_like(value)


def _argmax(call: OpCall, x: Operands) -> Any:
    """Of a piece of the vocabulary the largest value, too."""
    split = call.op.loop(call.dims[0][-1])
    index = x[0].argmax(axis=-1) + call.part(call.dims[0][-1]).start
    return (index, x[0].max(axis=-1)) if split else index


def _repeat(call: OpCall, x: Operands) -> Floats:
    value = k.aligned(x[0], call.dims[0], call.out)
    shape = [n if d in call.dims[0] else call.length(d) for d, n in zip(call.out, value.shape, strict=True)]
    return np.ascontiguousarray(np.broadcast_to(value, shape))


def _part(call: OpCall, x: Operands) -> Floats:
    """A run of entries of the last dim, row by row in the result's further dims."""
    kept = x[0].shape[:-1]
    shape = [call.length(d) for d in call.out[len(kept) :]]
    first = call.op.of(PartAttrs).first
    return np.asarray(x[0][..., first : first + math.prod(shape)].reshape(*kept, *shape))


def _sinkhorn(call: OpCall, x: Operands) -> Floats:
    return k.sinkhorn(x[0], call.op.of(SinkhornAttrs).iterations, call.op.of(SinkhornAttrs).eps)


def _slice(call: OpCall, x: Operands) -> Any:
    """A rank keeps its part of what it has."""
    op, shards = call.op, call.shards
    if isinstance(x[0], Ragged):
        return move_rows(shards, call.segment, op, [call.rank], [x[0]])[0]
    have, got = call.segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    whole = shards.whole(call.segment, op.dims, op.scope)
    edges = zip(shards.parts(whole, have.dims, call.rank), shards.parts(whole, got.dims, call.rank), strict=True)
    parts = tuple(slice(new.start - old.start, new.stop - old.start) for old, new in edges)
    if any(p.start < 0 for p in parts):
        raise Wrong(f"{op.name}: keeps what the rank does not have")
    return tuple(value[parts] for value in x)


NUMPY: dict[str, Rule] = {
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
    "expert_copy": fetched(np.stack),
    "dispatch": _dispatch,
    "combine": _combine,
    "last": _last,
    "argmax": _argmax,
    "repeat": _repeat,
    "part": _part,
    "sinkhorn": _sinkhorn,
    "slice": _slice,
    **dict.fromkeys(("rename", "host_cache"), each(np.asarray)),
    "unpack": unpacked,
    "stay": stayed,
    "rejoin": rejoined(np.concatenate),
    "pack": packed(np.concatenate),
    **gradients.GRADIENTS,
}

BACKEND = Backend(NUMPY, frozenset({"combine", "slice"}) | gradients.OF_ROWS, k.rows_of_each, np.concatenate, np.stack)
