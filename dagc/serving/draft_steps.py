"""Speculative decoding: how many steps a sequence takes when a step brings more than one token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from random import Random

from ..base.draft_trees import spread

PARTS = 32
"""Tokens per step are rounded to a fraction with at most this denominator, so that contexts stay exact."""


def exact_tokens(tokens_per_step: float) -> Fraction:
    """Mean tokens of a step as a fraction. Of a number >= 1 it is >= 1."""
    return Fraction(tokens_per_step).limit_denominator(PARTS)


class DraftSteps:
    """Steps of decoding per request. Without a seed: `tokens / tokens_per_step`, rounded up. With one they are drawn: each draft is right
    with the chance at which a step brings `tokens_per_step` of `most` tokens on average, and the steps of many
    tokens are near normal (renewals: mean `tokens / m`, variance `tokens v / m^3`, of a step's mean m and variance v). `most`: tokens of a
    sequence that a step checks; `reached`: chance that at least so many drafted ones are accepted, which a tree of more tokens bounds."""

    def __init__(self, tokens_per_step: float, most: int, seed: int | None, reached: Sequence[float] = ()) -> None:
        self.mean = exact_tokens(tokens_per_step)
        self.most = max(most, math.ceil(self.mean))
        self.deepest = max(1 + len(reached), math.ceil(self.mean)) if reached else self.most
        self.spread = 0.0
        if seed is not None and 1 < self.mean < self.deepest:
            self.random = Random(seed)
            own = spread(reached) if reached else _variance(float(self.mean), self.most)
            self.spread = math.sqrt(max(own, 0.0) / float(self.mean) ** 3)

    def of(self, tokens: int) -> int:
        """Steps that bring `tokens` tokens, of the next request."""
        if self.mean == 1 or tokens <= 0:
            return max(tokens, 0)
        if not self.spread:
            return math.ceil(tokens / self.mean)
        drawn = round(tokens / float(self.mean) + 0.5 + self.spread * math.sqrt(tokens) * self.random.gauss(0.0, 1.0))
        return min(max(drawn, -(-tokens // self.deepest)), tokens)


def _variance(mean: float, most: int) -> float:
    """Variance of the tokens of a step: 1 + drafts right before the first wrong one, of `most - 1`."""
    low, high = 0.0, 1.0
    for _ in range(60):
        right = (low + high) / 2
        if sum(right**i for i in range(most)) < mean:
            low = right
        else:
            high = right
    right = (low + high) / 2
    # P(tokens > i) = right^i, so E[tokens^2] = sum of (2 i + 1) right^i
    return sum((2 * i + 1) * right**i for i in range(most)) - mean * mean
