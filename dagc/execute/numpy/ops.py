"""NumPy definitions of the ops, in float64, on arrays in the order of their named dims. One definition serves the whole
tensors of the model graph and the shards of a rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...base.arrays import NDArray
from ..values import Floats, Ints, Ragged

IN_ORDER = ["einsum_path", (0, 1)]
"""Two factors have one order, which NumPy would look for on every call."""
Dims = tuple[str, ...]


def contract(a: Floats, a_dims: Dims, b: Floats, b_dims: Dims, out: Dims) -> Floats:
    """Sum over every dim that is not in the result."""
    as_matrices = _matrices(a_dims, b_dims, out, a.shape, b.shape)
    if as_matrices is None:
        return np.asarray(np.einsum(equation(a_dims, b_dims, out), a, b, optimize=IN_ORDER))
    a_order, a_shape, b_order, b_shape, shape, order = as_matrices
    product = np.matmul(a.transpose(a_order).reshape(a_shape), b.transpose(b_order).reshape(b_shape))
    return np.asarray(product.reshape(shape).transpose(order))


def equation(a_dims: Dims, b_dims: Dims, out: Dims) -> str:
    """A product as `einsum` reads it, with a letter for each dim name."""
    names = dict.fromkeys((*a_dims, *b_dims, *out))
    at = dict(zip(names, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return ",".join("".join(at[d] for d in dims) for dims in (a_dims, b_dims)) + "->" + "".join(at[d] for d in out)


Order = tuple[int, ...]


@lru_cache(maxsize=4096)
def _matrices(
    a_dims: Dims, b_dims: Dims, out: Dims, a_shape: Order, b_shape: Order
) -> tuple[Order, Order, Order, Order, Order, Order] | None:
    """A contraction as a product of (stacks of) matrices: how to transpose and reshape both, and the result back. None where it is
    another sum. Runs contract the same shapes thousands of times."""
    if len(a_dims) != len(a_shape) or len(b_dims) != len(b_shape):
        return None  # NumPy says what is wrong
    both = [d for d in a_dims if d in b_dims]
    stack, summed = [d for d in both if d in out], [d for d in both if d not in out]
    rows, columns = [d for d in a_dims if d not in both], [d for d in b_dims if d not in both]
    sizes = {**dict(zip(a_dims, a_shape, strict=True)), **dict(zip(b_dims, b_shape, strict=True))}
    if not summed or set(out) != {*stack, *rows, *columns} or any(len(set(d)) < len(d) for d in (a_dims, b_dims)):
        return None
    if any(sizes[d] != n for d, n in zip(a_dims, a_shape, strict=True)):
        return None

    def prepared(dims: Dims, *groups: list[str]) -> tuple[Order, Order]:
        merged = [math.prod(sizes[d] for d in group) for group in groups]
        return tuple(dims.index(d) for group in groups for d in group), tuple(merged if stack else merged[1:])

    made = [*stack, *rows, *columns]
    left, right = prepared(a_dims, stack, rows, summed), prepared(b_dims, stack, summed, columns)
    return (*left, *right, tuple(sizes[d] for d in made), tuple(made.index(d) for d in out))


def aligned(x: NDArray[Any], dims: tuple[str, ...], out: tuple[str, ...]) -> NDArray[Any]:
    """Transpose and expand to broadcast against the result's dims."""
    order = [dims.index(d) for d in out if d in dims]
    shape = [x.shape[dims.index(d)] if d in dims else 1 for d in out]
    return x.transpose(order).reshape(shape)


def reduced(x: Floats, dims: tuple[str, ...], out: tuple[str, ...]) -> Floats:
    """Summed over the dims that the result lacks, in its order."""
    total = x.sum(axis=tuple(i for i, d in enumerate(dims) if d not in out))
    left = [d for d in dims if d in out]
    return np.asarray(total.transpose([left.index(d) for d in out]))


def row_sum(x: Floats) -> Floats:
    return np.asarray(x.sum(axis=-1))


def row_square_sum(x: Floats) -> Floats:
    return np.asarray((x * x).sum(axis=-1))


def rms_norm(x: Floats, squares: Floats, width: int, eps: float) -> Floats:
    """`squares`: their row sums over the whole `width`, of which x may be a part."""
    return _divided(x, squares / width, eps)


def layer_norm(x: Floats, squares: Floats, values: Floats, width: int, eps: float) -> Floats:
    """`squares`, `values`: their row sums over the whole `width`, of which x may be a part."""
    mean = values / width
    return _divided(x - mean[..., None], squares / width - mean * mean, eps)


def _divided(x: Floats, variance: Floats, eps: float) -> Floats:
    return np.asarray(x / np.sqrt(variance + eps)[..., None])


def balanced(scores: Floats, iterations: int, eps: float) -> list[tuple[Floats, Floats, int]]:
    """Sinkhorn-Knopp on the softmax of rows, [..., rows, columns]: of each sweep its result, what was divided by, and the axis that was summed.
    Columns and rows in turn, columns first and last."""
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    matrix, sweeps = np.asarray(grown / grown.sum(axis=-1, keepdims=True) + eps), []
    for axis in (-2, *(-1, -2) * (iterations - 1)):
        sums = matrix.sum(axis=axis, keepdims=True) + eps
        matrix = np.asarray(matrix / sums)
        sweeps.append((matrix, sums, axis))
    return sweeps


def sinkhorn(scores: Floats, iterations: int, eps: float) -> Floats:
    return balanced(scores, iterations, eps)[-1][0]


def sinkhorn_grad(upstream: Floats, scores: Floats, iterations: int, eps: float) -> Floats:
    """Back through the sweeps, the last one first: y = x / s gives (dy - sum(dy y)) / s."""
    found = upstream
    for matrix, sums, axis in reversed(balanced(scores, iterations, eps)):
        found = (found - (found * matrix).sum(axis=axis, keepdims=True)) / sums
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    share = grown / grown.sum(axis=-1, keepdims=True)
    return np.asarray(share * (found - (found * share).sum(axis=-1, keepdims=True)))


def sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def gelu(x: Floats) -> Floats:
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Floats) -> Floats:
    return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


def erf(x: Floats) -> Floats:
    return np.fromiter(map(math.erf, x.ravel()), dtype=np.float64, count=x.size).reshape(x.shape)


def temper(x: Floats, positions: Ints, axis: int, floor: float, scale: float, first: int) -> Floats:
    """Queries grow with the logarithm of their position, counted from `first` (Llama 4's attention temperature)."""
    shape = [1] * x.ndim
    shape[axis] = len(positions)
    return x * (np.log1p(np.floor((positions + first) / floor)) * scale + 1.0).reshape(shape)


Named = tuple[Floats, Dims]


class Seen(NamedTuple):
    """What queries see: keys, values, and which of them by `mask` [(batch,) seq, (heads,) along], where `along` counts keys."""

    keys: list[Named]
    value: Named
    mask: NDArray[np.bool_]
    mask_dims: Dims
    along: str = "context"


def attend(
    queries: list[Named], seen: Sequence[Seen], out: Dims, factor: float, sinks: Floats | None, cap: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """Attention over a piece of the context, and over entries of groups beside it: unnormalised output, row maxima and row sums. Scores
    of all pairs add up, times `factor`, and come near `cap` at most. `sinks`, shaped like the rows of `out`: a score of its own for nothing."""
    rows = out[:-1]
    tables = []
    for keys, _, mask, mask_dims, along in seen:
        pairs = zip(queries, keys, strict=True)
        parts = [contract(q, q_dims, k, k_dims, (*rows, along)) for (q, q_dims), (k, k_dims) in pairs]
        scores = capped(np.asarray(np.sum(parts, axis=0)) * factor, cap)
        tables.append(np.where(aligned(mask, mask_dims, (*rows, along)), scores, -np.inf))
    best = [table.max(axis=-1) for table in tables if table.shape[-1]]
    maxima = reduce(np.maximum, best if sinks is None else [*best, sinks])
    safe = np.where(np.isfinite(maxima), maxima, 0.0)
    sums, output = 0.0 if sinks is None else np.exp(sinks - safe), None
    for table, (_, value, _, _, along) in zip(tables, seen, strict=True):
        weights = np.exp(table - safe[..., None])
        sums = weights.sum(axis=-1) + sums
        own = contract(weights, (*rows, along), value[0], value[1], out)
        output = own if output is None else output + own
    assert output is not None
    return output, maxima, np.asarray(sums)


def capped(scores: Floats, cap: float) -> Floats:
    """Scores that come near a bound and do not pass it; 0: as they are (Gemma 2, arXiv 2408.00118, section 2)."""
    return np.asarray(cap * np.tanh(scores / cap)) if cap else scores


def visible(queries: Ints, context: Ints, causal: bool, window: float, chunk: float) -> NDArray[np.bool_]:
    """[queries, context]: may the query at a position look at the other one?"""
    distance = queries[:, None] - context[None, :]
    seen = distance < window
    if causal:
        seen &= distance >= 0
    if np.isfinite(chunk):
        seen &= queries[:, None] // chunk == context[None, :] // chunk
    return seen


def select(queries: Floats, keys: Floats, weights: Floats, seen: NDArray[np.bool_], top_k: int) -> Ints:
    """[batch, seq, top_k] indices into `keys` [batch, context, width], ascending: where the rectified scores of
    `queries` [batch, seq, heads, width], summed over heads with `weights`, are largest."""
    scores = np.maximum(np.einsum("bshd,btd->bsht", queries, keys), 0.0)
    total = np.where(seen[None], np.einsum("bsht,bsh->bst", scores, weights), -np.inf)
    return np.asarray(np.sort(np.argsort(-total, axis=-1, kind="stable")[..., :top_k], axis=-1))


def select_blocks(queries: Floats, keys: Floats, at: Ints, block: int, local: int, count: int) -> Ints:
    """[batch, seq, heads, count] indices into `keys` [batch, context, width], which are in order: for each head of `queries` [batch, seq, heads,
    width] the blocks with the largest score of a token that is seen, the last `local` up to the query's own (`at`: its position) among them. What a
    block lacks at the end of the context repeats the token with which the query's own begins."""
    batch, seq, heads, _ = queries.shape
    context = keys.shape[1]
    if count >= context:
        return np.broadcast_to(np.arange(context), (batch, seq, heads, context)).copy()
    scores = np.einsum("bshd,btd->bsht", queries, keys)
    seen = np.arange(context)[None, :] <= at[:, None]
    scores = np.where(seen[None, :, None, :], scores, -np.inf)
    blocks = -(-context // block)
    padded = np.full((batch, seq, heads, blocks * block), -np.inf)
    padded[..., :context] = scores
    best = padded.reshape(batch, seq, heads, blocks, block).max(axis=-1)
    own = at // block
    for k in range(local):
        best[:, np.arange(seq), :, np.maximum(own - k, 0)] = np.inf
    order = np.argsort(-best, axis=-1, kind="stable")[..., : count // block]
    first = own[None, :, None, None] * block
    order = np.where(np.isneginf(np.take_along_axis(best, order, axis=-1)), own[None, :, None, None], order)
    tokens = (order[..., None] * block + np.arange(block)).reshape(batch, seq, heads, -1)
    return np.asarray(np.sort(np.where(tokens < context, tokens, first), axis=-1))


def of_chosen(
    selected: Ints, dims: tuple[str, ...], seen: NDArray[np.bool_], context: Ints, along: str = "context"
) -> tuple[NDArray[np.bool_], tuple[str, ...], float]:
    """What queries see of what they chose: `selected` [batch, seq, (heads,) chosen] positions, `seen` [seq, context], or both of entries. The
    mask, its dims and the pairs of one head."""
    found = (selected[..., None] == context).any(axis=-2)
    heads = found.shape[2:-1]
    mask = found & seen.reshape(1, seen.shape[0], *(1 for _ in heads), seen.shape[1])
    return mask, (*dims[:-1], along), float(mask.sum()) / prod(heads)


def pool(x: Floats, gate: Floats, bias: Floats, before: int, held: Floats, overlaps: bool) -> tuple[Floats, Floats]:
    """The entries of the groups that new tokens are in, [batch, pooled, ..]: sums of contents `x` weighted by the softmax of `gate` + `bias`
    over the tokens of a group that are there. `x`, `gate` [batch, seq, (groups of an entry,) ..], `bias` [tokens of a group, ..]; where an
    entry `overlaps` it is of groups before, the last its own, each by its part of the contents. `before`: tokens before these. `held`
    [batch, 2, (groups,) tokens, ..]: contents and gates of the last groups; the result has the new ones."""
    tokens, batch, new = len(bias), x.shape[0], x.shape[1]
    if not overlaps:
        x, gate, bias, held = x[:, :, None], gate[:, :, None], bias[:, None], held[:, :, None, :, None]
    of = bias.shape[1]
    first, last = before // tokens, (before + new - 1) // tokens
    line = np.zeros((2, batch, last - first + of, tokens, *x.shape[2:]))
    if before:  # the last groups that are held end with the one of the last token before
        ended = (before - 1) // tokens
        kept = held[:, :, first - ended :] if first > ended else held
        line[:, :, : kept.shape[2]] = np.moveaxis(kept, 1, 0)
    flat = line.reshape(2, batch, -1, *x.shape[2:])
    at = before - (first - of + 1) * tokens
    flat[0, :, at : at + new], flat[1, :, at : at + new] = x, gate
    place = np.arange(flat.shape[2]) + (first - of + 1) * tokens
    there = ((place >= 0) & (place < before + new)).reshape(-1, tokens)
    spare = (1,) * (x.ndim - 3)
    entries = []
    for i in range(last - first + 1):
        own = line[:, :, i : i + of]  # [2, batch, group, token, part, ..]: of each group its own part
        parts = np.stack([own[:, :, k, :, k] for k in range(of)], axis=2)
        scores = parts[1] + np.moveaxis(bias, 1, 0)
        scores = np.where(there[i : i + of].reshape(1, of, tokens, *spare), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=(1, 2), keepdims=True))
        entries.append((parts[0] * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2)))
    state = np.moveaxis(line[:, :, -of:], 0, 1)
    return np.stack(entries, axis=1), state if overlaps else state[:, :, 0, :, 0]


def conv(x: Floats, taps: Floats, before: Floats) -> tuple[Floats, Floats]:
    """Each channel of `x` [batch, seq, ..] over its last inputs by `taps` [.., n]; those before the first are `before`
    [batch, n, ..]. The result, and the last n inputs."""
    count = taps.shape[-1]
    line = np.concatenate([before, x], axis=1)
    length = x.shape[1]
    out = sum(line[:, 1 + i : 1 + i + length] * taps[..., i] for i in range(count))
    return np.asarray(out), line[:, -count:]


def delta(
    q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats, state: Floats, correct: bool = True
) -> tuple[Floats, Floats]:
    """The gated delta rule (arXiv 2412.06464, section 3), token by token: a head's matrix [.., key, value] fades by
    exp(-decay), moves towards its key giving its value by `rate`, and is read by its query. Without `correct` the key's value is
    added to what it gave before, as in Mamba 2 (arXiv 2405.21060, section 3). All [batch, seq, .., width] or, of the rate,
    [batch, seq, ..]; the decay has either form, with the keys' width (arXiv 2510.26692, section 3). The result, and the matrices
    after the last token."""
    out = np.empty(v.shape)
    for t in range(v.shape[1]):
        state = state * faded(decay, t, v.ndim)
        key = np.broadcast_to(k[:, t], state.shape[:-1])
        known = np.einsum("...k,...kv->...v", key, state) if correct else 0.0
        error = (v[:, t] - known) * rate[:, t][..., None]
        state = state + key[..., None] * error[..., None, :]
        out[:, t] = np.einsum("...k,...kv->...v", np.broadcast_to(q[:, t], key.shape), state) / math.sqrt(key.shape[-1])
    return out, state


def faded(decay: Floats, t: int, rank: int) -> Floats:
    """What is left of a head's matrix [.., key, value] at a token, by `decay` of each head, or of each row. `rank`: of the values."""
    left = np.exp(-decay[:, t])[..., None]
    return left if decay.ndim == rank else left[..., None]


def dispatch(
    h: Floats,
    chosen: Ints,
    weights: Floats | None,
    origin: tuple[int, int],
    replicas: Mapping[int, list[int]],
    held: range,
    some: NDArray[np.bool_] | None = None,
) -> Ragged:
    """Rows of the tokens [batch, seq, width] for each physical expert in `held`, times the `weights` if given; only of `some` choices if given.
    A token takes the replica that its position names. `origin`: global batch and seq index of the first token."""
    count = np.array([len(replicas[e]) for e in range(len(replicas))])
    table = np.zeros((len(replicas), count.max()), dtype=np.int64)
    for expert, copies in replicas.items():
        table[expert, : len(copies)] = copies
    first = np.array([*origin, 0])
    keys = np.indices(chosen.shape).reshape(3, -1).T + first
    experts = chosen.ravel()
    physical = table[experts, (keys[:, 0] * 31 + keys[:, 1]) % count[experts]]
    order = np.argsort(physical, kind="stable")
    order = order[(physical[order] >= held.start) & (physical[order] < held.stop)]
    order = order if some is None else order[some.ravel()[order]]
    b, s, k = (keys[order] - first).T
    data = h[b, s] if weights is None else h[b, s] * weights[b, s, k][:, None]
    return Ragged(physical[order], keys[order], data, held)


def rows_of_each(ragged: Ragged) -> list[Floats]:
    """The rows of each local expert."""
    return np.split(ragged.data, np.searchsorted(ragged.physical, ragged.held[1:]))


def combine(ragged: Ragged, tokens: tuple[int, ...], weights: Floats | None, origin: tuple[int, int]) -> Floats:
    """Sum of what came back, times the `weights` if given, on the tokens [batch, seq] that a rank owns."""
    b, s, k = (ragged.keys - np.array([*origin, 0])).T
    data = ragged.data if weights is None else ragged.data * weights[b, s, k][:, None]
    out = np.zeros((*tokens, data.shape[-1]))
    np.add.at(out, (b, s), data)
    return out
