"""NumPy definitions of the ops, in float64, on arrays in the order of their named dims. One definition serves the whole
tensors of the model graph and the shards of a rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.ops.attributes import Attrs, ClampAttrs, ScaleAttrs, ShiftAttrs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Routed:
    """Choices of tokens [.., choice]: expert and weight."""

    experts: Ints
    weights: Floats


@dataclass(frozen=True)
class Ragged:
    """Routed tokens: physical expert -> (keys [n, 3]: batch, seq, choice; rows [n, ..]), rows in key order."""

    rows: Mapping[int, tuple[Ints, Floats]]

    @classmethod
    def sorted(cls, held: Iterable[int], physical: Ints, keys: Ints, data: Floats) -> Ragged:
        """The rows of the experts `held`, of rows in the order of (physical expert, key)."""
        edges = {p: np.searchsorted(physical, [p, p + 1]) for p in held}
        return cls({p: (keys[first:last], data[first:last]) for p, (first, last) in edges.items()})

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


def finite(value: object) -> bool:
    """No infinity and no NaN in a value (a row of a split softmax that saw nothing has maximum -inf)."""
    if isinstance(value, Softmax):
        return bool(np.isfinite(value.output).all() and np.isfinite(value.sums).all())
    if isinstance(value, Ragged):
        return all(bool(np.isfinite(data).all()) for _, data in value.rows.values())
    if isinstance(value, Routed):
        return bool(np.isfinite(value.weights).all())
    return not isinstance(value, np.ndarray) or bool(np.isfinite(value).all())


def letters(*dims: tuple[str, ...]) -> dict[str, str]:
    """A letter for each dim name."""
    names = list(dict.fromkeys(d for group in dims for d in group))
    return {name: "abcdefghijklmnopqrstuvwxyz"[i] for i, name in enumerate(names)}


def contract(a: Floats, a_dims: tuple[str, ...], b: Floats, b_dims: tuple[str, ...], out: tuple[str, ...]) -> Floats:
    """Sum over every dim that is not in the result."""
    at = letters(a_dims, b_dims, out)
    spec = ",".join("".join(at[d] for d in dims) for dims in (a_dims, b_dims)) + "->" + "".join(at[d] for d in out)
    return np.asarray(np.einsum(spec, a, b, optimize=True))


def aligned(x: NDArray[Any], dims: tuple[str, ...], out: tuple[str, ...]) -> NDArray[Any]:
    """Transpose and expand to broadcast against the result's dims."""
    order = [dims.index(d) for d in out if d in dims]
    shape = [x.shape[dims.index(d)] if d in dims else 1 for d in out]
    return x.transpose(order).reshape(shape)


def row_sum(kind: str, x: Floats) -> Floats:
    return np.asarray((x * x if kind == "row_square_sum" else x).sum(axis=-1))


def norm(kind: str, x: Floats, gain: Floats | None, sums: list[Floats], width: int, eps: float) -> Floats:
    """`sums`: row sums over the whole `width`, of which x may be a part: of squares, then of values (layer_norm)."""
    squares = sums[0] / width
    if kind == "layer_norm":
        mean = sums[1] / width
        x, squares = x - mean[..., None], squares - mean * mean
    normed = np.asarray(x / np.sqrt(squares + eps)[..., None])
    return normed if gain is None else normed * gain


def activation(kind: str, x: Floats) -> Floats:
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "tanh":
        return np.tanh(x)
    if kind == "exp":
        return np.exp(x)
    if kind == "softplus":
        return np.logaddexp(0.0, x)
    if kind == "gelu":
        return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))
    if kind == "gelu_tanh":
        return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))
    if kind not in ("sigmoid", "silu"):
        raise ValueError(f"no activation `{kind}`")
    gate = 1.0 / (1.0 + np.exp(-x))
    return np.asarray(gate if kind == "sigmoid" else x * gate)


def _erf(x: Floats) -> Floats:
    return np.fromiter(map(math.erf, x.ravel()), dtype=np.float64, count=x.size).reshape(x.shape)


def elementwise(kind: str, x: Floats, attrs: Attrs) -> Floats:
    """Ops on one tensor, element by element."""
    if isinstance(attrs, ScaleAttrs):
        return x * attrs.factor
    if isinstance(attrs, ShiftAttrs):
        return x + attrs.by
    if isinstance(attrs, ClampAttrs):
        return np.clip(x, attrs.low, attrs.high)
    if kind == "rsqrt":
        return np.asarray(1.0 / np.sqrt(x))
    return activation(kind, x)


def temper(x: Floats, positions: Ints, axis: int, floor: float, scale: float) -> Floats:
    """Queries grow with the logarithm of their position (Llama 4's attention temperature)."""
    shape = [1] * x.ndim
    shape[axis] = len(positions)
    return x * (np.log1p(np.floor((positions + 1) / floor)) * scale + 1.0).reshape(shape)


def attend(
    queries: list[tuple[Floats, tuple[str, ...]]],
    keys: list[tuple[Floats, tuple[str, ...]]],
    value: tuple[Floats, tuple[str, ...]],
    out: tuple[str, ...],
    seen: NDArray[np.bool_],
    seen_dims: tuple[str, ...],
    factor: float,
    sinks: Floats | None,
) -> Softmax:
    """Scores of all pairs add up, times `factor`. `seen` [(batch,) seq, context]: which positions a query may look at.
    `sinks`, shaped like the rows of `out`: a score of its own for nothing."""
    rows = out[:-1]
    pairs = zip(queries, keys, strict=True)
    parts = [contract(q, q_dims, k, k_dims, (*rows, "context")) for (q, q_dims), (k, k_dims) in pairs]
    scores = np.asarray(np.sum(parts, axis=0)) * factor
    scores = np.where(aligned(seen, seen_dims, (*rows, "context")), scores, -np.inf)
    maxima = scores.max(axis=-1) if sinks is None else np.maximum(scores.max(axis=-1), sinks)
    safe = np.where(np.isfinite(maxima), maxima, 0.0)
    weights = np.exp(scores - safe[..., None])
    sums = weights.sum(axis=-1) + (0.0 if sinks is None else np.exp(sinks - safe))
    return Softmax(contract(weights, (*rows, "context"), value[0], value[1], out), maxima, sums)


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


def conv(x: Floats, taps: Floats, before: Floats) -> tuple[Floats, Floats]:
    """Each channel of `x` [batch, seq, ..] over its last inputs by `taps` [.., n]; those before the first are `before`
    [batch, n, ..]. The result, and the last n inputs."""
    count = taps.shape[-1]
    line = np.concatenate([before, x], axis=1)
    length = x.shape[1]
    out = sum(line[:, 1 + i : 1 + i + length] * taps[..., i] for i in range(count))
    return np.asarray(out), line[:, -count:]


def delta(q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats, state: Floats) -> tuple[Floats, Floats]:
    """The gated delta rule (arXiv 2412.06464, section 3), token by token: a head's matrix [.., key, value] fades by
    exp(-decay), moves towards its key giving its value by `rate`, and is read by its query. All [batch, seq, .., width]
    or, of decay and rate, [batch, seq, ..]. The result, and the matrices after the last token."""
    out = np.empty(v.shape)
    for t in range(v.shape[1]):
        state = state * np.exp(-decay[:, t])[..., None, None]
        key = np.broadcast_to(k[:, t], state.shape[:-1])
        error = (v[:, t] - np.einsum("...k,...kv->...v", key, state)) * rate[:, t][..., None]
        state = state + key[..., None] * error[..., None, :]
        out[:, t] = np.einsum("...k,...kv->...v", np.broadcast_to(q[:, t], key.shape), state) / math.sqrt(key.shape[-1])
    return out, state


def normalised(part: Softmax) -> Floats:
    return np.asarray(part.output / part.sums[..., None])


@dataclass(frozen=True, slots=True)
class Router:
    """How scores become choices. `bias` shifts the choice and not the weights. With `groups`, only the experts of the
    best `groups_limit` groups count, a group being as strong as its best expert or the sum of its two best."""

    top_k: int
    score: str = "softmax"
    normalize: bool = True
    groups: int = 1
    groups_limit: int = 1
    group_score: str = "best_two"
    scale: float = 1.0
    jitter: float = 0.0

    def __call__(self, scores: Floats, bias: Floats | None) -> Routed:
        if self.score == "sparsemixer":
            return self.sparsemixer(scores)
        p = self.probabilities(scores)
        chosen = np.argsort(-self.allowed(p if bias is None else p + bias), axis=-1, kind="stable")[..., : self.top_k]
        return self.weighed(p, chosen)

    def forced(self, scores: Floats, chosen: Ints) -> Routed:
        """The weights that choices made elsewhere have."""
        return self.weighed(self.probabilities(scores), chosen)

    def probabilities(self, scores: Floats) -> Floats:
        if self.score == "sigmoid":
            return activation("sigmoid", scores)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(p / p.sum(axis=-1, keepdims=True))

    def weighed(self, p: Floats, chosen: Ints) -> Routed:
        weights = np.take_along_axis(p, chosen, axis=-1)
        if self.normalize:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return Routed(chosen, weights * self.scale)

    def allowed(self, p: Floats) -> Floats:
        """The scores that choices are made by: -inf in groups that are not among the best."""
        if self.groups <= 1:
            return p
        split = p.reshape(*p.shape[:-1], self.groups, -1)
        best = np.sort(split, axis=-1)[..., -2 if self.group_score == "best_two" else -1 :]
        worst = np.argsort(-best.sum(axis=-1), axis=-1, kind="stable")[..., self.groups_limit :]
        mask = np.zeros(split.shape[:-1], dtype=bool)
        np.put_along_axis(mask, worst, True, axis=-1)
        return np.where(np.repeat(mask, split.shape[-1], axis=-1), -np.inf, p)

    def sparsemixer(self, scores: Floats) -> Routed:
        """One choice after another; its weight is its share among the scores that come near it (arXiv 2409.12136)."""
        left = scores.copy()
        chosen, weights = [], []
        for _ in range(self.top_k):
            best = left.max(axis=-1, keepdims=True)
            far = (best - scores) / np.maximum(np.abs(scores), best) > 2.0 * self.jitter
            share = np.exp(np.where(far, -np.inf, left) - best)
            index = left.argmax(axis=-1)[..., None]
            weights.append(np.take_along_axis(share / share.sum(axis=-1, keepdims=True), index, axis=-1))
            chosen.append(index)
            np.put_along_axis(left, index, -np.inf, axis=-1)
        return Routed(np.concatenate(chosen, axis=-1), np.concatenate(weights, axis=-1))


def dispatch(
    h: Floats,
    routed: Routed,
    origin: tuple[int, int],
    replicas: Mapping[int, list[int]],
    held: set[int],
    weighted: bool,
) -> Ragged:
    """Rows of the tokens [batch, seq, width] for each physical expert in `held`, times their weights if `weighted`.
    A token takes the replica that its position names. `origin`: global batch and seq index of the first token."""
    count = np.array([len(replicas[e]) for e in range(len(replicas))])
    table = np.zeros((len(replicas), count.max()), dtype=np.int64)
    for expert, copies in replicas.items():
        table[expert, : len(copies)] = copies
    first = np.array([*origin, 0])
    keys = np.indices(routed.experts.shape).reshape(3, -1).T + first
    chosen = routed.experts.ravel()
    physical = table[chosen, (keys[:, 0] * 31 + keys[:, 1]) % count[chosen]]
    order = np.argsort(physical, kind="stable")
    order = order[np.isin(physical[order], list(held))]
    b, s, k = (keys[order] - first).T
    data = h[b, s] * routed.weights[b, s, k][:, None] if weighted else h[b, s]
    return Ragged.sorted(sorted(held), physical[order], keys[order], data)


def combine(ragged: Ragged, routed: Routed, origin: tuple[int, int], weighted: bool) -> Floats:
    """Sum of what came back, weighted or plain, on the tokens that a rank owns."""
    shape = routed.experts.shape
    width = next(data.shape[-1] for _, data in ragged.rows.values())
    out = np.zeros((*shape[:2], width))
    for keys, data in ragged.rows.values():
        b, s, k = (keys - np.array([*origin, 0])).T
        np.add.at(out, (b, s), data * routed.weights[b, s, k][:, None] if weighted else data)
    return out
