"""How scores become choices of experts, in torch."""

from __future__ import annotations

import math

import torch

from ...base.frozen import record
from ..numpy.router import Router as RouterRule
from ..numpy.router import taken_at_most
from .ops import Tensor


@record
class Router:
    """`dagc.execute.numpy.router.Router` on tensors: ties go to the lower index there and here."""

    rule: RouterRule

    def __call__(self, scores: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        chosen = self.choice(scores, bias)
        return chosen, self.weights(scores, chosen)

    def choice(self, scores: Tensor, bias: Tensor | None) -> Tensor:
        wanted = scores
        if self.rule.score != "sparsemixer":
            wanted = scores if self.rule.chosen_by == "logits" else self.probabilities(scores)
            wanted = self.allowed(wanted if bias is None else wanted + bias)
        return torch.argsort(-wanted, dim=-1, stable=True)[..., : self.rule.top_k]

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """Of choices, which are constant to autograd."""
        if self.rule.score == "sparsemixer":
            return self.thinned(self.sparsemixer(scores, chosen))
        weights = torch.gather(self.probabilities(scores), -1, chosen)
        if self.rule.normalize:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + self.rule.eps)
        return self.thinned(weights * self.rule.scale)

    def thinned(self, weights: Tensor) -> Tensor:
        if not self.rule.skip:
            return weights
        least = self.rule.skip_below * weights.amax(dim=-1, keepdim=True)
        return torch.where(weights < least, 0.0, weights)

    def probabilities(self, scores: Tensor) -> Tensor:
        if self.rule.score == "sqrtsoftplus":
            return torch.sqrt(torch.logaddexp(scores, torch.zeros_like(scores)))
        return torch.sigmoid(scores) if self.rule.score == "sigmoid" else torch.softmax(scores, dim=-1)

    def allowed(self, p: Tensor) -> Tensor:
        rule = self.rule
        if rule.groups <= 1:
            return p
        split = p.reshape(*p.shape[:-1], rule.groups, -1)
        best = torch.sort(split, dim=-1).values[..., -2 if rule.group_score == "best_two" else -1 :].sum(dim=-1)
        worst = torch.argsort(-best, dim=-1, stable=True)[..., rule.groups_limit :]
        out = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, worst, True)
        return torch.where(out.repeat_interleave(split.shape[-1], dim=-1), -math.inf, p)

    def sparsemixer(self, scores: Tensor, chosen: Tensor) -> Tensor:
        left, weights = scores, []
        for index in chosen.split(1, dim=-1):
            best = left.amax(dim=-1, keepdim=True)
            far = (best - scores) / torch.maximum(scores.abs(), best) > 2.0 * self.rule.jitter
            share = torch.exp(torch.where(far, -math.inf, left) - best)
            weights.append(torch.gather(share / share.sum(dim=-1, keepdim=True), -1, index))
            left = left.scatter(-1, index, -math.inf)
        return torch.cat(weights, dim=-1)


def capped(rule: RouterRule, chosen: Tensor, weights: Tensor, experts: int, empty: int = 0) -> Tensor:
    """Of the tokens of a rank: where an expert has more than its capacity, the largest weights stay and the others are 0. `empty`: of the
    experts the last ones, which have none."""
    most = taken_at_most(rule.capacity, chosen.numel(), experts)
    out, flat = weights.clone().reshape(-1), weights.reshape(-1)
    for expert in range(experts - empty):
        own = torch.nonzero(chosen.reshape(-1) == expert)[:, 0]
        if len(own) > most:
            order = torch.sort(flat[own], descending=True, stable=True).indices
            out[own[order[most:]]] = 0.0
    return out.reshape(weights.shape)
