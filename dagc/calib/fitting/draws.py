"""Token counts of experts as the measured MoE benchmark drew them: balanced, or a power law.

The tables name the law (`balanced`, `power_law_1.2`), not the draw. The sampling law is aiconfigurator's
(ai-dynamo/aiconfigurator, MoE collector); each row is the mean of five draws, of the busiest rank of a group.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
DRAWS = 5


@cache
def busiest_rank(law: str, tokens: int, experts: int, top_k: int, ranks: int) -> Counts:
    """Rows of each local expert of the timed rank [draws, experts per rank]."""
    if law == "balanced":
        return np.asarray(_balanced(tokens, experts, top_k).reshape(ranks, -1)[:1])
    alpha = float(law.removeprefix("power_law_"))
    rng = np.random.default_rng([tokens, experts, top_k, ranks])
    drawn = [_power_law(rng, alpha, tokens, experts, top_k).reshape(ranks, -1) for _ in range(DRAWS)]
    return np.array([counts[np.argmax(counts.sum(axis=1))] for counts in drawn])


def _balanced(tokens: int, experts: int, top_k: int) -> Counts:
    """Token t picks experts t, t + stride, ...; few tokens are spread over the stride."""
    stride = -(-experts // top_k)
    first = np.arange(tokens) if tokens >= stride else np.arange(tokens) * stride // tokens
    picked = (first[:, None] + np.arange(top_k) * stride) % experts
    return np.asarray(np.bincount(picked.ravel(), minlength=experts))


def _power_law(rng: np.random.Generator, alpha: float, tokens: int, experts: int, top_k: int) -> Counts:
    """Counts in proportion to draws of p(x) ~ x^-alpha, rounded to add up; no expert above one row per token."""
    total = tokens * top_k
    least, most = (1.0, tokens * 0.8) if total > experts else (0.01, 2.0)
    e = 1 - alpha
    x = ((most**e - least**e) * rng.random(experts) + least**e) ** (1 / e)
    counts = np.round(x / x.sum() * total).astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    missing = total - int(counts.sum())
    step = 0
    while missing:
        one = order[step % experts] if missing > 0 else order[experts - 1 - step % experts]
        if missing > 0 or counts[one] > 0:
            counts[one] += np.sign(missing)
            missing -= int(np.sign(missing))
        step += 1
    while (counts > tokens).any():
        excess = int(np.maximum(counts - tokens, 0).sum())
        counts = np.minimum(counts, tokens)
        free = np.flatnonzero(counts < tokens)
        free = free[np.argsort(-counts[free], kind="stable")]
        add = np.floor(excess * (counts[free] + 1e-9) / (counts[free] + 1e-9).sum()).astype(np.int64)
        add[: excess - int(add.sum())] += 1
        counts[free] += add
    return np.asarray(counts)
