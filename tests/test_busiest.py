"""The busiest expert rank against enumeration and a sampler of its own, and what it means for plans."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from one_placement import Most, busiest_rank
from tiers import spread

import dagc
from dagc.calib import load, moe
from dagc.cost import busiest
from dagc.cost.busiest import Skip, busiest_ranks, most_of_one_token
from dagc.cost.expert_load import rank_work
from dagc.cost.expert_placement import place_experts
from dagc.cost.routing import cap, expert_probabilities
from dagc.ir.routed_dims import NO_LIMIT, GroupLimit
from dagc.plan.result import PhaseResult
from dagc.spec.workload import Routing

UNIFORM, SKEWED = Routing(), Routing("zipf", 0.8)


def choose(rng: np.random.Generator, p: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Experts of so many tokens [count, top_k], with chances `p` (Sampford 1967): the first in proportion to p, the others to
    p / (1 - p), again until none occurs twice. Even chances: any subset."""
    top_k = round(float(p.sum()))
    if np.ptp(p) < 1e-12:
        return np.asarray(rng.random((count, len(p))).argsort(axis=1)[:, :top_k])
    odds = p / (1 - p)
    found = np.zeros((count, top_k), dtype=np.int64)
    open_ = np.arange(count)
    while len(open_):
        rest = rng.choice(len(p), (len(open_), top_k - 1), p=odds / odds.sum())
        picked = np.column_stack([rest, rng.choice(len(p), len(open_), p=p / p.sum())])
        differ = (np.diff(np.sort(picked, axis=1), axis=1) > 0).all(axis=1)
        found[open_[differ]] = picked[differ]
        open_ = open_[~differ]
    return found


def steps(p: NDArray[np.float64], slots: NDArray[np.int64], tokens: int, count: int) -> NDArray[np.int64]:
    """Rows of each slot [count, ranks, slots]; a token takes any copy of its expert."""
    rng = np.random.default_rng(5)
    holders = [np.flatnonzero(slots.ravel() == expert) for expert in range(len(p))]
    copies = np.array([len(each) for each in holders])
    table = np.array([np.resize(each, copies.max()) for each in holders])
    chosen = choose(rng, p, count * tokens)
    places = table[chosen, rng.integers(copies[chosen])].reshape(count, -1)
    rows = [np.bincount(each, minlength=slots.size).reshape(slots.shape) for each in places]
    return np.array(rows, dtype=np.int64)


@pytest.mark.parametrize("tokens", [1, 20, 4096])
@pytest.mark.parametrize("how", [{}, {"most_rows": 3.0}, {"limit": GroupLimit(4, 2)}, {"skip": (0.1, 0.3)}], ids=str)
def test_placements_together_are_as_alone_to_the_last_bit(tokens: int, how: dict[str, Any]) -> None:
    rng = np.random.default_rng(tokens)
    p = np.array([cap(rng.gamma(0.7, 1.0, 16), 2.0) for _ in range(5)] + [np.full(16, 2 / 16)])
    slots = np.array([place_experts(own, 4, 4).slots for own in p])
    found = busiest_ranks(p, slots, tokens, tile=4, most_draws=32, **how)
    for k in range(6):
        alone = busiest_ranks(p[k : k + 1], slots[k : k + 1], tokens, tile=4, most_draws=32, **how)
        assert all(getattr(found, name)[k] == getattr(alone, name)[0] for name in Most._fields)


@pytest.mark.parametrize(
    ("ranks", "per_rank", "top_k"), [(8, 1, 2), (4, 2, 3), (2, 5, 4), (3, 4, 6), (1, 6, 2), (5, 2, 1)]
)
def test_one_token_is_counted_exactly(ranks: int, per_rank: int, top_k: int) -> None:
    subsets = list(combinations(range(ranks * per_rank), top_k))
    most = [max(np.bincount(np.array(s) // per_rank)) for s in subsets]
    assert most_of_one_token(ranks, per_rank, top_k) == pytest.approx(np.mean(most))


CASES = [
    (UNIFORM, 8, 2, 8, 0, 3), (UNIFORM, 8, 2, 4, 0, 40), (UNIFORM, 64, 6, 8, 0, 12), (UNIFORM, 32, 4, 8, 0, 100),
    (SKEWED, 32, 4, 8, 0, 2), (SKEWED, 32, 4, 8, 0, 30), (SKEWED, 32, 4, 8, 0, 90), (SKEWED, 24, 4, 8, 8, 12),
    (UNIFORM, 24, 4, 8, 8, 6), (Routing("histogram", 0.0, (5.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0, 1.0)), 8, 2, 4, 0, 5),
]  # fmt: skip


@pytest.mark.parametrize(("routing", "experts", "top_k", "ranks", "redundant", "tokens"), CASES)
def test_the_busiest_rank_is_that_of_another_sampler(
    routing: Routing, experts: int, top_k: int, ranks: int, redundant: int, tokens: int
) -> None:
    p = expert_probabilities(routing, experts, top_k)
    slots = place_experts(p, ranks, redundant).slots
    found = busiest_rank(p, slots, tokens, tile=4)
    rows = steps(p, slots, tokens, max(60, 3000 // tokens))
    for name, each in (
        ("rows", rows.sum(axis=2)), ("row_tiles", np.ceil(rows / 4).sum(axis=2)), ("distinct", (rows > 0).sum(axis=2))
    ):  # fmt: skip
        most = each.max(axis=1)
        error = np.hypot(most.std() / len(most) ** 0.5, found.error * most.mean())
        # 2 %: two designs with the same chances differ a little in which experts are chosen together.
        assert getattr(found, name) == pytest.approx(most.mean(), abs=3.5 * error + 0.02 * most.mean()), name


@settings(deadline=None, max_examples=examples(40))
@given(
    st.sampled_from([(8, 2), (16, 4), (64, 6)]), st.sampled_from([1, 2, 4, 8]), st.floats(0, 1.5),
    st.sampled_from([0, 8]), st.integers(1, 600),
)  # fmt: skip
def test_work_is_never_less_than_the_mean_and_grows_with_tokens(
    size: tuple[int, int], ranks: int, s: float, redundant: int, tokens: int
) -> None:
    experts, top_k = size
    redundant = redundant if ranks > 1 else 0
    work = rank_work(Routing("zipf", s), experts, top_k, ranks, redundant, tokens)
    more = rank_work(Routing("zipf", s), experts, top_k, ranks, redundant, 2 * tokens)
    assert work.relative.max() >= 1 - 1e-9 and work.kernel.rows.max() <= tokens * top_k * (1 + 1e-9)
    assert work.kernel.distinct.max() >= 1 - 1e-9, "someone reads a whole expert"
    assert work.kernel.distinct.max() <= (experts + redundant) / ranks + 1e-9
    for ours, theirs in zip(work.kernel, more.kernel, strict=True):
        assert ours.max() <= theirs.max() * (1 + 3 * work.error)


def test_one_rank_has_no_busiest() -> None:
    """Kernels were fitted on one rank's rows: with one rank the work is theirs."""
    for tokens in (1, 7, 500):
        work = rank_work(SKEWED, 16, 4, 1, 0, tokens)
        assert work.relative == pytest.approx([1.0]) and work.kernel.rows == pytest.approx([4 * tokens])
        p = expert_probabilities(SKEWED, 16, 4)
        assert work.kernel.distinct == pytest.approx([(1 - (1 - p) ** tokens).sum()], rel=0.01)


def test_large_batches_keep_the_imbalance_of_the_chances() -> None:
    p = expert_probabilities(SKEWED, 32, 4)
    load = place_experts(p, 8, 0).load
    assert rank_work(SKEWED, 32, 4, 8, 0, 10**7).relative == pytest.approx(load * 8 / 4, rel=1e-3)
    assert rank_work(UNIFORM, 32, 4, 8, 0, 10**7).relative == pytest.approx(np.ones(8), rel=1e-3)


@pytest.mark.parametrize("tokens", [2, 16, 100])
def test_the_kernel_takes_what_its_busiest_rank_takes(tokens: int) -> None:
    """Rows, tiles and experts have their maxima on different ranks: one kernel of all three maxima is close enough to
    the mean of the slowest rank."""
    constants = load("h100_sxm").of(moe.FAMILY, "trtllm")["bf16"].constants
    p = expert_probabilities(UNIFORM, 32, 4)
    rows = steps(p, place_experts(p, 8, 0).slots, tokens, max(100, 3000 // tokens))
    work = moe.count_rows(rows)
    slowest = moe.time_s(constants, work, tokens, 4, 2048, 768).max(axis=1)
    ours = moe.time_s(constants, rank_work(UNIFORM, 32, 4, 8, 0, tokens).kernel, tokens, 4, 2048, 768).max()
    assert ours == pytest.approx(slowest.mean(), rel=0.03)


def test_capacity_drops_the_excess_of_a_step() -> None:
    """Ten tokens of even routing overflow experts that take the mean and no more."""
    p = expert_probabilities(UNIFORM, 8, 2)
    rows = steps(p, np.arange(8).reshape(4, 2), 10, 400)
    work = rank_work(UNIFORM, 8, 2, 4, 0, 10, full=2 / 8)
    assert work.dropped == pytest.approx(1 - np.minimum(rows, 2.5).sum() / rows.sum(), abs=0.02)
    assert work.kernel.rows.max() <= 2 * 2.5


def decode(batch: int, experts: str, routing: str = "uniform", more: str = "") -> PhaseResult:
    text = f"""moe 1
hardware from "h100-sxm" {{ gpus = 8 }}
model from "mixtral-8x7b" {{ }}
workload {{ sequences = {batch}, prompt = 1500 tok, output = 100 tok, routing = {routing} }}
phase decode {{ gpus = 0..7, attention {{ tp = 8 }}, experts {{ {experts} }}, dispatch = allgather{more} }}
"""
    return dagc.compile_text(text).phases["decode"]


EXPERT_S = 32 * 3 * 4096 * 14336 * 2 / 3.35e12
"""One expert of each of Mixtral's layers, read at the full bandwidth of an H100."""


@pytest.mark.parametrize("routing", ["uniform", "zipf(0.8)", "power_law(1.2)", "histogram([1, 1, 2, 1, 4, 1, 1, 1])"])
@pytest.mark.parametrize("redundant", [0, 8])
def test_one_sequence_waits_for_a_whole_expert_a_layer(routing: str, redundant: int) -> None:
    result = decode(1, "ep = 8", routing, f", redundant = {redundant}" if redundant else "")
    assert result.time_s >= EXPERT_S and result.floor_s >= EXPERT_S
    assert 4 * (1 - 1e-9) <= result.costs.imbalance <= 8


def test_without_measured_kernels_too() -> None:
    roofline = dagc.compile_text(
        """moe 1
hardware { gpus = 8, per_node = 8, compute = 989 TFLOP/s, memory = 80 GB, hbm = 3.35 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us } }
model from "mixtral-8x7b" { }
workload { sequences = 1, prompt = 1500 tok, output = 100 tok }
phase decode { gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, dispatch = allgather }
"""
    ).phases["decode"]
    assert roofline.time_s >= EXPERT_S / 0.8 and roofline.floor_s >= EXPERT_S


def test_split_experts_win_small_batches_and_whole_ones_large() -> None:
    times = {batch: (decode(batch, "tp = 8").time_s, decode(batch, "ep = 8").time_s) for batch in (1, 4, 16, 256)}
    split, whole = times[1]
    assert split < 0.8 * whole
    ratios = [whole / split for split, whole in times.values()]
    assert ratios == sorted(ratios, reverse=True) and ratios[-1] < 1 < ratios[0], "the crossover moves with the batch"


@pytest.mark.parametrize(
    ("experts", "top_k", "ranks", "tokens"),
    [
        (65_536, 8, 4096, 1),
        (100_000, 200, 100, 10**9),
        (4096, 4096, 64, 5),
        (20_000, 256, 20_000, 2),
        (8, 8, 1, 10**12),
    ],
)
def test_extremes_stay_within_what_tokens_can_choose(experts: int, top_k: int, ranks: int, tokens: int) -> None:
    work = rank_work(UNIFORM, experts, top_k, ranks, 0, tokens)
    most = tokens * min(experts // ranks, top_k)
    assert 1 - 1e-9 <= work.kernel.rows.max() <= most * (1 + 1e-9) and 0 <= work.error < 0.1
    # The mean of distinct experts is counted for every rank, its maximum from few random steps.
    assert 1 - 1e-9 <= work.kernel.distinct.max() <= min(experts // ranks, most) * (1 + 3 * work.error + 1e-9)


# -- group-limited routing -------------------------------------------------------------------------


def gated(experts: int, limit: GroupLimit, top_k: int, ranks: int, tokens: int, steps: int) -> tuple[float, float]:
    """Rows and distinct experts of the busiest rank, by a router with random scores: the groups whose two best experts
    are strongest, then the best experts in them."""
    rng, rows, distinct = np.random.default_rng(7), [], []
    for _ in range(steps):
        scores = rng.random((tokens, experts))
        strength = np.partition(scores.reshape(tokens, limit.groups, -1), -2, axis=2)[:, :, -2:].sum(axis=2)
        allowed = np.zeros((tokens, limit.groups), dtype=bool)
        np.put_along_axis(allowed, np.argsort(-strength, axis=1)[:, : limit.most], True, axis=1)
        scores[~np.repeat(allowed, experts // limit.groups, axis=1)] = -1.0
        chosen = np.argpartition(-scores, top_k, axis=1)[:, :top_k]
        counts = np.bincount(chosen.ravel(), minlength=experts).reshape(ranks, -1)
        rows.append(counts.sum(axis=1).max())
        distinct.append(np.count_nonzero(counts, axis=1).max())
    return float(np.mean(rows)), float(np.mean(distinct))


@pytest.mark.parametrize(
    ("experts", "limit", "top_k", "ranks", "tokens"),
    spread([
        (256, GroupLimit(8, 4), 8, 32, 1), (256, GroupLimit(8, 4), 8, 32, 8), (256, GroupLimit(8, 4), 8, 32, 24),
        (256, GroupLimit(8, 4), 8, 32, 128), (256, GroupLimit(8, 4), 8, 8, 128), (256, GroupLimit(8, 4), 8, 8, 1024),
        (160, GroupLimit(8, 3), 6, 16, 512), (64, GroupLimit(8, 2), 4, 16, 256), (64, GroupLimit(4, 1), 4, 4, 64),
    ], lambda case: case[-1] <= 256),
)  # fmt: skip
def test_few_groups_of_a_token_make_ranks_less_even(
    experts: int, limit: GroupLimit, top_k: int, ranks: int, tokens: int
) -> None:
    p, slots = np.full(experts, top_k / experts), np.arange(experts).reshape(ranks, -1)
    rows, distinct = gated(experts, limit, top_k, ranks, tokens, 200)
    found = busiest_rank(p, slots, tokens, tile=128, limit=limit)
    assert found.rows == pytest.approx(rows, rel=0.05)
    assert found.distinct == pytest.approx(distinct, rel=0.05)
    free = busiest_rank(p, slots, tokens, tile=128)
    assert abs(found.rows - rows) < max(abs(free.rows - rows), 0.02 * rows)
    assert found.rows >= free.rows


def test_a_limit_of_all_groups_is_none() -> None:
    p, slots = np.full(64, 4 / 64), np.arange(64).reshape(8, -1)
    for tokens in (1, 5, 500):
        assert busiest_rank(p, slots, tokens, tile=128, limit=GroupLimit(8, 8)) == busiest_rank(
            p, slots, tokens, tile=128
        )


@pytest.mark.parametrize("skip", [0.0, 0.25, (0.0, 0.5)])
@pytest.mark.parametrize("limit", [NO_LIMIT, GroupLimit(4, 2)])
def test_what_a_token_chooses_does_not_depend_on_how_many_were_asked_for_before(skip: Skip, limit: GroupLimit) -> None:
    chances = np.random.default_rng(3).random((2, 16)) + 0.1
    p = np.minimum(chances / chances.sum(axis=1, keepdims=True) * 2, 1.0)
    slots = np.stack([np.arange(24).reshape(4, 6) % 16, np.arange(24)[::-1].reshape(4, 6) % 16])  # some experts twice
    found = {}
    for tokens in (3, 7, 1, 20, 5):
        found[tokens] = busiest._rows_by_token(p, slots, tokens, 32, limit, skip)
    for tokens, rows in found.items():
        busiest._choices.cache_clear()
        assert (rows == busiest._rows_by_token(p, slots, tokens, 32, limit, skip)).all()
    if not skip:
        assert all((rows.sum(axis=(2, 3)) == 2 * tokens).all() for tokens, rows in found.items())
