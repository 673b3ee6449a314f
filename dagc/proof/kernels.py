"""NumPy definitions of the ops, in float64, on arrays in the order of their named dims. One definition serves the whole
tensors of the model graph and the shards of a rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ROPE_BASE = 10_000.0
EPSILON = 1e-6


@dataclass(frozen=True)
class Routed:
    """Choices of tokens [.., choice]: expert and weight."""

    experts: Ints
    weights: Floats


@dataclass(frozen=True)
class Ragged:
    """Routed tokens: physical expert -> (keys [n, 3]: batch, seq, choice; rows [n, width]), rows in key order."""

    rows: Mapping[int, tuple[Ints, Floats]]

    def map(self, change: object) -> Ragged:
        assert callable(change)
        return Ragged({p: (keys, change(p, data)) for p, (keys, data) in self.rows.items()})


@dataclass(frozen=True)
class Softmax:
    """Attention over a piece of the context: unnormalised output, row maxima and row sums."""

    output: Floats
    maxima: Floats
    sums: Floats


@dataclass(frozen=True)
class Best:
    """Largest value and its index."""

    value: Floats
    index: Ints


def letters(*dims: tuple[str, ...]) -> dict[str, str]:
    """A letter for each dim name."""
    names = list(dict.fromkeys(d for group in dims for d in group))
    return {name: "abcdefghijklmnopqrstuvwxyz"[i] for i, name in enumerate(names)}


def contract(a: Floats, a_dims: tuple[str, ...], b: Floats, b_dims: tuple[str, ...], out: tuple[str, ...]) -> Floats:
    """Sum over every dim that is not in the result."""
    at = letters(a_dims, b_dims, out)
    spec = ",".join("".join(at[d] for d in dims) for dims in (a_dims, b_dims)) + "->" + "".join(at[d] for d in out)
    return np.asarray(np.einsum(spec, a, b, optimize=True))


def aligned(x: Floats, dims: tuple[str, ...], out: tuple[str, ...]) -> Floats:
    """Transpose and expand to broadcast against the result's dims."""
    order = [dims.index(d) for d in out if d in dims]
    shape = [x.shape[dims.index(d)] if d in dims else 1 for d in out]
    return x.transpose(order).reshape(shape)


def row_sum(kind: str, x: Floats) -> Floats:
    return np.asarray((x * x if kind == "row_square_sum" else x).sum(axis=-1))


def norm(kind: str, x: Floats, gain: Floats, sums: list[Floats], width: int) -> Floats:
    """`sums`: row sums over the whole `width`, of which x may be a part: of squares, then of values (layer_norm)."""
    squares = sums[0] / width
    if kind == "layer_norm":
        mean = sums[1] / width
        x, squares = x - mean[..., None], squares - mean * mean
    return np.asarray(x / np.sqrt(squares + EPSILON)[..., None] * gain)


def activation(kind: str, x: Floats) -> Floats:
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "gelu":
        return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))
    gate = 1.0 / (1.0 + np.exp(-x))
    return np.asarray(gate if kind == "sigmoid" else x * gate)


def rope(x: Floats, positions: Ints, axis: int) -> Floats:
    """Rotate the two halves of the last dim by position (the half-split form)."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * ROPE_BASE ** (-np.arange(half) / half)
    shape = [1] * x.ndim
    shape[axis], shape[-1] = len(positions), half
    cos, sin = np.cos(angle).reshape(shape), np.sin(angle).reshape(shape)
    a, b = x[..., :half], x[..., half : 2 * half]
    rest = x[..., 2 * half :]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos, rest], axis=-1)


def attend(
    queries: list[tuple[Floats, tuple[str, ...]]],
    keys: list[tuple[Floats, tuple[str, ...]]],
    value: tuple[Floats, tuple[str, ...]],
    out: tuple[str, ...],
    at: tuple[Ints, Ints],
    causal: bool,
    width: float | None,
) -> Softmax:
    """Scores of all pairs add up, over the root of `width` (default: the summed width of the queries). `at`: positions of the queries and of the context."""
    rows = out[:-1]
    pairs = zip(queries, keys, strict=True)
    parts = [contract(q, q_dims, k, k_dims, (*rows, "context")) for (q, q_dims), (k, k_dims) in pairs]
    scores = np.asarray(np.sum(parts, axis=0)) / np.sqrt(width or sum(q.shape[-1] for q, _ in queries))
    if causal:
        shape = [1] * scores.ndim
        shape[rows.index("seq")], shape[-1] = len(at[0]), len(at[1])
        scores = np.where((at[1][None, :] <= at[0][:, None]).reshape(shape), scores, -np.inf)
    maxima = scores.max(axis=-1)
    safe = np.where(np.isfinite(maxima), maxima, 0.0)
    weights = np.exp(scores - safe[..., None])
    output = contract(weights, (*rows, "context"), value[0], value[1], out)
    return Softmax(output, maxima, weights.sum(axis=-1))


def normalised(part: Softmax) -> Floats:
    return np.asarray(part.output / part.sums[..., None])


def route(scores: Floats, top_k: int, score: str, normalize: bool, groups: int, limit: int) -> Routed:
    """Top-k of softmax or sigmoid scores; with groups, only experts of the best `limit` groups (sum of their two best)."""
    if score == "sigmoid":
        p = 1.0 / (1.0 + np.exp(-scores))
    else:
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p = p / p.sum(axis=-1, keepdims=True)
    allowed = p
    if groups > 1:
        split = p.reshape(*p.shape[:-1], groups, -1)
        strength = np.sort(split, axis=-1)[..., -2:].sum(axis=-1)
        worst = np.argsort(strength, axis=-1)[..., : groups - limit]
        mask = np.zeros(strength.shape, dtype=bool)
        np.put_along_axis(mask, worst, True, axis=-1)
        allowed = np.where(np.repeat(mask, split.shape[-1], axis=-1), -1.0, p)
    chosen = np.argsort(-allowed, axis=-1, kind="stable")[..., :top_k]
    weights = np.take_along_axis(p, chosen, axis=-1)
    if normalize:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return Routed(chosen, weights)


def dispatch(
    h: Floats, routed: Routed, origin: tuple[int, int], replicas: Mapping[int, list[int]], held: set[int]
) -> Ragged:
    """Rows of the tokens [batch, seq, width] for each physical expert in `held`. A token takes the replica that its
    position names. `origin`: global batch and seq index of the first token."""
    rows: dict[int, tuple[list[tuple[int, int, int]], list[Floats]]] = {p: ([], []) for p in sorted(held)}
    for b, s, k in np.ndindex(routed.experts.shape):
        copies = replicas[int(routed.experts[b, s, k])]
        key = (origin[0] + b, origin[1] + s, k)
        physical = copies[(key[0] * 31 + key[1]) % len(copies)]
        if physical in rows:
            rows[physical][0].append(key)
            rows[physical][1].append(h[b, s])
    width = h.shape[-1]
    return Ragged(
        {
            p: (np.asarray(keys, dtype=np.int64).reshape(-1, 3), np.asarray(data).reshape(-1, width))
            for p, (keys, data) in rows.items()
        }
    )


def combine(ragged: Ragged, routed: Routed, origin: tuple[int, int]) -> Floats:
    """Weighted sum of what came back, on the tokens that a rank owns."""
    width = next(data.shape[-1] for _, data in ragged.rows.values())
    out = np.zeros((*routed.experts.shape[:2], width))
    for keys, data in ragged.rows.values():
        for (b, s, k), row in zip(keys.tolist(), data, strict=True):
            out[b - origin[0], s - origin[1]] += routed.weights[b - origin[0], s - origin[1], k] * row
    return out
