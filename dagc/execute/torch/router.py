"""How scores become choices of experts, in torch."""

from __future__ import annotations

import math

import torch

from ...base.frozen import record
from ..numpy.router import Router as RouterRule
from .ops import Tensor


@record
class Router:
    """`dagc.execute.numpy.router.Router` on tensors: ties go to the lower index there and here."""

    rule: RouterRule

    def __call__(self, scores: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.rule.score == "sparsemixer":
            return self.sparsemixer(scores)
        p = torch.sigmoid(scores) if self.rule.score == "sigmoid" else torch.softmax(scores, dim=-1)
        wanted = self.allowed(p if bias is None else p + bias)
        chosen = torch.argsort(-wanted, dim=-1, stable=True)[..., : self.rule.top_k]
        weights = torch.gather(p, -1, chosen)
        if self.rule.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return (chosen, weights * self.rule.scale)

    def allowed(self, p: Tensor) -> Tensor:
        rule = self.rule
        if rule.groups <= 1:
            return p
        split = p.reshape(*p.shape[:-1], rule.groups, -1)
        best = torch.sort(split, dim=-1).values[..., -2 if rule.group_score == "best_two" else -1 :].sum(dim=-1)
        worst = torch.argsort(-best, dim=-1, stable=True)[..., rule.groups_limit :]
        out = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, worst, True)
        return torch.where(out.repeat_interleave(split.shape[-1], dim=-1), -math.inf, p)

    def sparsemixer(self, scores: Tensor) -> tuple[Tensor, Tensor]:
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
        return (torch.cat(chosen, dim=-1), torch.cat(weights, dim=-1))
