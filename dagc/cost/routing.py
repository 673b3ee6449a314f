"""Routing of tokens to experts: one distribution drives the load of every rank and the experts that are read."""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..spec.workload import Routing

Floats = NDArray[np.float64]
SHUFFLE_SEED = 20


def expert_probabilities(
    routing: Routing, experts: int, top_k: int, *, tokens: float = 4096.0, ranks: int = 1
) -> Floats:
    """Chance that a token picks each expert; adds up to top_k, none above 1.

    p [experts]. zipf(s): weights rank^-s, capped; shuffled with a fixed seed, since popularity has nothing to do
    with numbering. (The capped power law is a model of skew, not a measurement.) power_law(a): see `power_law`; it
    depends on the `tokens` that are routed together and on the `ranks` that have the experts. loads: all layers together.
    """
    if routing.kind == "power_law":
        return power_law(routing.s, experts, top_k, max(1, round(tokens)), ranks)
    if routing.kind in ("histogram", "loads"):
        return cap(np.asarray(routing.mean.histogram, dtype=float), top_k)
    if routing.kind == "uniform" or routing.s == 0.0:
        return np.full(experts, top_k / experts)
    weights = np.arange(1, experts + 1, dtype=float) ** -routing.s
    return np.asarray(np.random.default_rng(SHUFFLE_SEED).permutation(cap(weights, top_k)))


DRAWS = 5


def power_law(alpha: float, experts: int, top_k: int, tokens: int, ranks: int) -> Floats:
    """Expert loads in proportion to draws of p(x) ~ x^-alpha, the law of aiconfigurator's MoE benchmarks
    (ai-dynamo/aiconfigurator): x from 1 to 0.8 tokens, or from 0.01 to 2 where there are fewer choices than experts.

    Mean of five draws with a fixed seed: ranks ordered by load and experts within them before they are averaged, so
    that the busiest rank is the mean busiest one.
    """
    rng = np.random.default_rng([SHUFFLE_SEED, experts, top_k, ranks])
    least, most = (1.0, max(1.0 + 1e-9, tokens * 0.8)) if tokens * top_k > experts else (0.01, 2.0)
    e = 1.0 - alpha
    u = rng.random((DRAWS, experts))
    x = least * (most / least) ** u if abs(e) < 1e-9 else ((most**e - least**e) * u + least**e) ** (1.0 / e)
    loads = np.array([cap(draw, top_k) for draw in x]).reshape(DRAWS, ranks, -1)
    order = np.argsort(-loads.sum(axis=2), axis=1, kind="stable")
    loads = -np.sort(-np.take_along_axis(loads, order[:, :, None], axis=1), axis=2)
    return np.asarray(loads.mean(axis=0).ravel())


def cap(weights: Floats, total: float) -> Floats:
    """Scale weights to add up to `total` with none above 1: what is cut off goes to the others in proportion, or evenly
    where all of them have weight 0."""
    full = np.zeros(weights.shape, dtype=bool)
    while True:
        left = total - full.sum()
        others = weights[~full]
        share = np.ones(weights.shape)
        if others.size:
            largest = float(others.max())
            scaled = others / largest if largest > 0 else np.ones(others.shape)
            share[~full] = scaled * (left / scaled.sum())
        over = (share > 1.0) & ~full
        if not over.any():
            return np.asarray(share)
        full |= over


def cap_each(weights: Floats, total: float) -> Floats:
    """`cap` of the last axis, [..., experts]."""
    rows = weights.reshape(-1, weights.shape[-1])
    largest = rows.max(axis=1, keepdims=True)
    found = np.divide(rows, largest, out=np.ones_like(rows), where=largest > 0)
    found *= total / found.sum(axis=1, keepdims=True)
    for over in np.flatnonzero((found > 1.0).any(axis=1)).tolist():
        found[over] = cap(rows[over], total)
    return np.asarray(found.reshape(weights.shape))


def copies_in(slots: NDArray[np.int64], experts: int) -> NDArray[np.int64]:
    """Copies of each expert [..., experts] in slots [..., ranks, slots]."""
    lead = slots.shape[:-2]
    flat = slots.reshape(-1, slots.shape[-2] * slots.shape[-1])
    numbered = flat + experts * np.arange(len(flat))[:, None]
    return np.bincount(numbered.ravel(), minlength=len(flat) * experts).reshape(*lead, experts)


def in_slots(values: Floats, slots: NDArray[np.int64]) -> Floats:
    """Values of experts [..., experts] of those in slots [..., ranks, slots]."""
    if slots.ndim == 2:
        return np.asarray(values[slots])
    return np.take_along_axis(values, slots.reshape(*slots.shape[:-2], -1), axis=-1).reshape(slots.shape)


def distinct_experts(p: Floats, slots: NDArray[np.int64], tokens: float) -> Floats:
    """Expected slots of each rank [..., ranks] that a batch of `tokens` tokens hits: sum of 1 - (1 - p/copies)^tokens
    (inference-sim/inference-sim, pull request 790). `p` [..., experts], `slots` [..., ranks, slots]."""
    if tokens == 0:
        return np.zeros(slots.shape[:-1])  # 0 x log(0) has no value
    copies = copies_in(slots, p.shape[-1])
    each = np.minimum(in_slots(p / np.maximum(copies, 1), slots), 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(tokens * np.log1p(-each)).sum(axis=-1))


def imbalance(load: Floats) -> float:
    """Load of the fullest rank over the mean (`lam`; its least value is 1)."""
    return float(load.max() / load.mean())
