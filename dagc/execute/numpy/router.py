"""How scores become choices of experts, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np

from ...base.frozen import record
from ..values import Floats, Ints
from .ops import sigmoid

Choice = tuple[Ints, Floats]
"""Expert and weight of every choice of a token, [.., choice] each."""


def taken_at_most(capacity: float, choices: int, experts: int) -> int:
    """Rows of an expert of so many choices."""
    return ceil(capacity * choices / experts - 1e-9)


SLOPES: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "sigmoid": lambda scores, p: p * (1.0 - p),
    "sqrtsoftplus": lambda scores, p: sigmoid(scores) / (2.0 * p),
}
"""Of functions of one score: what a probability changes by with it."""


@record
class Router:
    """How scores become choices. `bias` shifts the choice and not the weights. `chosen_by`: the largest are chosen of scores or of what these are made of. With `groups`, only the experts of the
    best `groups_limit` groups count, a group being as strong as its best expert or the sum of its two best. Where choices are skipped, those
    of less than `skip_below` of the token's largest weight have weight 0, whatever share of them that is."""

    top_k: int
    score: str = "softmax"
    normalize: bool = True
    groups: int = 1
    groups_limit: int = 1
    group_score: str = "best_two"
    scale: float = 1.0
    eps: float = 0.0
    jitter: float = 0.0
    skip: float = 0.0
    skip_below: float = 0.0
    capacity: float = 0.0
    empty: bool = False
    by_token: bool = False
    chosen_by: str = "scores"

    def __call__(self, scores: Floats, bias: Floats | None) -> Choice:
        if self.score == "sparsemixer":
            return self.sparsemixer(scores)
        p = self.probabilities(scores)
        wanted = scores if self.chosen_by == "logits" else p
        wanted = wanted if bias is None else wanted + bias
        chosen = np.argsort(-self.allowed(wanted), axis=-1, kind="stable")[..., : self.top_k]
        return self.weighed(p, chosen)

    def forced(self, scores: Floats, chosen: Ints) -> Choice:
        """The weights that choices made elsewhere have."""
        return self.weighed(self.probabilities(scores), chosen)

    def probabilities(self, scores: Floats) -> Floats:
        if self.score == "sigmoid":
            return sigmoid(scores)
        if self.score == "sqrtsoftplus":
            return np.sqrt(np.logaddexp(0.0, scores))
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(p / p.sum(axis=-1, keepdims=True))

    def weighed(self, p: Floats, chosen: Ints) -> Choice:
        weights = np.take_along_axis(p, chosen, axis=-1)
        if self.normalize:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + self.eps)
        return (chosen, self.thinned(weights * self.scale))

    def thinned(self, weights: Floats) -> Floats:
        if not self.skip:
            return weights
        return np.where(weights < self.skip_below * weights.max(axis=-1, keepdims=True), 0.0, weights)

    def capped(self, chosen: Ints, weights: Floats, groups: Ints, experts: int, empty: int = 0) -> Floats:
        """Where an expert has more tokens of a group than its capacity, the largest weights stay and the others are 0 (Megatron-LM's
        `topk_softmax_with_capacity`, whose groups are the tokens of a rank). `groups` [batch, seq]: a number for each; `empty`: of the experts
        those that do nothing, the last ones, which have choices of the mean and no capacity."""
        out = weights.copy()
        of_group = np.broadcast_to(groups[..., None], chosen.shape).ravel()
        for group in np.unique(groups):
            most = taken_at_most(self.capacity, int((groups == group).sum()) * self.top_k, experts)
            for expert in range(experts - empty):
                own = np.flatnonzero((of_group == group) & (chosen.ravel() == expert))
                out.flat[own[np.argsort(-weights.ravel()[own], kind="stable")][most:]] = 0.0
        return out

    def gradient(self, upstream: Floats, scores: Floats, chosen: Ints) -> Floats:
        """Of the scores, from that of the weights of the choices, which are themselves constant."""
        if self.score == "sparsemixer":
            return self.sparsemixer_gradient(upstream, scores, chosen)
        p = self.probabilities(scores)
        upstream = upstream * self.scale
        if self.normalize:
            taken = np.take_along_axis(p, chosen, axis=-1)
            total = taken.sum(axis=-1, keepdims=True) + self.eps
            upstream = (upstream - (upstream * taken).sum(axis=-1, keepdims=True) / total) / total
        of_p = np.zeros(scores.shape)
        np.put_along_axis(of_p, chosen, upstream, axis=-1)
        if self.score in SLOPES:
            return np.asarray(of_p * SLOPES[self.score](scores, p))
        return np.asarray(p * (of_p - (p * of_p).sum(axis=-1, keepdims=True)))

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

    def sparsemixer(self, scores: Floats) -> Choice:
        """One choice after another; its weight is its share among the scores that come near it (arXiv 2409.12136)."""
        left = scores.copy()
        chosen, weights = [], []
        for _ in range(self.top_k):
            share, index = self.shares(scores, left), left.argmax(axis=-1)[..., None]
            weights.append(np.take_along_axis(share, index, axis=-1))
            chosen.append(index)
            np.put_along_axis(left, index, -np.inf, axis=-1)
        return (np.concatenate(chosen, axis=-1), self.thinned(np.concatenate(weights, axis=-1)))

    def shares(self, scores: Floats, left: Floats) -> Floats:
        """Of the scores that are `left`, those near the best one."""
        best = left.max(axis=-1, keepdims=True)
        far = (best - scores) / np.maximum(np.abs(scores), best) > 2.0 * self.jitter
        share = np.exp(np.where(far, -np.inf, left) - best)
        return np.asarray(share / share.sum(axis=-1, keepdims=True))

    def sparsemixer_gradient(self, upstream: Floats, scores: Floats, chosen: Ints) -> Floats:
        """Which scores come near is constant, too."""
        left, out = scores.copy(), np.zeros(scores.shape)
        for place in range(self.top_k):
            share, index = self.shares(scores, left), chosen[..., place : place + 1]
            taken = np.take_along_axis(share, index, axis=-1) * upstream[..., place : place + 1]
            out -= share * taken
            np.put_along_axis(out, index, np.take_along_axis(out, index, axis=-1) + taken, axis=-1)
            np.put_along_axis(left, index, -np.inf, axis=-1)
        return out
