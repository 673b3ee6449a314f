"""Torch definitions of the ops: those of `dagc.execute.numpy.ops`, on the tensors of one rank. Routed tokens are flat, sorted by
physical expert and token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


def turned(x: Tensor, cos: Tensor, sin: Tensor, first: slice, second: slice) -> Tensor:
    """Pairs of the last dim, of a first and a second number each, rotated."""
    out = x.clone()
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


Named = tuple[Tensor, Dims]


class Seen(NamedTuple):
    """What queries see: keys, values, and which of them by `mask` [(batch,) seq, (heads,) along], where `along` counts keys."""

    keys: list[Named]
    value: Named
    mask: Tensor
    mask_dims: Dims
    along: str = "context"


def attend(
    queries: list[Named], seen: Sequence[Seen], out: Dims, factor: float, sinks: Tensor | None, cap: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over a piece of the context, and over entries of groups beside it: unnormalised output, row maxima and row sums. Scores
    of all pairs add up, times `factor`, and come near `cap` at most."""
    rows = out[:-1]
    tables, maxima = [], sinks
    for keys, _, mask, mask_dims, along in seen:
        pairs = zip(queries, keys, strict=True)
        scores = sum(contract(q, q_dims, k, k_dims, (*rows, along)) for (q, q_dims), (k, k_dims) in pairs)
        scores = cap * torch.tanh(scores * factor / cap) if cap else scores * factor
        tables.append(torch.where(aligned(mask, mask_dims, (*rows, along)), scores, -math.inf))
        best = tables[-1].amax(dim=-1)
        maxima = best if maxima is None else torch.maximum(best, maxima)
    assert maxima is not None
    safe = torch.where(torch.isfinite(maxima), maxima, torch.zeros_like(maxima))
    sums, output = None if sinks is None else torch.exp(sinks - safe), None
    for table, (_, value, _, _, along) in zip(tables, seen, strict=True):
        weights = torch.exp(table - safe[..., None])
        sums = weights.sum(dim=-1) if sums is None else weights.sum(dim=-1) + sums
        own = contract(weights, (*rows, along), value[0], value[1], out)
        output = own if output is None else output + own
    return output, maxima, sums


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


def of_chosen(
    selected: Tensor, dims: tuple[str, ...], seen: Tensor, context: Tensor, along: str = "context"
) -> tuple[Tensor, tuple[str, ...]]:
    """What queries see of what they chose: `selected` [batch, seq, (heads,) chosen] positions, `seen` [seq, context], or both of entries."""
    found = (selected[..., None] == context).any(dim=-2)
    return found & seen.reshape(1, seen.shape[0], *(1 for _ in found.shape[2:-1]), seen.shape[1]), (
        *dims[:-1],
        along,
    )


def pool(x: Tensor, gate: Tensor, bias: Tensor, before: int, held: Tensor, overlaps: bool) -> Tensor:
    """As `dagc.execute.numpy.ops.pool`: the entries of the groups that new tokens are in. What is held stays as it was before the pass."""
    tokens, batch, new = len(bias), x.shape[0], x.shape[1]
    x, gate = x.to(held.dtype), gate.to(held.dtype)
    if not overlaps:
        x, gate, bias, held = x[:, :, None], gate[:, :, None], bias[:, None], held[:, :, None, :, None]
    of = bias.shape[1]
    start, last = before // tokens - of + 1, (before + new - 1) // tokens
    rows = held.new_zeros((batch, 2, (last - start + 1) * tokens, *x.shape[2:]))
    if before:
        kept = held[:, :, max(0, before // tokens - (before - 1) // tokens) :].flatten(2, 3)
        rows[:, :, : kept.shape[2]] = kept
    at = before - start * tokens
    rows[:, 0, at : at + new], rows[:, 1, at : at + new] = x, gate
    place = torch.arange(rows.shape[2], device=x.device) + start * tokens
    there = ((place >= 0) & (place < before + new)).reshape(-1, tokens)
    groups = rows.unflatten(2, (-1, tokens))
    count = groups.shape[2] - of + 1
    parts = torch.stack([groups[:, :, k : k + count, :, k] for k in range(of)], dim=3)
    seen = torch.stack([there[k : k + count] for k in range(of)], dim=1)
    scores = parts[:, 1] + bias.transpose(0, 1).to(held.dtype)
    spare = (1,) * (x.ndim - 3)
    scores = torch.where(seen.reshape(1, *seen.shape, *spare), scores, -math.inf).flatten(2, 3)
    return (parts[:, 0].flatten(2, 3) * torch.softmax(scores, dim=2)).sum(dim=2).to(bias.dtype)


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
