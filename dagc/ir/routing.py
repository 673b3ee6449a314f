"""Routing of tokens to experts: one distribution drives the load of every rank and the experts that are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spec import Routing

Floats = NDArray[np.float64]
SHUFFLE_SEED = 20


@dataclass(frozen=True)
class ExpertPlacement:
    """`slots` [ranks, slots a rank]: the expert in each slot. `load` [ranks]: expected choices of one token that
    land on each rank (they add up to top_k)."""

    slots: NDArray[np.int64]
    load: Floats


def expert_probabilities(routing: Routing, experts: int, top_k: int) -> Floats:
    """Chance that a token picks each expert; adds up to top_k, none above 1.

    zipf(s): weights rank^-s, capped; shuffled with a fixed seed, since popularity has nothing to do with numbering.
    """
    if routing.kind == "uniform" or routing.s == 0.0:
        return np.full(experts, top_k / experts)
    weights = np.arange(1, experts + 1, dtype=float) ** -routing.s
    return np.asarray(np.random.default_rng(SHUFFLE_SEED).permutation(cap(weights, top_k)))


def cap(weights: Floats, total: float) -> Floats:
    """Scale weights to add up to `total` with none above 1: what is cut off goes to the others in proportion."""
    full = np.zeros(weights.shape, dtype=bool)
    while True:
        left = total - full.sum()
        share = np.where(full, 1.0, weights * (left / weights[~full].sum()) if (~full).any() else 1.0)
        over = (share > 1.0) & ~full
        if not over.any():
            return np.asarray(share)
        full |= over


def place_experts(p: Floats, ranks: int, redundant: int) -> ExpertPlacement:
    """Experts on ranks, equally many slots each. Without spare slots: in order. With: every spare slot goes to the
    expert with the largest load a replica; replicas then go, heaviest first, to the lightest rank that has room
    and does not hold the expert yet (the expert load balancer of deepseek-ai/EPLB, without its doubles).

    Raises ValueError when the slots do not divide over the ranks, or a doubled expert cannot be avoided.
    """
    experts = len(p)
    if (experts + redundant) % ranks:
        raise ValueError(f"{experts} experts + {redundant} redundant do not divide over {ranks} ranks")
    per_rank = (experts + redundant) // ranks
    if redundant == 0:
        slots = np.arange(experts).reshape(ranks, per_rank)
        return ExpertPlacement(slots, p[slots].sum(axis=1))
    copies = replica_counts(p, redundant, ranks)
    if np.ptp(p) < 1e-15 and np.ptp(copies) == 0:
        slots = np.arange(experts + redundant).reshape(ranks, per_rank) % experts
        if all(len(set(row)) == per_rank for row in slots.tolist()):
            return ExpertPlacement(slots, (p / copies)[slots].sum(axis=1))
    return _pack(p / copies, copies, ranks, per_rank)


def replica_counts(p: Floats, redundant: int, ranks: int) -> NDArray[np.int64]:
    """Copies of each expert; never more than there are ranks to hold them apart."""
    copies = np.ones(len(p), dtype=np.int64)
    for _ in range(redundant):
        each = np.where(copies < ranks, p / copies, -1.0)
        copies[int(np.argmax(each))] += 1
    return copies


def _pack(weight: Floats, copies: NDArray[np.int64], ranks: int, per_rank: int) -> ExpertPlacement:
    """Experts in order of copies first (an expert on every rank must not find one full), then by weight."""
    held: list[list[int]] = [[] for _ in range(ranks)]
    load = np.zeros(ranks)
    for expert in sorted(range(len(weight)), key=lambda e: (-weight[e], e)):
        for _ in range(int(copies[expert])):
            free = [r for r in range(ranks) if len(held[r]) < per_rank and expert not in held[r]]
            if not free:
                free = [_make_room(held, load, weight, expert, per_rank)]
            rank = min(free, key=lambda r: (load[r], len(held[r]), r))
            held[rank].append(expert)
            load[rank] += weight[expert]
    slots = np.asarray([sorted(row) for row in held], dtype=np.int64)
    return ExpertPlacement(slots, weight[slots].sum(axis=1))


def _make_room(held: list[list[int]], load: Floats, weight: Floats, expert: int, per_rank: int) -> int:
    """Every rank with room holds the expert already: move another expert there from a rank that does not."""
    rooms = [r for r in range(len(held)) if len(held[r]) < per_rank]
    for giver in (r for r in range(len(held)) if expert not in held[r]):
        for room in rooms:
            for moved in held[giver]:
                if moved not in held[room]:
                    held[giver].remove(moved)
                    held[room].append(moved)
                    load[giver] -= weight[moved]
                    load[room] += weight[moved]
                    return giver
    raise ValueError("the replicas do not fit without two copies of an expert on one rank")


def distinct_experts(p: Floats, slots: NDArray[np.int64], tokens: float) -> Floats:
    """Expected slots of each rank [ranks] that a batch of `tokens` tokens hits: sum of 1 - (1 - p/copies)^tokens
    (inference-sim/inference-sim, pull request 790)."""
    copies = np.bincount(slots.ravel(), minlength=len(p))
    each = np.minimum(p / copies, 1.0)[slots]
    with np.errstate(divide="ignore"):
        missed = np.exp(tokens * np.log1p(-each))
    return np.asarray((1.0 - missed).sum(axis=1))


def imbalance(load: Floats) -> float:
    """Load of the fullest rank over the mean."""
    return float(load.max() / load.mean())
