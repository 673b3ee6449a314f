"""What each kind of gradient computes in NumPy: one line per kind in `GRADIENTS`; those of `BY_ROW` hold for rows of experts, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.ops.attention_operands import attend_extras
from ...ir.ops.attributes.attention import AttendAttrs
from ...ir.ops.attributes.attrs import values
from ...ir.ops.attributes.elementwise import ClampAttrs, DropoutGradAttrs, OperandAttrs, PartAttrs, SinkhornAttrs
from ...ir.ops.attributes.experts import ExchangeAttrs, RouteGradAttrs
from ...ir.ops.attributes.losses import LossAttrs, ScoreAttrs, ShareAttrs
from ...ir.ops.attributes.recurrent import DeltaGradAttrs
from ...ir.ops.gradients import differentiated, forward_op, unread_operand
from ...ir.routed_dims import chosen_from, thins
from ..dispatcher import OpCall, Rule
from ..row_gradients import row_gradients
from ..rule_makers import delta_layouts, fetched, reached
from ..updates import updates
from ..values import Floats, Ints, Ragged
from . import ops as k
from .router import SLOPES, Router

Dims = tuple[str, ...]
Operands = Sequence[Any]


# -- element by element, and rows --------------------------------------------------------------------


def _slope(function: Callable[[Floats], Any]) -> Rule:
    """The upstream gradient times the slope at the operand."""
    return lambda call, x: np.asarray(x[0] * function(x[1]))


def _silu(x: Floats) -> Floats:
    share = k.sigmoid(x)
    return share * (1.0 + x * (1.0 - share))


def _gelu(x: Floats) -> Floats:
    density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return np.asarray(0.5 * (1.0 + k.erf(x / math.sqrt(2.0))) + x * density)


def _gelu_tanh(x: Floats) -> Floats:
    inner = math.sqrt(2.0 / math.pi)
    bent = np.tanh(inner * (x + 0.044715 * x**3))
    return np.asarray(0.5 * (1.0 + bent) + 0.5 * x * (1.0 - bent * bent) * inner * (1.0 + 3 * 0.044715 * x * x))


def _sigmoid(x: Floats) -> Floats:
    share = k.sigmoid(x)
    return share * (1.0 - share)


def _clamp(call: OpCall, x: Operands) -> Floats:
    attrs = call.op.of(ClampAttrs)
    return np.asarray(x[0] * ((x[1] >= attrs.low) & (x[1] <= attrs.high)))


BY_ROW: Mapping[str, Rule] = {
    "silu_grad": _slope(_silu),
    "gelu_grad": _slope(_gelu),
    "gelu_tanh_grad": _slope(_gelu_tanh),
    "relu_grad": _slope(lambda x: x > 0.0),
    "sigmoid_grad": _slope(_sigmoid),
    "tanh_grad": _slope(lambda x: 1.0 - np.tanh(x) ** 2),
    "softplus_grad": _slope(k.sigmoid),
    "exp_grad": _slope(np.exp),
    "rsqrt_grad": _slope(lambda x: -0.5 * x**-1.5),
    "clamp_grad": _clamp,
    **row_gradients(k),
}


# -- residual streams ------------------------------------------------------------------------------------


def _part(call: OpCall, x: Operands) -> Floats:
    """Nothing outside the run of entries."""
    upstream, value = x
    found: Floats = np.zeros_like(value)
    first = call.op.of(PartAttrs).first
    flat = upstream.reshape(*value.shape[:-1], -1)
    found[..., first : first + flat.shape[-1]] = flat
    return found


def _sinkhorn(call: OpCall, x: Operands) -> Floats:
    attrs = call.op.of(SinkhornAttrs)
    return k.sinkhorn_grad(x[0], x[1], attrs.iterations, attrs.eps)


# -- attention and recurrences -------------------------------------------------------------------------


def _attend(call: OpCall, x: Operands) -> Floats:
    """The softmax computed anew, then the product that the operand's gradient is."""
    op, attrs = call.op, call.op.of(AttendAttrs)
    forward, place, rows = forward_op(call.segment, op), differentiated(op), call.dims[0][:-1]
    named, pairs = list(zip(x[1:], call.dims[1:], strict=True)), attrs.pairs
    if (unread := unread_operand(op)) is not None:
        named.insert(unread, (np.zeros(0), call.out))
    by_name = dict(zip(forward.inputs, named, strict=True))
    context, reach = call.positions("context"), (attrs.window or np.inf, attrs.chunk or np.inf)
    seen: Any = k.visible(call.positions("seq"), context, attrs.causal, *reach)
    seen_dims: Dims = ("seq", "context")
    call.host.pairs = float(seen.sum()) * x[0].shape[call.dims[0].index("batch")]
    sink, selected = attend_extras(forward)
    if selected is not None:
        seen, seen_dims, call.host.pairs = k.of_chosen(*by_name[selected], seen, context)
    factor = attrs.scale / np.sqrt(attrs.width or float(sum(q.shape[-1] for q, _ in named[:pairs])))
    table = (*rows, "context")
    products = [
        k.contract(q, qd, key, kd, table)
        for (q, qd), (key, kd) in zip(named[:pairs], named[pairs : 2 * pairs], strict=True)
    ]
    bounded = k.capped(np.sum(products, axis=0) * factor, attrs.cap)
    scores = np.where(k.aligned(seen, seen_dims, table), bounded, -np.inf)
    sinks = k.aligned(*by_name[sink], rows) if sink is not None else np.full((1,) * len(rows), -np.inf)
    maxima = np.maximum(scores.max(axis=-1), sinks)
    weights, own = np.exp(scores - maxima[..., None]), np.exp(sinks - maxima)
    total = weights.sum(axis=-1) + own
    weights = weights / total[..., None]
    if place == 2 * pairs:
        return k.contract(weights, table, x[0], call.dims[0], call.out)
    value, value_dims = named[2 * pairs]
    of_weights = k.contract(x[0], call.dims[0], value, value_dims, table)
    mean = (weights * of_weights).sum(axis=-1)
    if place > 2 * pairs:
        return k.reduced(-own / total * mean, rows, call.out)
    of_scores = weights * (of_weights - mean[..., None]) * factor
    of_scores = of_scores * (1.0 - (bounded / attrs.cap) ** 2) if attrs.cap else of_scores
    other, other_dims = named[place + pairs if place < pairs else place - pairs]
    return k.contract(of_scores, table, other, other_dims, call.out)


def _conv(call: OpCall, x: Operands) -> Floats:
    upstream, value, taps = x
    taps_dims = (*call.dims[0][2:], call.dims[2][-1])
    weights = k.aligned(taps, call.dims[2], taps_dims)
    count, length = weights.shape[-1], value.shape[1]
    back, line = (call.shards.dealt(v, call.dims[0], back=True) for v in (upstream, value))
    line = np.concatenate([np.zeros((line.shape[0], count, *line.shape[2:])), line], axis=1)
    if call.op.of(OperandAttrs).operand == 1:
        found = [(back * line[:, 1 + i : 1 + i + length]).sum(axis=(0, 1)) for i in range(count)]
        return k.reduced(np.stack(found, axis=-1), taps_dims, call.out)
    out = np.zeros_like(line)
    for i in range(count):
        out[:, 1 + i : 1 + i + length] += back * weights[..., i]
    return call.shards.dealt(out[:, count:], call.out)


def _delta(call: OpCall, x: Operands) -> Floats:
    """Back through the tokens; the matrices between them are kept (arXiv 2412.06464, section 3)."""
    rows = call.dims[0][:-1]
    wanted = [call.dims[0], *delta_layouts(call.dims[1:], rows)]
    correct = call.op.of(DeltaGradAttrs).correct
    in_turn = (call.shards.dealt(v, d, back=True) for v, d in zip(x, call.dims, strict=True))
    back, q, key, v, decay, rate = (k.aligned(a, d, out) for a, d, out in zip(in_turn, call.dims, wanted, strict=True))
    full = v.shape[:-1]
    q, key = (np.broadcast_to(a, (*full, a.shape[-1])) for a in (q, key))
    rate = np.broadcast_to(rate, full)
    by_row = decay.ndim == v.ndim
    decay = np.broadcast_to(decay, (*full, key.shape[-1]) if by_row else full)
    root, length = math.sqrt(key.shape[-1]), v.shape[1]
    states, faded = [np.zeros((*full[:1], *full[2:], key.shape[-1], v.shape[-1]))], []
    for t in range(length):
        faded.append(states[-1] * k.faded(decay, t, v.ndim))
        error = (v[:, t] - correct * np.einsum("...k,...kv->...v", key[:, t], faded[-1])) * rate[:, t][..., None]
        states.append(faded[-1] + key[:, t][..., None] * error[..., None, :])
    found = [np.zeros(a.shape) for a in (q, key, v, decay, rate)]
    state = np.zeros_like(states[0])
    for t in reversed(range(length)):
        found[0][:, t] = np.einsum("...kv,...v->...k", states[t + 1], back[:, t]) / root
        state = state + q[:, t][..., None] * back[:, t][..., None, :] / root
        error = v[:, t] - correct * np.einsum("...k,...kv->...v", key[:, t], faded[t])
        of_step = np.einsum("...kv,...k->...v", state, key[:, t])
        found[4][:, t] = (of_step * error).sum(axis=-1)
        of_error = of_step * rate[:, t][..., None]
        found[2][:, t] = of_error
        found[1][:, t] = np.einsum("...kv,...v->...k", state, error * rate[:, t][..., None]) - correct * np.einsum(
            "...kv,...v->...k", faded[t], of_error
        )
        of_faded = state - correct * key[:, t][..., None] * of_error[..., None, :]
        found[3][:, t] = -(of_faded * faded[t]).sum(axis=-1 if by_row else (-1, -2))
        state = of_faded * k.faded(decay, t, v.ndim)
    place = call.op.of(DeltaGradAttrs).operand
    wide = place < 3 or (place == 3 and by_row)
    own = (*rows, "") if wide else rows
    target = tuple("" if wide and i == len(call.out) - 1 else d for i, d in enumerate(call.out))
    return call.shards.dealt(k.reduced(found[place], own, target), call.out)


# -- tokens, experts and the loss ------------------------------------------------------------------------


def _inside(labels: Ints, first: int, count: int) -> tuple[Any, Ints]:
    """Which labels are of these rows, and their place among them."""
    inside = (labels >= first) & (labels < first + count)
    return inside, np.where(inside, labels - first, 0)


def _lookup(call: OpCall, x: Operands) -> Floats:
    upstream, ids = x
    own = call.part(call.out[0])
    inside, place = _inside(ids, own.start, own.stop - own.start)
    out = np.zeros((own.stop - own.start, upstream.shape[-1]))
    np.add.at(out, place[inside], upstream[inside])
    return out


def _route(call: OpCall, x: Operands) -> Floats:
    upstream, *scores, chosen = x
    given = values(call.op.of(RouteGradAttrs))
    place = given.pop("operand")
    found = Router(**given).gradient(upstream, np.concatenate(scores, axis=-1), chosen)
    begin = sum(one.shape[-1] for one in scores[:place])
    return np.asarray(found[..., begin : begin + scores[place].shape[-1]])


def _empty_weight(call: OpCall, x: Operands) -> Floats:
    upstream, chosen = x
    return np.where(chosen >= chosen_from(call.segment, call.dims[1][-1]), upstream[..., None], 0.0)


def _choice_dot(call: OpCall, x: Operands) -> Floats:
    ragged, tokens, chosen = x
    b, s, c = (ragged.keys - np.array([*call.origin, 0])).T
    out = np.zeros(chosen.shape)
    np.add.at(out, (b, s, c), (ragged.data * tokens[b, s]).sum(axis=-1))
    return out


def _choice_rows(call: OpCall, x: Operands) -> Ragged:
    weights, chosen = x
    rows = call.shards.rows(call.segment, call.op.name)
    there = reached(call, call.op.of(ExchangeAttrs).exchange)
    some = weights != 0.0 if thins(call.segment, call.op) else np.ones(chosen.shape, dtype=bool)
    some, chosen = (
        some & (chosen < len(rows.copies)),
        np.minimum(chosen, len(rows.copies) - 1),
    )  # those behind are empty
    found = k.dispatch(np.ones((*chosen.shape[:2], 1)), chosen, weights, call.origin, rows.copies, there, some)
    return found.with_data(found.data[:, 0])


def _choice_back(call: OpCall, x: Operands) -> Floats:
    ragged, chosen = x
    out = np.zeros(chosen.shape)
    np.add.at(out, tuple((ragged.keys - np.array([*call.origin, 0])).T), ragged.data)
    return out


def _labels(call: OpCall, x: Operands) -> Ints:
    return call.shards.labels(call.segment, call.op, call.rank)


def _pick(call: OpCall, x: Operands) -> Floats:
    logits, labels = x
    inside, place = _inside(labels, call.part(call.dims[0][-1]).start, logits.shape[-1])
    return np.where(inside, np.take_along_axis(logits, place[..., None], axis=-1)[..., 0], 0.0)


def _cross_entropy_grad(call: OpCall, x: Operands) -> Floats:
    logits, labels, largest, total = x
    inside, place = _inside(labels, call.part(call.out[-1]).start, logits.shape[-1])
    out = np.exp(logits - largest[..., None]) / total[..., None]
    known = np.take_along_axis(out, place[..., None], axis=-1)
    np.put_along_axis(out, place[..., None], known - inside[..., None], axis=-1)
    attrs = call.op.of(LossAttrs)
    return np.asarray(out * (attrs.factor / attrs.tokens))


def _expert_share(call: OpCall, x: Operands) -> Floats:
    """A rank's part of the counts, over the choices of all tokens, or of the sequences that share one."""
    segment, each = call.segment, call.op.of(ShareAttrs).sequences
    counts = (x[0][..., None] == np.arange(int(segment.sizes[call.op.dims[-1]]))).sum(axis=(1, 2)).astype(float)
    tokens = segment.sizes["seq"] * segment.sizes[call.dims[0][-1]]
    if not each:
        return np.asarray(counts.sum(axis=0) / (segment.sizes["batch"] * tokens))
    groups = counts.reshape(-1, each, counts.shape[-1]).sum(axis=1) / (each * tokens)
    return np.repeat(groups, each, axis=0)


def _softmax(scores: Floats) -> Floats:
    return Router(1).probabilities(scores)


def _expert_probs(call: OpCall, x: Operands) -> Floats:
    p = Router(1, call.op.of(ScoreAttrs).score).probabilities(x[0])
    return np.asarray(p / p.sum(axis=-1, keepdims=True)) if call.op.of(ScoreAttrs).score in SLOPES else p


def _expert_probs_grad(call: OpCall, x: Operands) -> Floats:
    upstream, scores = x
    p = _expert_probs(call, [scores])
    found = p * (upstream - (upstream * p).sum(axis=-1, keepdims=True))
    score = call.op.of(ScoreAttrs).score
    if score not in SLOPES:
        return np.asarray(found)
    own = Router(1, score).probabilities(scores)
    return np.asarray(found * SLOPES[score](scores, own) / own)


def _log_sum(scores: Floats) -> Floats:
    largest = scores.max(axis=-1, keepdims=True)
    return np.asarray(np.log(np.exp(scores - largest).sum(axis=-1)) + largest[..., 0])


def _router_loss_grad(call: OpCall, x: Operands) -> Floats:
    attrs = call.op.of(LossAttrs)
    return np.full(x[0].shape, attrs.factor / attrs.tokens)


GRADIENTS: Mapping[str, Rule] = {
    **BY_ROW,
    "attend_grad": _attend,
    "conv_grad": _conv,
    "delta_grad": _delta,
    "part_grad": _part,
    "sinkhorn_grad": _sinkhorn,
    "lookup_grad": _lookup,
    "dropout_grad": lambda call, x: x[0] * x[1] / (1.0 - call.op.of(DropoutGradAttrs).rate),
    "route_grad": _route,
    "empty_weight_grad": _empty_weight,
    "choice_rows": _choice_rows,
    "choice_back": _choice_back,
    "choice_dot": _choice_dot,
    "labels": _labels,
    "row_max": lambda call, x: np.asarray(x[0].max(axis=-1)),
    "row_exp_sum": lambda call, x: np.asarray(np.exp(x[0] - x[1][..., None]).sum(axis=-1)),
    "pick": _pick,
    "cross_entropy": lambda call, x: np.asarray(np.log(x[1]) + x[0] - x[2]) * call.op.of(LossAttrs).factor,
    "cross_entropy_grad": _cross_entropy_grad,
    "expert_share": _expert_share,
    "expert_probs": _expert_probs,
    "expert_probs_grad": _expert_probs_grad,
    "router_z": lambda call, x: _log_sum(x[0]) ** 2,
    "router_z_grad": lambda call, x: (x[0] * 2.0 * _log_sum(x[1]))[..., None] * _softmax(x[1]),
    "router_loss": lambda call, x: x[0] * call.op.of(LossAttrs).factor,
    "router_loss_grad": _router_loss_grad,
    "fetch": fetched(np.stack),
    **dict.fromkeys(("uncache", "store"), lambda call, x: np.asarray(x[0])),
    "accumulate": lambda call, x: np.transpose(x[0], [call.dims[0].index(d) for d in call.out]),
    **updates(lambda call: call.shards.master(call.segment, call.layer, call.op, call.rank)),
}
OF_ROWS = frozenset({"choice_dot", "choice_back"})
"""Kinds whose rule takes `Ragged` itself."""
