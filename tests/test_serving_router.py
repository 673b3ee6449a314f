"""Routers: which rank of which worker a request goes to."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from dagc.serving.records import Request
from dagc.serving.router import AHEAD, AHEAD_TIMES, Place, Router


@dataclass
class Ranks:
    """A worker as a router sees it; `caches`: the blocks of `kv_block` = 10 tokens that each rank holds."""

    waiting: list[int]
    running: list[int]
    caches: list[set[int]] = field(default_factory=list)

    @property
    def requests(self) -> list[int]:
        return [waits + runs for waits, runs in zip(self.waiting, self.running, strict=True)]

    def hit_tokens(self, rank: int, request: Request) -> int:
        found = 0
        for block in request.blocks:
            if block not in self.caches[rank]:
                break
            found += 10
        return found


def _workers(*loads: list[int]) -> list[Ranks]:
    return [Ranks([0] * len(each), list(each), [set() for _ in each]) for each in loads]


A_REQUEST = Request(0.0, 40, 5, (1, 2, 3, 4))


def test_round_robin_takes_every_worker_before_a_second_rank() -> None:
    router = Router("round_robin", _workers([0, 0], [0, 0], [0, 0]))
    places = [router.pick(A_REQUEST) for _ in range(7)]
    assert places == [Place(0, 0), Place(1, 0), Place(2, 0), Place(0, 1), Place(1, 1), Place(2, 1), Place(0, 0)]


def test_round_robin_does_not_look_at_loads() -> None:
    router = Router("round_robin", _workers([9], [0]))
    assert [router.pick(A_REQUEST) for _ in range(4)] == [Place(0, 0), Place(1, 0)] * 2


@pytest.mark.parametrize(
    ("loads", "place"),
    [
        (([3], [2], [2]), Place(1, 0)),
        (([2, 1], [1, 0]), Place(1, 1)),
        (([1, 5], [1, 0]), Place(1, 1)),
        (([1, 5], [1, 4]), Place(1, 0)),  # equal ranks: the worker that has less
        (([0, 0], [0, 0]), Place(0, 0)),
    ],
)
def test_least_loaded(loads: tuple[list[int], ...], place: Place) -> None:
    assert Router("least", _workers(*loads)).pick(A_REQUEST) == place


def test_least_counts_those_that_wait_and_those_that_run() -> None:
    workers = _workers([3], [0])
    workers[1].waiting[0] = 4
    assert Router("least", workers).pick(A_REQUEST) == Place(0, 0)


def test_of_equal_ranks_the_one_where_fewer_wait() -> None:
    workers = _workers([0, 1], [1, 1])
    workers[0].waiting[0] = 1
    assert Router("least", workers).pick(A_REQUEST) == Place(1, 0)


def test_least_is_as_its_rule_says_of_every_place() -> None:
    rng = random.Random(5)
    for _ in range(500):
        workers = _workers(*([0] * rng.randrange(1, 5) for _ in range(rng.randrange(1, 4))))
        for worker in workers:
            worker.waiting[:] = (rng.choice((0, 0, 1, 2)) for _ in worker.waiting)
            worker.running[:] = (rng.choice((0, 1, 3)) for _ in worker.running)
        among, queue = rng.sample(range(len(workers)), rng.randrange(len(workers) + 1)), rng.choice((None, 1, 2))
        router = Router("least", workers, queue)
        router.among(among)
        places = [
            (workers[w].waiting[r] + workers[w].running[r], workers[w].waiting[r],
             sum(workers[w].waiting) + sum(workers[w].running), r, k, Place(w, r))
            for k, w in enumerate(among)
            for r in range(len(workers[w].waiting))
            if queue is None or workers[w].waiting[r] < queue
        ]  # fmt: skip
        assert router.pick(A_REQUEST) == (min(places)[-1] if places else None)


def test_the_longest_prefix_draws() -> None:
    workers = _workers([1], [5], [3])
    workers[1].caches[0], workers[2].caches[0] = {1, 2}, {1, 2, 3}
    router = Router("prefix", workers)
    assert router.pick(A_REQUEST) == Place(2, 0)
    workers[1].caches[0].add(3)
    assert router.pick(A_REQUEST) == Place(2, 0)  # as long on both: the one with fewer requests
    workers[1].running[0] = 0
    assert router.pick(A_REQUEST) == Place(1, 0)


def test_a_short_prefix_does_not_draw() -> None:
    workers = _workers([1], [0])
    workers[0].caches[0] = {1}
    assert Router("prefix", workers).pick(A_REQUEST) == Place(1, 0)
    workers[0].caches[0].add(2)
    assert Router("prefix", workers).pick(A_REQUEST) == Place(0, 0)


def test_a_rank_too_far_ahead_does_not_draw() -> None:
    workers = _workers([AHEAD], [0])
    workers[0].caches[0] = {1, 2, 3, 4}
    router = Router("prefix", workers)
    assert router.pick(A_REQUEST) == Place(0, 0)
    workers[0].running[0] += 1
    assert router.pick(A_REQUEST) == Place(1, 0)
    # far ahead in requests, not in share: it still draws
    workers[1].running[0] = 100
    workers[0].running[0] = int(100 * AHEAD_TIMES)
    assert router.pick(A_REQUEST) == Place(0, 0)
    workers[0].running[0] += 1
    assert router.pick(A_REQUEST) == Place(1, 0)


@pytest.mark.parametrize("kind", ["round_robin", "least", "prefix"])
def test_full_queues_get_nothing(kind: str) -> None:
    workers = _workers([0], [0], [0])
    router = Router(kind, workers, queue=2)
    workers[0].waiting[0] = workers[2].waiting[0] = 2
    assert [router.pick(A_REQUEST) for _ in range(3)] == [Place(1, 0)] * 3
    workers[1].waiting[0] = 2
    assert router.pick(A_REQUEST) is None


def test_only_the_workers_it_is_told() -> None:
    router = Router("round_robin", _workers([0], [0], [0], [0]))
    assert [router.pick(A_REQUEST) for _ in range(3)] == [Place(0, 0), Place(1, 0), Place(2, 0)]
    router.among([1, 3])
    assert {router.pick(A_REQUEST) for _ in range(2)} == {Place(1, 0), Place(3, 0)}


@pytest.mark.parametrize("kind", ["round_robin", "least", "prefix"])
def test_shares_are_even_when_nothing_differs(kind: str) -> None:
    workers = _workers([0, 0], [0, 0], [0, 0])
    router = Router(kind, workers)
    for number in range(600):
        place = router.pick(Request(0.0, 40, 5, (number,)))
        assert place is not None
        workers[place.worker].running[place.rank] += 1
    assert [worker.running for worker in workers] == [[100, 100]] * 3


def test_prefix_keeps_families_together_and_is_no_worse_balanced_than_allowed() -> None:
    rng = random.Random(3)
    workers = _workers([0], [0], [0], [0])
    router = Router("prefix", workers)
    homes: dict[int, set[int]] = {}
    for _ in range(400):
        family = rng.randrange(8)
        request = Request(0.0, 40, 5, tuple(range(4 * family, 4 * family + 4)))
        place = router.pick(request)
        assert place is not None
        workers[place.worker].running[0] += 1
        workers[place.worker].caches[0] |= set(request.blocks)
        homes.setdefault(family, set()).add(place.worker)
        loads = [worker.running[0] for worker in workers]
        assert max(loads) - min(loads) <= AHEAD + 1 or max(loads) <= AHEAD_TIMES * min(loads) + 1
    assert sum(len(each) for each in homes.values()) < 8 * 4 * 0.6
