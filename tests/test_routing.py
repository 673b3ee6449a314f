"""Routing of tokens: published values, brute force over every choice, and what a placement must keep."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagc.cost.expert_packing import pack_replicas
from dagc.cost.expert_placement import place_experts
from dagc.cost.routing import Floats, cap, distinct_experts, expert_probabilities, imbalance
from dagc.spec.workload import Routing


def cut_zipf(s: float, experts: int = 256, top_k: int = 8) -> Floats:
    """Weights of the published table of imbalances: cut at 1, the cut not given to the others."""
    weights = np.arange(1, experts + 1, dtype=float) ** -s
    return np.asarray(np.minimum(1.0, top_k * weights / weights.sum()))


@pytest.mark.parametrize("s", [0.3, 0.5])
def test_zipf_without_a_cut_is_the_power_law(s: float) -> None:
    p = expert_probabilities(Routing("zipf", s), 256, 8)
    assert np.sort(p)[::-1] == pytest.approx(cut_zipf(s))


def test_zipf_with_a_cut_keeps_the_sum_and_the_ratios() -> None:
    p = np.sort(expert_probabilities(Routing("zipf", 1.0), 256, 8))[::-1]
    assert p.sum() == pytest.approx(8) and p[0] == 1.0
    assert p[1:] / p[1] == pytest.approx(2 / np.arange(2, 257))


def test_popularity_is_shuffled_alike_every_time() -> None:
    p = expert_probabilities(Routing("zipf", 1.0), 64, 4)
    assert p.tolist() == expert_probabilities(Routing("zipf", 1.0), 64, 4).tolist()
    assert p.tolist() != sorted(p.tolist(), reverse=True)


@given(st.integers(1, 300), st.floats(0, 10), st.data())
def test_probabilities(experts: int, s: float, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    for routing in (Routing(), Routing("zipf", s)):
        p = expert_probabilities(routing, experts, top_k)
        assert p.shape == (experts,) and p.min() >= 0 and p.max() <= 1 + 1e-12
        assert p.sum() == pytest.approx(top_k)
    assert expert_probabilities(Routing(), experts, top_k) == pytest.approx(np.full(experts, top_k / experts))


# E, k, tokens and the distinct experts of the published table, to one decimal.
DISTINCT = [
    (256, 8, 1, 8.0),
    (256, 8, 32, 163.3),
    (256, 8, 64, 222.4),
    (256, 8, 128, 251.6),
    (8, 2, 1, 2.0),
    (8, 2, 3, 4.6),
    (8, 2, 8, 7.2),
    (8, 2, 64, 8.0),
]


@pytest.mark.parametrize(("experts", "top_k", "tokens", "want"), DISTINCT)
def test_published_distinct_experts(experts: int, top_k: int, tokens: int, want: float) -> None:
    p = expert_probabilities(Routing(), experts, top_k)
    for ranks in (1, 4):
        slots = place_experts(p, ranks, 0).slots
        assert distinct_experts(p, slots, tokens).sum() == pytest.approx(want, abs=0.05)


@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
def test_distinct_experts_over_every_sequence_of_choices(tokens: int) -> None:
    p, slots = np.array([0.5, 0.3, 0.15, 0.05]), np.array([[0, 3], [1, 2]])
    want = np.zeros(2)
    for chosen in product(range(4), repeat=tokens):
        chance = float(np.prod(p[list(chosen)]))
        want += chance * np.array([len(set(chosen) & set(row)) for row in slots.tolist()])
    assert distinct_experts(p, slots, tokens) == pytest.approx(want)


def test_replicas_share_the_tokens_of_an_expert() -> None:
    """Two replicas of an expert are two experts of half its chance."""
    p = np.array([0.6, 0.2, 0.2])
    split = np.array([0.3, 0.2, 0.2, 0.3])
    shared = distinct_experts(p, np.array([[0, 1], [2, 0]]), 7.5)
    assert shared == pytest.approx(distinct_experts(split, np.array([[0, 1], [2, 3]]), 7.5))


def test_distinct_experts_at_the_ends() -> None:
    """A rare expert keeps its digits; a certain one is hit once there is a token; no warnings."""
    with np.errstate(all="raise"):
        rare = distinct_experts(np.full(4, 1e-17), np.arange(4).reshape(2, 2), 3.0)
        assert rare == pytest.approx(np.full(2, 6e-17), rel=1e-12, abs=0)
        certain = np.ones(4)
        assert distinct_experts(certain, np.arange(4).reshape(2, 2), 0).tolist() == [0.0, 0.0]
        assert distinct_experts(certain, np.arange(4).reshape(2, 2), 0.5).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("s", "ranks", "redundant", "want"),
    [
        (0.3, 32, 32, 1.00),
        (0.5, 32, 32, 1.00),
        (1.0, 32, 32, 1.00),
        (0.3, 128, 128, 1.03),
        (0.5, 128, 128, 1.02),
        (1.0, 128, 128, 1.08),
        (0.3, 144, 32, 1.14),
        (0.5, 144, 32, 1.26),
        (1.0, 144, 32, 1.98),
    ],
)
def test_published_imbalance_with_spare_replicas(s: float, ranks: int, redundant: int, want: float) -> None:
    for p in (cut_zipf(s), expert_probabilities(Routing("zipf", s), 256, 8)):
        assert imbalance(place_experts(p, ranks, redundant).load) == pytest.approx(want, abs=0.015, rel=0)


@pytest.mark.parametrize(
    ("s", "ranks", "want"),
    [(0.3, 32, 1.16), (0.5, 32, 1.51), (1.0, 32, 4.31), (0.3, 128, 2.22), (0.5, 128, 4.45), (1.0, 128, 16.7)],
)
def test_published_imbalance_packed_without_replicas(s: float, ranks: int, want: float) -> None:
    placed = place_experts(cut_zipf(s), ranks, 0, how="eplb")
    assert imbalance(placed.load) == pytest.approx(want, rel=0.005)


@pytest.mark.parametrize(
    ("s", "ranks", "want", "within"),
    [
        (0.3, 32, 1.38, 0.03),
        (0.5, 32, 1.90, 0.03),
        (1.0, 32, 5.16, 0.04),
        (0.3, 128, 2.31, 0.03),
        (0.5, 128, 4.58, 0.03),
        (1.0, 128, 17.2, 0.03),
    ],
)
def test_published_imbalance_of_shuffled_experts(s: float, ranks: int, want: float, within: float) -> None:
    """Ours is a mean over 400 shuffles, its error 1/20 of one shuffle's spread. The table does not say how many it
    took; half a spread is two standard errors of a mean over 16."""
    p = cut_zipf(s)
    found = [imbalance(place_experts(np.random.default_rng(i).permutation(p), ranks, 0).load) for i in range(400)]
    assert abs(np.mean(found) - want) <= min(0.5 * np.std(found), within * want)


def test_without_spare_slots_experts_stay_in_order() -> None:
    p = expert_probabilities(Routing("zipf", 1.0), 12, 3)
    placed = place_experts(p, 4, 0)
    assert placed.slots.tolist() == np.arange(12).reshape(4, 3).tolist()
    assert placed.load == pytest.approx(p.reshape(4, 3).sum(axis=1))


def test_slots_must_divide_over_the_ranks() -> None:
    with pytest.raises(ValueError, match=r"256 experts \+ 3 redundant .* 32 ranks"):
        place_experts(np.full(256, 8 / 256), 32, 3)


def test_more_replicas_than_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="replicas of one expert do not fit 2 ranks"):
        place_experts(np.array([0.6, 0.4]), 2, 4)


def test_a_stuck_packing_is_repaired_by_a_swap() -> None:
    """The heaviest fills one rank's load and the next three fill the other's slots: only the first has room for both
    replicas of the last."""
    weight = np.array([10.0, 1.0, 1.0, 1.0, 0.5])
    slots = pack_replicas(weight, np.array([1, 1, 1, 1, 2]), 2, 3)
    assert all(4 in row for row in slots.tolist())
    assert sorted(slots.ravel().tolist()) == [0, 1, 2, 3, 4, 4]
    assert weight[slots].sum(axis=1).tolist() == [11.5, 2.5]


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 4), st.floats(0, 4), st.data())
def test_placements(ranks: int, per_rank: int, more: int, s: float, data: st.DataObject) -> None:
    experts = ranks * per_rank
    redundant = min(more * ranks, experts * (ranks - 1))
    top_k = data.draw(st.integers(1, experts))
    p = expert_probabilities(Routing("zipf", s), experts, top_k)
    placed = place_experts(p, ranks, redundant)
    assert placed.slots.shape == (ranks, (experts + redundant) // ranks)
    assert all(len(set(row)) == len(row) for row in placed.slots.tolist())
    copies = np.bincount(placed.slots.ravel(), minlength=experts)
    assert copies.min() >= 1
    assert placed.load == pytest.approx((p / copies)[placed.slots].sum(axis=1))
    assert placed.load.sum() == pytest.approx(top_k)
    assert imbalance(placed.load) >= ranks * (p / copies).max() / top_k * (1 - 1e-12)  # the published lower bound


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.data())
def test_any_copies_that_fit_are_packed_apart(ranks: int, per_rank: int, data: st.DataObject) -> None:
    """Copies drawn freely reach the repair often; an expert on every rank may come last."""
    copies: list[int] = []
    while sum(copies) < ranks * per_rank:
        copies.append(data.draw(st.integers(1, min(ranks, ranks * per_rank - sum(copies)))))
    weight = np.array(data.draw(st.lists(st.floats(0.01, 10), min_size=len(copies), max_size=len(copies))))
    slots = pack_replicas(weight, np.array(copies), ranks, per_rank)
    assert all(len(set(row)) == per_rank for row in slots.tolist())
    assert np.bincount(slots.ravel()).tolist() == copies


def test_imbalance_of_loads() -> None:
    assert imbalance(np.ones(5)) == 1.0
    assert imbalance(np.array([0.0, 0.0, 3.0])) == 3.0


def test_a_power_law_is_skewed_and_busiest_rank_first() -> None:
    p = expert_probabilities(Routing("power_law", 1.2), 64, 8, tokens=4096, ranks=8)
    assert p.sum() == pytest.approx(8) and p.max() <= 1 + 1e-12
    loads = p.reshape(8, 8).sum(axis=1)
    assert (np.diff(loads) <= 1e-12).all() and loads[0] > 1.3 * loads.mean()
    milder = expert_probabilities(Routing("power_law", 0.3), 64, 8, tokens=4096, ranks=8).reshape(8, 8).sum(axis=1)
    assert milder[0] < loads[0]


def test_a_histogram_is_what_it_says() -> None:
    p = expert_probabilities(Routing("histogram", 0.0, (1.0, 3.0, 2.0, 2.0)), 4, 1)
    assert p.tolist() == [0.125, 0.375, 0.25, 0.25]
    assert expert_probabilities(Routing("histogram", 0.0, (1.0, 30.0, 1.0, 1.0)), 4, 2).max() == 1.0


# -- groups of experts on nodes --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_spare_copies_keep_a_group_on_one_node(seed: int) -> None:
    """A token that may use few groups then reaches few nodes."""
    experts, groups, nodes, ranks, redundant = 64, 8, 4, 16, 16
    p = cap(np.random.default_rng(seed).gamma(0.7, 1.0, experts), 4.0)
    placed = place_experts(p, ranks, redundant, groups, nodes)
    by_node = placed.slots.reshape(nodes, -1)
    for group in range(groups):
        members = set(range(group * 8, group * 8 + 8))
        assert sum(bool(members & set(node.tolist())) for node in by_node) == 1
    assert set(placed.slots.ravel().tolist()) == set(range(experts))
    assert all(len(set(rank)) == len(rank) for rank in placed.slots.tolist())
    assert placed.load.sum() == pytest.approx(4.0)
    assert placed.load.max() <= place_experts(p, ranks, 0).load.max() + 1e-12


def test_groups_that_nodes_do_not_divide_are_ignored() -> None:
    p = cap(np.random.default_rng(1).gamma(0.7, 1.0, 64), 4.0)
    for groups, nodes in ((8, 3), (8, 16), (1, 4)):
        assert np.array_equal(place_experts(p, 48, 32, groups, nodes).slots, place_experts(p, 48, 32).slots)
