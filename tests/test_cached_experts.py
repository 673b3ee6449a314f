"""Experts that GPUs hold and that come from their hosts: expected misses, against simulation and by hand."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from tiers import in_turn

from dagc.base.arrays import NDArray
from dagc.cost.cached_experts import characteristic_steps, missed, needed, traced
from dagc.spec.rebalance import LoadSeries

Floats = NDArray[np.float64]
STEPS = 3000


def popularity(s: float, experts: int = 16, top_k: int = 4) -> Floats:
    weights = np.arange(1, experts + 1, dtype=float) ** -s
    return np.minimum(1.0, top_k * weights / weights.sum())


def simulated(q: Floats, room: int) -> float:
    """Misses of a step, exactly: it uses what is there in any order, then what comes in any order; those used longest ago go."""
    rng, cache, total = np.random.default_rng(0), OrderedDict[int, None](), 0
    for step in range(STEPS):
        wanted = rng.permutation(np.flatnonzero(rng.random(len(q)) < q)).tolist()
        there = [e for e in wanted if e in cache]
        coming = [e for e in wanted if e not in cache]
        for e in (*there, *coming):
            cache.pop(e, None)
            cache[e] = None
        while len(cache) > room:
            cache.popitem(last=False)
        total += len(coming) if step >= STEPS // 4 else 0
    return total / (STEPS - STEPS // 4)


@pytest.mark.parametrize(("tokens", "s"), in_turn([1, 4, 16], [0.0, 0.6, 1.2]))
def test_the_last_used_are_as_a_simulation_has_them(s: float, tokens: int) -> None:
    """Within 4% of what a step needs, from caches of a few experts to nearly all."""
    q = needed(popularity(s), np.arange(16)[None], tokens)
    for room in (2, 6, 12):
        (found,) = missed(q, room, "lru")
        assert found == pytest.approx(simulated(q[0], room), abs=0.04 * q.sum())


def test_the_most_popular_are_never_missed() -> None:
    q = np.array([[0.9, 0.1, 0.5, 0.2]])
    assert missed(q, 2, "frequency") == pytest.approx([0.1 + 0.2])
    assert missed(q, 4, "frequency") == missed(q, 4, "lru") == 0.0


@pytest.mark.parametrize("rule", ["lru", "frequency"])
def test_even_choices_find_what_there_is_room_for(rule: str) -> None:
    """The closed form: of N experts that are all as likely, n of which are there, a step misses 1 - n/N of those it needs."""
    q = needed(np.full(32, 0.25), np.arange(32).reshape(2, 16), 3)
    for room in (1, 4, 15):
        assert missed(q, room, rule) == pytest.approx((1 - room / 16) * q.sum(axis=1))
    assert missed(np.ones((1, 8)), 2, rule) == pytest.approx([6.0])


def test_more_room_is_never_more_to_copy() -> None:
    q = needed(popularity(1.0), np.arange(16)[None], 5)
    for rule in ("lru", "frequency"):
        found = [float(missed(q, room, rule)[0]) for room in range(1, 17)]
        assert found == sorted(found, reverse=True) and found[-1] == 0.0
    assert (missed(q, 5, "frequency") <= missed(q, 5, "lru")).all()


def test_a_cache_fills_in_as_many_steps_as_it_is_expected_to() -> None:
    q = np.full((1, 8), 0.5)
    (steps,) = characteristic_steps(q, 4)
    assert 8 * (1 - 0.5**steps) == pytest.approx(4) and steps == pytest.approx(1.0)
    assert characteristic_steps(np.array([[0.5, 0.0, 0.0]]), 2) == np.inf


def test_nobody_chooses_nothing() -> None:
    assert (needed(np.full(4, 0.5), np.arange(4)[None], 0) == 0).all()
    assert missed(np.zeros((2, 4)), 2, "lru").tolist() == [0.0, 0.0]


def series(*steps: list[int], experts: int = 4) -> LoadSeries:
    """Of one layer: the experts that each step chose."""
    return LoadSeries(tuple((tuple(float(e in step) for e in range(experts)),) for step in steps))


def test_a_trace_is_followed_step_by_step() -> None:
    """Three experts in turn and room for two: the last used ones are never those that come; the most popular two are two of three."""
    turns = series([0], [1], [2])
    assert traced(turns, ((0, 1, 2, 3),), 2, "lru") == (1.0,)
    assert traced(turns, ((0, 1, 2, 3),), 2, "frequency") == (pytest.approx(1 / 3),)
    assert traced(series([0, 1], [0, 2], [0, 1]), ((0, 1, 2, 3),), 2, "lru") == (pytest.approx(2 / 6),)
    assert traced(turns, ((0, 1), (2, 3)), 1, "lru") == (1.0, 0.0)  # each rank has its own experts


@pytest.mark.parametrize("rule", ["lru", "frequency"])
def test_a_trace_of_independent_steps_is_as_they_are_expected(rule: str) -> None:
    rng, q = np.random.default_rng(5), needed(popularity(0.8), np.arange(16)[None], 2)
    drawn = series(*(np.flatnonzero(rng.random(16) < q[0]).tolist() or [0] for _ in range(1500)), experts=16)
    (found,) = traced(drawn, (tuple(range(16)),), 8, rule)
    assert found == pytest.approx(float(missed(q, 8, rule)[0] / q.sum()), abs=0.03)
