"""Torch definitions of the ops: those of `dagc.execute.numpy.ops`, on the tensors of one rank. Routed tokens are flat, sorted by
physical expert and token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..numpy.ops import equation
from ..values import Ragged

Tensor = Any
Dims = tuple[str, ...]


def contract(a: Tensor, a_dims: Dims, b: Tensor, b_dims: Dims, out: Dims) -> Tensor:
    """Sum over every dim that is not in the result."""
    return torch.einsum(equation(a_dims, b_dims, out), a, b)


def aligned(x: Tensor, dims: Dims, out: Dims) -> Tensor:
    """Transpose and expand to broadcast against the result's dims."""
    order = [dims.index(d) for d in out if d in dims]
    return x.permute(order).reshape([x.shape[dims.index(d)] if d in dims else 1 for d in out])


def reduced(x: Tensor, dims: Dims, out: Dims) -> Tensor:
    """Summed over the dims that the result lacks, in its order."""
    lacking = [i for i, d in enumerate(dims) if d not in out]
    total = x.sum(dim=lacking) if lacking else x
    left = [d for d in dims if d in out]
    return total.permute([left.index(d) for d in out])


def sinkhorn(scores: Tensor, iterations: int, eps: float) -> Tensor:
    """The softmax of rows, [..., rows, columns], divided by the sums of its columns and of its rows in turn, columns first and last."""
    matrix = torch.softmax(scores, dim=-1) + eps
    for axis in (-2, *(-1, -2) * (iterations - 1)):
        matrix = matrix / (matrix.sum(dim=axis, keepdim=True) + eps)
    return matrix


def row_sum(x: Tensor) -> Tensor:
    return x.sum(dim=-1)


def row_square_sum(x: Tensor) -> Tensor:
    return (x * x).sum(dim=-1)


def rms_norm(x: Tensor, squares: Tensor, width: int, eps: float) -> Tensor:
    return x * torch.rsqrt(squares / width + eps)[..., None]


def layer_norm(x: Tensor, squares: Tensor, values: Tensor, width: int, eps: float) -> Tensor:
    mean = values / width
    return (x - mean[..., None]) * torch.rsqrt(squares / width - mean * mean + eps)[..., None]


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
    queries: list[Named],
    keys: list[Named],
    value: Named,
    out: Dims,
    seen: Named,
    factor: float,
    sinks: Tensor | None,
    cap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over a piece of the context: unnormalised output, row maxima and row sums. Scores of all pairs add
    up, times `factor`, and come near `cap` at most; `seen` [(batch,) seq, context] says what a query looks at."""
    rows = out[:-1]
    pairs = zip(queries, keys, strict=True)
    scores = sum(contract(q, q_dims, k, k_dims, (*rows, "context")) for (q, q_dims), (k, k_dims) in pairs)
    scores = cap * torch.tanh(scores * factor / cap) if cap else scores * factor
    scores = torch.where(aligned(*seen, (*rows, "context")), scores, -math.inf)
    maxima = scores.amax(dim=-1)
    if sinks is not None:
        maxima = torch.maximum(maxima, sinks)
    safe = torch.where(torch.isfinite(maxima), maxima, torch.zeros_like(maxima))
    weights = torch.exp(scores - safe[..., None])
    sums = weights.sum(dim=-1)
    if sinks is not None:
        sums = sums + torch.exp(sinks - safe)
    return contract(weights, (*rows, "context"), value[0], value[1], out), maxima, sums


def select(queries: Tensor, keys: Tensor, weights: Tensor, seen: Tensor, top_k: int) -> Tensor:
    """[batch, seq, top_k] indices into `keys`, ascending: where the rectified scores, summed over heads, are largest."""
    scores = torch.relu(torch.einsum("bshd,btd->bsht", queries, keys))
    total = torch.where(seen[None], torch.einsum("bsht,bsh->bst", scores, weights), -math.inf)
    return torch.argsort(-total, dim=-1, stable=True)[..., :top_k].sort(dim=-1).values


def select_blocks(queries: Tensor, keys: Tensor, at: Tensor, block: int, local: int, count: int) -> Tensor:
    """As `dagc.execute.numpy.ops.select_blocks`: [batch, seq, heads, count] indices into `keys`."""
    batch, seq, heads, _ = queries.shape
    context = keys.shape[1]
    tokens = torch.arange(context, device=keys.device)
    if count >= context:
        return tokens.expand(batch, seq, heads, context)
    scores = torch.einsum("bshd,btd->bsht", queries, keys)
    scores = torch.where((tokens[None, :] <= at[:, None])[None, :, None, :], scores, -math.inf)
    blocks = -(-context // block)
    scores = torch.nn.functional.pad(scores, (0, blocks * block - context), value=-math.inf)
    best = scores.reshape(batch, seq, heads, blocks, block).amax(dim=-1)
    own = at // block
    numbers = torch.arange(blocks, device=keys.device)
    near = (numbers[None, :] <= own[:, None]) & (numbers[None, :] > own[:, None] - local)
    best = torch.where(near[None, :, None, :], math.inf, best)
    order = torch.argsort(-best, dim=-1, stable=True)[..., : count // block]
    mine = own[None, :, None, None]
    order = torch.where(torch.isneginf(torch.gather(best, -1, order)), mine, order)
    found = (order[..., None] * block + torch.arange(block, device=keys.device)).flatten(-2)
    return torch.where(found < context, found, mine * block).sort(dim=-1).values


def of_chosen(selected: Tensor, dims: tuple[str, ...], seen: Tensor, context: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """What queries see of what they chose: `selected` [batch, seq, (heads,) chosen] positions, `seen` [seq, context]."""
    found = (selected[..., None] == context).any(dim=-2)
    return found & seen.reshape(1, seen.shape[0], *(1 for _ in found.shape[2:-1]), seen.shape[1]), (
        *dims[:-1],
        "context",
    )


def conv(x: Tensor, taps: Tensor, before: Tensor) -> Tensor:
    """Each channel of `x` [batch, seq, ..] over its last inputs by `taps` [.., n], after those `before` [batch, n, ..]."""
    line, length = torch.cat([before, x], dim=1), x.shape[1]
    return sum(line[:, 1 + i : 1 + i + length] * taps[..., i] for i in range(taps.shape[-1]))


def delta(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, rate: Tensor, state: Tensor, correct: bool = True) -> Tensor:
    """The gated delta rule, token by token, or plainly added up; the matrices of the heads keep the precision of `state`."""
    out = torch.empty_like(v)
    key_width = math.sqrt(k.shape[-1])
    q, k, v, decay, rate = (a.to(state.dtype) for a in (q, k, v, decay, rate))
    for t in range(v.shape[1]):
        left = torch.exp(-decay[:, t])[..., None]
        state = state * (left if decay.ndim == v.ndim else left[..., None])
        key = k[:, t].expand(state.shape[:-1])
        known = torch.einsum("...k,...kv->...v", key, state) if correct else 0.0
        error = (v[:, t] - known) * rate[:, t][..., None]
        state = state + key[..., None] * error[..., None, :]
        read = torch.einsum("...k,...kv->...v", q[:, t].expand(key.shape), state) / key_width
        out[:, t] = read.to(out.dtype)
    return out


def dispatch(
    h: Tensor,
    experts: Tensor,
    weights: Tensor | None,
    origin: tuple[int, int],
    replicas: Mapping[int, list[int]],
    held: range,
    some: Tensor | None = None,
) -> Ragged:
    """Rows of tokens [batch, seq, width] for the local physical experts; a token takes the replica its position names. `some`: choices that
    count."""
    batch, seq, choices = experts.shape
    device = h.device
    most = max(len(copies) for copies in replicas.values())
    table = torch.tensor([(replicas[e] * most)[:most] for e in range(len(replicas))], device=device)
    copies = torch.tensor([len(replicas[e]) for e in range(len(replicas))], device=device)
    b = torch.arange(batch, device=device)[:, None, None].expand(batch, seq, choices) + origin[0]
    s = torch.arange(seq, device=device)[None, :, None].expand(batch, seq, choices) + origin[1]
    c = torch.arange(choices, device=device).expand(batch, seq, choices)
    physical = table[experts, (b * 31 + s) % copies[experts]]
    chosen = (physical >= held.start) & (physical < held.stop)
    chosen = chosen if some is None else chosen & some
    data = h[:, :, None, :].expand(batch, seq, choices, h.shape[-1])[chosen]
    if weights is not None:
        data = data * weights[chosen][:, None]
    keys = torch.stack([b[chosen], s[chosen], c[chosen]], dim=1)
    return ordered(physical[chosen], keys, data, held)


def ordered(physical: Tensor, keys: Tensor, data: Tensor, held: range, *, added: bool = False) -> Ragged:
    """Rows sorted by expert and token; those of one token added up if they are `added`."""
    size = [int(n) + 1 for n in keys.amax(dim=0).tolist()] if len(keys) else [1, 1, 1]
    code = ((physical * size[0] + keys[:, 0]) * size[1] + keys[:, 1]) * size[2] + keys[:, 2]
    if added:
        code, inverse = torch.unique(code, return_inverse=True)
        data = torch.zeros((len(code), *data.shape[1:]), dtype=data.dtype, device=data.device).index_add_(
            0, inverse, data
        )
        rest, choice = code // size[2], code % size[2]
        rest, s = rest // size[1], rest % size[1]
        return Ragged(rest // size[0], torch.stack([rest % size[0], s, choice], dim=1), data, held)
    order = torch.argsort(code)
    return Ragged(physical[order], keys[order], data[order], held)


def combine(ragged: Ragged, tokens: tuple[int, ...], weights: Tensor | None, origin: tuple[int, int]) -> Tensor:
    """Sum of what came back, times the `weights` if given, on the tokens [batch, seq] that a rank owns."""
    batch, seq = tokens
    b, s, c = ragged.keys[:, 0] - origin[0], ragged.keys[:, 1] - origin[1], ragged.keys[:, 2]
    data = ragged.data if weights is None else ragged.data * weights[b, s, c][:, None]
    out = torch.zeros((batch * seq, data.shape[-1]), dtype=data.dtype, device=data.device)
    return out.index_add_(0, b * seq + s, data).reshape(batch, seq, -1)


def rows_of_each(ragged: Ragged) -> list[Tensor]:
    """The rows of each local expert."""
    counts = torch.bincount(ragged.physical - ragged.held.start, minlength=len(ragged.held))
    return list(torch.split(ragged.data, [int(n) for n in counts.tolist()]))
