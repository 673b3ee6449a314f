"""Torch definitions of the ops: those of `dagc.execute.numpy.ops`, on the tensors of one rank. Routed tokens lie flat, sorted by
physical expert and token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...ir.ops.attributes import Attrs, ClampAttrs, ScaleAttrs, ShiftAttrs
from ..numpy import ops as numpy_kernels

Tensor = Any
Dims = tuple[str, ...]


@dataclass(frozen=True)
class Routed:
    """Choices of tokens [.., choice]: expert and weight."""

    experts: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Ragged:
    """Rows of routed tokens: physical expert [n], (batch, seq, choice) [n, 3], values [n, width]. `held`: the physical
    experts that rows may be of."""

    physical: Tensor
    keys: Tensor
    data: Tensor
    held: range

    def with_data(self, data: Tensor) -> Ragged:
        return Ragged(self.physical, self.keys, data, self.held)

    def counts(self) -> list[int]:
        """Rows of each expert held."""
        found = torch.bincount(self.physical - self.held.start, minlength=len(self.held))
        return [int(n) for n in found.tolist()]


@dataclass(frozen=True)
class Softmax:
    """Attention over a piece of the context: unnormalised output, row maxima and row sums."""

    output: Tensor
    maxima: Tensor
    sums: Tensor


@dataclass(frozen=True)
class Best:
    """Largest value and its index."""

    value: Tensor
    index: Tensor


def contract(a: Tensor, a_dims: Dims, b: Tensor, b_dims: Dims, out: Dims) -> Tensor:
    """Sum over every dim that is not in the result."""
    at = numpy_kernels.letters(a_dims, b_dims, out)
    text = ",".join("".join(at[d] for d in dims) for dims in (a_dims, b_dims)) + "->" + "".join(at[d] for d in out)
    return torch.einsum(text, a, b)


def aligned(x: Tensor, dims: Dims, out: Dims) -> Tensor:
    """Transpose and expand to broadcast against the result's dims."""
    order = [dims.index(d) for d in out if d in dims]
    return x.permute(order).reshape([x.shape[dims.index(d)] if d in dims else 1 for d in out])


def row_sum(kind: str, x: Tensor) -> Tensor:
    return (x * x if kind == "row_square_sum" else x).sum(dim=-1)


def norm(kind: str, x: Tensor, gain: Tensor | None, sums: list[Tensor], width: int, eps: float) -> Tensor:
    squares = sums[0] / width
    if kind == "layer_norm":
        mean = sums[1] / width
        x, squares = x - mean[..., None], squares - mean * mean
    normed = x * torch.rsqrt(squares + eps)[..., None]
    return normed if gain is None else normed * gain


def elementwise(kind: str, x: Tensor, attrs: Attrs) -> Tensor:
    functional = torch.nn.functional
    if isinstance(attrs, ScaleAttrs):
        return x * attrs.factor
    if isinstance(attrs, ShiftAttrs):
        return x + attrs.by
    if isinstance(attrs, ClampAttrs):
        return torch.clamp(x, attrs.low, attrs.high)
    if kind == "gelu_tanh":
        return functional.gelu(x, approximate="tanh")
    if kind == "softplus":
        return torch.logaddexp(x, torch.zeros_like(x))
    if kind in ("gelu", "silu"):
        return getattr(functional, kind)(x)
    return getattr(torch, kind)(x)  # rsqrt, relu, tanh, sigmoid, exp


def turned(x: Tensor, cos: Tensor, sin: Tensor, width: int, interleaved: bool) -> Tensor:
    """Pairs of the first `width` of the last dim, rotated."""
    if interleaved:
        first, second = slice(0, width, 2), slice(1, width, 2)
    else:
        first, second = slice(0, width // 2), slice(width // 2, width)
    out = x.clone()
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


Named = tuple[Tensor, Dims]


def attend(
    queries: list[Named], keys: list[Named], value: Named, out: Dims, seen: Named, factor: float, sinks: Tensor | None
) -> Softmax:
    """Scores of all pairs add up, times `factor`; `seen` [(batch,) seq, context] says what a query looks at."""
    rows = out[:-1]
    pairs = zip(queries, keys, strict=True)
    scores = sum(contract(q, q_dims, k, k_dims, (*rows, "context")) for (q, q_dims), (k, k_dims) in pairs)
    scores = torch.where(aligned(*seen, (*rows, "context")), scores * factor, -math.inf)
    maxima = scores.amax(dim=-1)
    if sinks is not None:
        maxima = torch.maximum(maxima, sinks)
    safe = torch.where(torch.isfinite(maxima), maxima, torch.zeros_like(maxima))
    weights = torch.exp(scores - safe[..., None])
    sums = weights.sum(dim=-1)
    if sinks is not None:
        sums = sums + torch.exp(sinks - safe)
    return Softmax(contract(weights, (*rows, "context"), value[0], value[1], out), maxima, sums)


def select(queries: Tensor, keys: Tensor, weights: Tensor, seen: Tensor, top_k: int) -> Tensor:
    """[batch, seq, top_k] indices into `keys`, ascending: where the rectified scores, summed over heads, are largest."""
    scores = torch.relu(torch.einsum("bshd,btd->bsht", queries, keys))
    total = torch.where(seen[None], torch.einsum("bsht,bsh->bst", scores, weights), -math.inf)
    return torch.argsort(-total, dim=-1, stable=True)[..., :top_k].sort(dim=-1).values


def conv(x: Tensor, taps: Tensor, before: Tensor) -> Tensor:
    """Each channel of `x` [batch, seq, ..] over its last inputs by `taps` [.., n], after those `before` [batch, n, ..]."""
    line, length = torch.cat([before, x], dim=1), x.shape[1]
    return sum(line[:, 1 + i : 1 + i + length] * taps[..., i] for i in range(taps.shape[-1]))


def delta(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, rate: Tensor, state: Tensor) -> Tensor:
    """The gated delta rule, token by token; the matrices of the heads keep the precision of `state`."""
    out = torch.empty_like(v)
    key_width = math.sqrt(k.shape[-1])
    q, k, v, decay, rate = (a.to(state.dtype) for a in (q, k, v, decay, rate))
    for t in range(v.shape[1]):
        state = state * torch.exp(-decay[:, t])[..., None, None]
        key = k[:, t].expand(state.shape[:-1])
        error = (v[:, t] - torch.einsum("...k,...kv->...v", key, state)) * rate[:, t][..., None]
        state = state + key[..., None] * error[..., None, :]
        read = torch.einsum("...k,...kv->...v", q[:, t].expand(key.shape), state) / key_width
        out[:, t] = read.to(out.dtype)
    return out


def normalised(part: Softmax) -> Tensor:
    return part.output / part.sums[..., None]


def dispatch(
    h: Tensor, routed: Routed, origin: tuple[int, int], replicas: Mapping[int, list[int]], held: range, weighted: bool
) -> Ragged:
    """Rows of tokens [batch, seq, width] for the physical experts held; a token takes the replica its position names."""
    batch, seq, choices = routed.experts.shape
    device = h.device
    most = max(len(copies) for copies in replicas.values())
    table = torch.tensor([(replicas[e] * most)[:most] for e in range(len(replicas))], device=device)
    copies = torch.tensor([len(replicas[e]) for e in range(len(replicas))], device=device)
    b = torch.arange(batch, device=device)[:, None, None].expand(batch, seq, choices) + origin[0]
    s = torch.arange(seq, device=device)[None, :, None].expand(batch, seq, choices) + origin[1]
    c = torch.arange(choices, device=device).expand(batch, seq, choices)
    physical = table[routed.experts, (b * 31 + s) % copies[routed.experts]]
    chosen = (physical >= held.start) & (physical < held.stop)
    data = h[:, :, None, :].expand(batch, seq, choices, h.shape[-1])[chosen]
    if weighted:
        data = data * routed.weights[chosen][:, None]
    keys = torch.stack([b[chosen], s[chosen], c[chosen]], dim=1)
    return ordered(physical[chosen], keys, data, held)


def ordered(physical: Tensor, keys: Tensor, data: Tensor, held: range, *, added: bool = False) -> Ragged:
    """Rows sorted by expert and token; those of one token added up if they are `added`."""
    size = [int(n) + 1 for n in keys.amax(dim=0).tolist()] if len(keys) else [1, 1, 1]
    code = ((physical * size[0] + keys[:, 0]) * size[1] + keys[:, 1]) * size[2] + keys[:, 2]
    if added:
        code, inverse = torch.unique(code, return_inverse=True)
        data = torch.zeros((len(code), data.shape[-1]), dtype=data.dtype, device=data.device).index_add_(
            0, inverse, data
        )
        rest, choice = code // size[2], code % size[2]
        rest, s = rest // size[1], rest % size[1]
        return Ragged(rest // size[0], torch.stack([rest % size[0], s, choice], dim=1), data, held)
    order = torch.argsort(code)
    return Ragged(physical[order], keys[order], data[order], held)


def combine(ragged: Ragged, routed: Routed, origin: tuple[int, int], weighted: bool) -> Tensor:
    """Sum of what came back, weighted or plain, on the tokens that a rank owns."""
    batch, seq, _ = routed.experts.shape
    b, s, c = ragged.keys[:, 0] - origin[0], ragged.keys[:, 1] - origin[1], ragged.keys[:, 2]
    data = ragged.data * routed.weights[b, s, c][:, None] if weighted else ragged.data
    out = torch.zeros((batch * seq, data.shape[-1]), dtype=data.dtype, device=data.device)
    return out.index_add_(0, b * seq + s, data).reshape(batch, seq, -1)


def grouped(ragged: Ragged, change: Callable[[int, Tensor], Tensor]) -> Ragged:
    """Each expert's rows changed by themselves."""
    parts = torch.split(ragged.data, ragged.counts())
    return ragged.with_data(torch.cat([change(p, part) for p, part in zip(ragged.held, parts, strict=True)]))


@dataclass(frozen=True, slots=True)
class Router:
    """`dagc.execute.numpy.ops.Router` on tensors: ties go to the lower index there and here."""

    rule: numpy_kernels.Router

    def __call__(self, scores: Tensor, bias: Tensor | None) -> Routed:
        if self.rule.score == "sparsemixer":
            return self.sparsemixer(scores)
        p = torch.sigmoid(scores) if self.rule.score == "sigmoid" else torch.softmax(scores, dim=-1)
        wanted = self.allowed(p if bias is None else p + bias)
        chosen = torch.argsort(-wanted, dim=-1, stable=True)[..., : self.rule.top_k]
        weights = torch.gather(p, -1, chosen)
        if self.rule.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routed(chosen, weights * self.rule.scale)

    def allowed(self, p: Tensor) -> Tensor:
        rule = self.rule
        if rule.groups <= 1:
            return p
        split = p.reshape(*p.shape[:-1], rule.groups, -1)
        best = torch.sort(split, dim=-1).values[..., -2 if rule.group_score == "best_two" else -1 :].sum(dim=-1)
        worst = torch.argsort(-best, dim=-1, stable=True)[..., rule.groups_limit :]
        out = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, worst, True)
        return torch.where(out.repeat_interleave(split.shape[-1], dim=-1), -math.inf, p)

    def sparsemixer(self, scores: Tensor) -> Routed:
        left = scores.clone()
        chosen, weights = [], []
        for _ in range(self.rule.top_k):
            best = left.amax(dim=-1, keepdim=True)
            far = (best - scores) / torch.maximum(scores.abs(), best) > 2.0 * self.rule.jitter
            share = torch.exp(torch.where(far, -math.inf, left) - best)
            index = left.argmax(dim=-1, keepdim=True)
            weights.append(torch.gather(share / share.sum(dim=-1, keepdim=True), -1, index))
            chosen.append(index)
            left.scatter_(-1, index, -math.inf)
        return Routed(torch.cat(chosen, dim=-1), torch.cat(weights, dim=-1))
