"""Routing of tokens to experts: one distribution drives the load of every rank and the experts that are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base.frozen import record
from ..spec.workload import Routing

Floats = NDArray[np.float64]
SHUFFLE_SEED = 20


@record
class ExpertPlacement:
    """`slots` [ranks, slots a rank]: the expert in each slot. `load` [ranks]: expected choices of one token that
    land on each rank (they add up to top_k)."""

    slots: NDArray[np.int64]
    load: Floats


ExpertPlacement = ExpertPlacement  # the passes know it by this name


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


def place_experts(p: Floats, ranks: int, redundant: int, groups: int = 1, nodes: int = 1) -> ExpertPlacement:
    """Experts on ranks, equally many slots each. Without spare slots: in order. With: every spare slot goes to the
    expert with the largest load a replica; replicas then go, heaviest first, to the lightest rank that has room
    and does not have the expert yet (the expert load balancer of deepseek-ai/EPLB, without its doubles).

    Where nodes divide `groups` of experts and the spare slots, groups first go to `nodes` (of consecutive ranks), so
    that a token that may use few groups reaches few nodes (EPLB's hierarchical placement).

    Raises ValueError when the slots do not divide over the ranks, or a doubled expert cannot be avoided.
    """
    experts = len(p)
    if redundant and 1 < nodes < groups + 1 and not (groups % nodes or redundant % nodes or ranks % nodes):
        return _place_by_node(p, ranks, redundant, groups, nodes)
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
    return pack_replicas(p / copies, copies, ranks, per_rank)


def _place_by_node(p: Floats, ranks: int, redundant: int, groups: int, nodes: int) -> ExpertPlacement:
    """Groups on nodes, heaviest first, then the experts of each node on its ranks."""
    members = np.arange(len(p)).reshape(groups, -1)
    of_node = pack_replicas(p[members].sum(axis=1), np.ones(groups, dtype=np.int64), nodes, groups // nodes).slots
    slots = []
    for own in of_node:
        experts = members[own].ravel()
        slots.append(experts[place_experts(p[experts], ranks // nodes, redundant // nodes).slots])
    placed = np.concatenate(slots)
    copies = np.bincount(placed.ravel(), minlength=len(p))
    return ExpertPlacement(placed, (p / copies)[placed].sum(axis=1))


def replica_counts(p: Floats, redundant: int, ranks: int) -> NDArray[np.int64]:
    """Copies of each expert; never more than there are ranks for them."""
    copies = np.ones(len(p), dtype=np.int64)
    for _ in range(redundant):
        each = np.where(copies < ranks, p / copies, -1.0)
        copies[int(np.argmax(each))] += 1
    return copies


def pack_replicas(weight: Floats, copies: NDArray[np.int64], ranks: int, per_rank: int) -> ExpertPlacement:
    """Replicas of `weight` [experts] each, heaviest first, each to the lightest rank with a free slot and without
    the expert (deepseek-ai/EPLB, balanced packing); ties go to the rank with fewer experts, then the first.

    Raises ValueError when an expert has more copies than there are ranks.
    """
    if copies.max() > ranks:
        raise ValueError(f"{copies.max()} replicas of one expert do not fit {ranks} ranks without doubles")
    slots = np.full((ranks, per_rank), -1, dtype=np.int64)
    used = np.zeros(ranks, dtype=np.int64)
    load = np.zeros(ranks)
    for expert in np.argsort(-weight, kind="stable").tolist():
        holders = np.zeros(ranks, dtype=bool)
        for _ in range(int(copies[expert])):
            free = np.flatnonzero((used < per_rank) & ~holders)
            if not free.size:
                free = np.array([_make_room(slots, used, load, weight, holders)])
            lightest = free[load[free] == load[free].min()]
            rank = int(lightest[np.argmin(used[lightest])])
            slots[rank, used[rank]] = expert
            used[rank] += 1
            holders[rank] = True
            load[rank] += weight[expert]
    slots.sort(axis=1)
    return ExpertPlacement(slots, weight[slots].sum(axis=1))


def _make_room(
    slots: NDArray[np.int64], used: NDArray[np.int64], load: Floats, weight: Floats, holders: NDArray[np.bool_]
) -> int:
    """Every rank with room already has the expert: move another expert there from a full rank that does not.

    Always possible: the giver has more distinct experts than the rank with room, so one of them is new there.
    """
    giver = int(np.flatnonzero(~holders)[0])
    room = int(np.flatnonzero(used < slots.shape[1])[0])
    place = int(np.flatnonzero(~np.isin(slots[giver], slots[room]))[0])
    moved = slots[giver, place]
    slots[room, used[room]] = moved
    slots[giver, place:-1] = slots[giver, place + 1 :]  # keeps the used slots in front
    slots[giver, -1] = -1
    used[room] += 1
    used[giver] -= 1
    load[room] += weight[moved]
    load[giver] -= weight[moved]
    return giver


def distinct_experts(p: Floats, slots: NDArray[np.int64], tokens: float) -> Floats:
    """Expected slots of each rank [ranks] that a batch of `tokens` tokens hits: sum of 1 - (1 - p/copies)^tokens
    (inference-sim/inference-sim, pull request 790)."""
    if tokens == 0:
        return np.zeros(len(slots))  # 0 x log(0) has no value
    copies = np.bincount(slots.ravel(), minlength=len(p))
    each = np.minimum(p[slots] / copies[slots], 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(tokens * np.log1p(-each)).sum(axis=1))


def imbalance(load: Floats) -> float:
    """Load of the fullest rank over the mean (`lam`; its least value is 1)."""
    return float(load.max() / load.mean())
