"""The expert loads of a reference's benchmark, as a `routing` of the language.

A reference states a sampling law of tokens per expert; the language has zipf(s). What the busiest rank takes over the
mean is matched: it decides the time of an expert layer on several ranks.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from dagc.calib.fitting.draws import busiest_rank
from dagc.cost.expert_load import rank_work
from dagc.spec.workload import Routing

GRID = tuple(round(0.05 * i, 2) for i in range(31))
SEEDS = 8
"""Token counts near the given one, so that one lucky draw does not decide."""


@cache
def routing(law: str, tokens: int, experts: int, top_k: int, ranks: int) -> str:
    """zipf(s) with the law's mean busiest rank; uniform on one rank, where the language places no skew of time."""
    if law == "balanced" or ranks == 1 or tokens * top_k <= experts:
        return "uniform"
    # Skew grows slowly with the tokens: nearby counts replace one another, and points share an estimate's model.
    base = 2 ** round(float(np.log2(tokens)))
    loads = [
        float(busiest_rank(law, max(1, base + i), experts, top_k, ranks).rows.sum(axis=-1).mean()) / (base + i)
        for i in range(SEEDS)
    ]
    target = float(np.mean(loads)) * ranks / top_k
    found = min(GRID, key=lambda s: abs(_busiest(s, base, experts, top_k, ranks) - target))
    return f"zipf({found})" if found else "uniform"


@cache
def _busiest(s: float, tokens: int, experts: int, top_k: int, ranks: int) -> float:
    """With the chance of each step in it, which the law's own draws have too."""
    return float(rank_work(Routing("zipf", s), experts, top_k, ranks, 0, tokens).relative.max())
