"""What each kind of gradient computes in torch: where the op has a rule, autograd goes back through it, so that nothing is derived
here that was derived for NumPy. One line per kind in `GRADIENTS`; those of `BY_ROW` hold for rows of experts, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...ir.ops.attributes.attrs import values
from ...ir.ops.attributes.elementwise import DropoutGradAttrs
from ...ir.ops.attributes.experts import ExchangeAttrs, RouteGradAttrs
from ...ir.ops.attributes.losses import LossAttrs, ScoreAttrs, ShareAttrs
from ...ir.ops.elementwise import ACTIVATIONS
from ...ir.ops.gradients import differentiated, forward_op, unread_operand
from ...ir.routed_dims import chosen_from, thins
from ..dispatcher import OpCall, Rule
from ..numpy.router import SLOPES
from ..numpy.router import Router as RouterRule
from ..row_gradients import row_gradients
from ..rule_makers import fetched, reached
from ..updates import updates
from ..values import Ragged
from . import ops as k
from .ops import Tensor
from .router import Router

Operands = Sequence[Any]


def through(forward: Mapping[str, Rule], kinds: Sequence[str]) -> dict[str, Rule]:
    """Kinds of gradients, each by autograd through the rule of its op. `forward`: those rules."""

    def rule(call: OpCall, x: Operands) -> Tensor:
        upstream, *own = x
        op, at, dims = forward_op(call.segment, call.op), differentiated(call.op), list(call.dims[1:])
        if (unread := unread_operand(call.op)) is not None:  # any number does
            sizes = {
                d: n
                for value, own_dims in zip(x, call.dims, strict=True)
                for d, n in zip(own_dims, value.shape, strict=True)
            }
            own.insert(unread, upstream.new_zeros([sizes[d] for d in call.out]))
            dims.insert(unread, call.out)
        own[at] = own[at].detach().requires_grad_()
        with torch.enable_grad():
            result = forward[op.kind](replace(call, op=op, dims=tuple(dims), out=call.dims[0]), own)
        return back(result, upstream, own[at])

    return dict.fromkeys(kinds, rule)


def back(result: Tensor, upstream: Tensor, of: Tensor) -> Tensor:
    """The gradient of an operand. Of a scalar, by a product: with a gradient for each number PyTorch imports SymPy first, for seconds."""
    with torch.enable_grad():
        total = (result * upstream).sum()
    return torch.autograd.grad(total, of)[0]


EACH_ROW = tuple(f"{kind}_grad" for kind in (*ACTIVATIONS, "clamp", "rsqrt"))
THROUGH = ("attend_grad", "conv_grad", "delta_grad", "part_grad", "sinkhorn_grad")


def _lookup(call: OpCall, x: Operands) -> Tensor:
    upstream, ids = x
    own = call.part(call.out[0])
    inside, place = _inside(ids, own.start, own.stop - own.start)
    out = upstream.new_zeros((own.stop - own.start, upstream.shape[-1]))
    return out.index_add_(0, place[inside], upstream[inside])


def _route(call: OpCall, x: Operands) -> Tensor:
    upstream, *scores, chosen = x
    given = values(call.op.of(RouteGradAttrs))
    place = given.pop("operand")
    scores = [one.detach().requires_grad_() for one in scores]
    with torch.enable_grad():
        weights = Router(RouterRule(**given)).weights(torch.cat(scores, dim=-1), chosen)
    return back(weights, upstream, scores[place])


def _empty_weight(call: OpCall, x: Operands) -> Tensor:
    upstream, chosen = x
    return torch.where(chosen >= chosen_from(call.segment, call.dims[1][-1]), upstream[..., None], 0.0)


def _choice_dot(call: OpCall, x: Operands) -> Tensor:
    ragged, tokens, chosen = x
    b, s = ragged.keys[:, 0] - call.origin[0], ragged.keys[:, 1] - call.origin[1]
    return _at_choices(call, ragged, (ragged.data * tokens[b, s]).sum(dim=-1), chosen)


def _at_choices(call: OpCall, ragged: Ragged, each: Tensor, chosen: Tensor) -> Tensor:
    """A number of each row at the choice that it is of."""
    b, s, c = ragged.keys[:, 0] - call.origin[0], ragged.keys[:, 1] - call.origin[1], ragged.keys[:, 2]
    return torch.zeros(chosen.shape, dtype=each.dtype, device=each.device).index_put_((b, s, c), each, accumulate=True)


def _choice_rows(call: OpCall, x: Operands) -> Ragged:
    weights, chosen = x
    rows = call.shards.rows(call.segment, call.op.name)
    there = reached(call, call.op.of(ExchangeAttrs).exchange)
    some = weights != 0.0 if thins(call.segment, call.op) else torch.ones_like(chosen, dtype=torch.bool)
    some, chosen = some & (chosen < len(rows.copies)), chosen.clamp(max=len(rows.copies) - 1)  # those behind are empty
    found = k.dispatch(torch.ones_like(weights[..., :1]), chosen, weights, call.origin, rows.copies, there, some)
    return found.with_data(found.data[:, 0])


def _choice_back(call: OpCall, x: Operands) -> Tensor:
    ragged, chosen = x
    return _at_choices(call, ragged, ragged.data, chosen)


def _labels(call: OpCall, x: Operands) -> Tensor:
    return call.host.exact(call.shards.labels(call.segment, call.op, call.rank))


def _inside(labels: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Which labels are of these columns, and their place among them."""
    inside = (labels >= first) & (labels < first + count)
    return inside, torch.where(inside, labels - first, 0)


def _pick(call: OpCall, x: Operands) -> Tensor:
    logits, labels = x
    inside, place = _inside(labels, call.part(call.dims[0][-1]).start, logits.shape[-1])
    return torch.gather(logits, -1, place[..., None])[..., 0] * inside


def _cross_entropy_grad(call: OpCall, x: Operands) -> Tensor:
    logits, labels, largest, total = x
    inside, place = _inside(labels, call.part(call.out[-1]).start, logits.shape[-1])
    out = torch.exp(logits - largest[..., None]) / total[..., None]
    out.scatter_add_(-1, place[..., None], -inside[..., None].to(out.dtype))
    attrs = call.op.of(LossAttrs)
    return out * (attrs.factor / attrs.tokens)


def _expert_share(call: OpCall, x: Operands) -> Tensor:
    """A rank's part of the counts, over the choices of all tokens, or of the sequences that share one."""
    segment, each = call.segment, call.op.of(ShareAttrs).sequences
    chosen = torch.nn.functional.one_hot(x[0].long(), int(segment.sizes[call.op.dims[-1]]))
    counts = chosen.sum(dim=(1, 2)).to(call.host.dtype)
    tokens = segment.sizes["seq"] * segment.sizes[call.dims[0][-1]]
    if not each:
        return counts.sum(dim=0) / (segment.sizes["batch"] * tokens)
    groups = counts.reshape(-1, each, counts.shape[-1]).sum(dim=1) / (each * tokens)
    return groups.repeat_interleave(each, dim=0)


def _expert_probs(call: OpCall, x: Operands) -> Tensor:
    score = call.op.of(ScoreAttrs).score
    p = Router(RouterRule(1, score)).probabilities(x[0])
    return p / p.sum(dim=-1, keepdim=True) if score in SLOPES else p


def _expert_probs_grad(call: OpCall, x: Operands) -> Tensor:
    upstream, scores = x
    p = _expert_probs(call, [scores])
    found = p * (upstream - (upstream * p).sum(dim=-1, keepdim=True))
    score = call.op.of(ScoreAttrs).score
    if score == "sqrtsoftplus":
        return found * torch.sigmoid(scores) / (2.0 * torch.logaddexp(scores, torch.zeros_like(scores)))
    return found * (1.0 - torch.sigmoid(scores)) if score == "sigmoid" else found


def _router_z_grad(call: OpCall, x: Operands) -> Tensor:
    upstream, scores = x
    return (upstream * 2.0 * torch.logsumexp(scores, dim=-1))[..., None] * torch.softmax(scores, dim=-1)


def _router_loss_grad(call: OpCall, x: Operands) -> Tensor:
    attrs = call.op.of(LossAttrs)
    return torch.full_like(x[0], attrs.factor / attrs.tokens)


def _old(call: OpCall) -> Tensor:
    return call.host.master(call.segment, call.layer, call.op)


def _as_weights(rule: Rule) -> Rule:
    """Computed in the precision of the optimizer's copy; what comes of it is a weight."""
    return lambda call, x: rule(call, [x[0].to(call.host.sums)]).to(call.host.dtype)


ROWS: Mapping[str, Rule] = row_gradients(k)
OF_TOKENS: Mapping[str, Rule] = {
    "lookup_grad": _lookup,
    "dropout_grad": lambda call, x: x[0] * x[1] / (1.0 - call.op.of(DropoutGradAttrs).rate),
    "route_grad": _route,
    "empty_weight_grad": _empty_weight,
    "choice_rows": _choice_rows,
    "choice_back": _choice_back,
    "choice_dot": _choice_dot,
    "labels": _labels,
    "row_max": lambda call, x: x[0].amax(dim=-1),
    "row_exp_sum": lambda call, x: torch.exp(x[0] - x[1][..., None]).sum(dim=-1),
    "pick": _pick,
    "cross_entropy": lambda call, x: (torch.log(x[1]) + x[0] - x[2]) * call.op.of(LossAttrs).factor,
    "cross_entropy_grad": _cross_entropy_grad,
    "expert_share": _expert_share,
    "expert_probs": _expert_probs,
    "expert_probs_grad": _expert_probs_grad,
    "router_z": lambda call, x: torch.logsumexp(x[0], dim=-1) ** 2,
    "router_z_grad": _router_z_grad,
    "router_loss": lambda call, x: x[0] * call.op.of(LossAttrs).factor,
    "router_loss_grad": _router_loss_grad,
    "fetch": fetched(torch.stack),
    **dict.fromkeys(("uncache", "store"), lambda call, x: x[0]),
    "accumulate": lambda call, x: x[0].permute([call.dims[0].index(d) for d in call.out]),
    **{kind: _as_weights(rule) for kind, rule in updates(_old).items()},
}
OF_ROWS = frozenset({"choice_dot", "choice_back"})
"""Kinds whose rule takes `Ragged` itself."""
