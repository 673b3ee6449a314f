"""The worker against the stepwise reference: equal in rational arithmetic, within 1e-9 s in floats, whatever the policy."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import count, pairwise
from random import Random
from typing import Any

import pytest
from conftest import examples
from serving_reference import Reference
from tiers import in_turn, spread

from dagc.serving.records import Engine, Line, Request, Served
from dagc.serving.rules import CannotServe, Rules, refuse
from dagc.serving.worker import Worker

CASES = examples(40, 40)


class Prices:
    """Affine in context between knots, rising; other slopes for other numbers of sequences. `kind`: Fraction or float."""

    def __init__(self, kind: Any, knots: tuple[int, ...] = (), flat: bool = False) -> None:
        self.kind, self.knots, self.flat = kind, knots, flat

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        kind = self.kind
        n, p, q, m = kind(sequences), kind(prompt), kind(pairs), kind(most)
        base = (
            kind(7) / 1000 + n * kind(3) / 10000 + p * kind(5) / 100000 + q * kind(1) / 10000000 + m * kind(1) / 100000
        )
        slope = kind(0) if self.flat else kind(1) / 100000 + n * kind(1) / 10000000
        since = 0
        for knot in self.knots:
            if context < knot:
                return Line(base, slope, knot, since)
            base -= slope * knot  # the next line is twice as steep and meets this one at the knot
            slope *= 2
            since = knot
        return Line(base, slope, math.inf, since)


def random_load(random: Random, kind: Any, engine: Engine, count: int, spread: float) -> list[Request]:
    unit = engine.prefix_block or engine.kv_block
    room = engine.kv_blocks * engine.kv_block
    texts: list[tuple[int, ...]] = [()]
    fresh = iter(range(10**9))
    requests = []
    at = 0
    for _ in range(count):
        if random.random() < 0.7:
            at += random.randrange(int(1000 * spread) + 1)  # some come at once
        output = random.choice((1, 2, *(random.randrange(1, 70) for _ in range(6))))
        most = min(room - output * 3 - 8, random.choice((10, 30, 120)))
        prompt = random.randrange(1, max(most, 2))
        old = random.choice(texts)
        blocks = old[: random.randrange(len(old) + 1)]
        blocks += tuple(next(fresh) for _ in range(-(-prompt // unit) - len(blocks)))
        texts.append(blocks)
        when = Fraction(at, 1000) if kind is Fraction else at / 1000 + random.random() * 1e-4
        requests.append(Request(when, prompt, output, blocks if engine.prefix_cache else (), random.randrange(3)))
    return sorted(requests, key=lambda request: request.arrival_s)


def random_engine(random: Random, kind: Any) -> Engine:
    block = random.choice((1, 4, 16))
    tight = random.random() < 0.8
    tokens = random.choice((1, 1, 1, 1.5, 2.25, 3))
    whole = random.random() < 0.25
    return Engine(
        Prices(kind, random.choice(((), (50, 130, 300))), random.random() < 0.2),
        ranks=random.choice((1, 1, 2, 3, 4)),
        slots=random.choice((2, 16, 64, 64)),
        kv_blocks=random.randrange(230, 300) // block if tight else 1 << 20,
        kv_block=block,
        batch_tokens=random.choice((24, 100, 1000, 1000)),
        chunk=random.choice((5, 32, 1000)),
        policy=random.choice(("fcfs", "priority", "shortest")),
        prompts=random.choice(("mixed", "first")),
        admit="whole" if whole else "prompt",
        preempt=random.choice(("recompute", "swap")),
        prefix_cache=random.random() < 0.5,
        queue=random.choice((None, None, 3)),
        tokens_per_step=tokens,
        most_tokens_per_step=math.ceil(tokens) + random.randrange(2),
        draft_seed=random.choice((None, 7)),
        prefix_block=block * random.choice((0, 1, 2)),
        swap_s=kind(1) / 10000 if random.random() < 0.5 else kind(0),
        request_s=random.choice((kind(0), kind(3) / 1000)),
        balance=random.choice((0, 1, 2, 7, 60)),
        gather=random.choice((0, 0, 1, 4)),
    )


class Rows(Served):
    """Keeps exact numbers, and the order in which requests came."""

    def __init__(self) -> None:
        super().__init__(*([] for _ in range(7)))  # type: ignore[arg-type]


def simulated(engine: Engine, requests: list[Request], **more: Any) -> tuple[Worker, list[tuple[Any, ...]]]:
    served = Rows()
    numbers: list[int] = []
    worker = Worker(engine, served=served, on_finish=lambda seq, now: numbers.append(seq.no), **more)
    worker.feed(requests)
    worker.run()
    rows = zip(numbers, served.arrival_s, served.queued_s, served.ttft_s, served.e2e_s, served.cached, strict=True)
    return worker, list(rows)


def drawn(seed: int, kind: Any) -> tuple[Engine, list[Request]]:
    while True:
        random = Random(seed)
        engine = random_engine(random, kind)
        count, spread = random.choice((1, 20, 40)), random.choice((0.0, 0.01, 0.1, 1.0))
        if seed % 3 == 0:  # a cache too small for those that it lets in
            blocks = random.randrange(230, 300) // engine.kv_block
            engine = replace(
                engine,
                ranks=random.choice((1, 2)),
                slots=64,
                batch_tokens=1000,
                kv_blocks=blocks,
                admit="prompt",
                queue=None,
            )
            count, spread = 30, 0.01
        requests = random_load(random, kind, engine, count, spread)
        worker = Worker(engine)
        if all(worker.rules.refusal(request) is None for request in requests):
            return engine, requests
        seed += 99_999


@pytest.mark.parametrize("seed", spread(range(CASES), 14))
def test_skipping_is_stepping_exactly(seed: int) -> None:
    engine, requests = drawn(seed, Fraction)
    worker, rows = simulated(engine, requests)
    slow = Reference(engine, requests).run()
    assert rows == slow.served
    for name in ("finished", "rejected", "preempted", "steps", "hit_tokens", "computed_tokens"):
        assert worker.counts[name] == slow.counts[name], name
    assert worker.counts["arrived"] == slow.arrived
    for name in ("waiting", "running", "busy"):
        assert worker.integrals[name] == slow.integrals[name], name
    assert worker.gaps == slow.gaps
    if engine.ranks == 1 and not engine.prefix_cache:
        assert worker.most["blocks"] == slow.most_blocks


def usual_engine(seed: int) -> tuple[Engine, list[Request]]:
    """As drawn, with the rules under which a worker takes the loop of the usual case."""
    random = Random(seed)
    engine = replace(
        random_engine(random, Fraction),
        ranks=1,
        policy="fcfs",
        prompts="mixed",
        admit="prompt",
        queue=None,
        tokens_per_step=1,
        most_tokens_per_step=1,
    )
    requests = random_load(random, Fraction, engine, 40, random.choice((0.01, 0.1, 1.0)))
    rules = Worker(engine).rules
    return engine, [request for request in requests if seed % 2 or rules.refusal(request) is None]


@pytest.mark.parametrize("seed", spread(range(CASES), 14))
def test_the_usual_case_is_as_all_others(seed: int) -> None:
    """The same load through the loop for the usual case and, with a hook, through the one for all: equal to the last digit."""
    engine, requests = usual_engine(seed)
    outcomes = []
    for more in ({}, {"check": lambda worker: None}):
        rows = Rows()
        worker = Worker(engine, served=rows, **more)
        worker.feed(requests)
        worker.run()
        (rank,) = worker.ranks
        assert rank.held(worker.step) == rank.offset == sum(rank.ring) == 0
        counts = worker.counts
        events = counts.pop("events")
        assert events <= counts["steps"]
        outcomes.append(
            (rows, counts, worker.integrals, worker.gaps, worker.most, worker.series, worker.now, rank.tokens)
        )
    assert outcomes[0] == outcomes[1]


def test_the_cases_have_every_policy_at_work() -> None:
    engines = [drawn(seed, Fraction)[0] for seed in range(CASES)]
    for field, kinds in {
        "policy": {"fcfs", "priority", "shortest"},
        "prompts": {"mixed", "first"},
        "admit": {"prompt", "whole"},
        "preempt": {"recompute", "swap"},
        "prefix_cache": {False, True},
        "ranks": {1, 2, 3, 4},
        "balance": {0, 1, 2, 7, 60},
        "gather": {0, 1, 4},
    }.items():
        assert {getattr(engine, field) for engine in engines} == kinds
    counts: Counter[str] = Counter()
    for seed in range(CASES):
        counts.update(simulated(*drawn(seed, Fraction))[0].counts)
    assert counts["preempted"] > 50 and counts["hit_tokens"] > 1000 and counts["rejected"] > 50
    assert counts["steps"] > 2 * counts["events"]  # runs of steps are what is tested


@pytest.mark.parametrize("seed", spread(range(CASES, CASES + 20), 7))
def test_floats_are_within_a_nanosecond(seed: int) -> None:
    engine, requests = drawn(seed, float)
    _, rows = simulated(engine, requests)
    exact = replace(
        engine, prices=replaced(engine.prices), swap_s=Fraction(engine.swap_s), request_s=Fraction(engine.request_s)
    )
    slow = Reference(exact, [request._replace(arrival_s=Fraction(request.arrival_s)) for request in requests]).run()
    assert [row[0] for row in rows] == [row[0] for row in slow.served]
    for row, other in zip(rows, slow.served, strict=True):
        assert all(abs(a - b) < 1e-9 for a, b in zip(row[1:], other[1:], strict=True))


def replaced(prices: Prices) -> Prices:
    """The same prices in fractions of the same numbers."""
    return Prices(lambda value: Fraction(float(value)), prices.knots, prices.flat)


@pytest.mark.parametrize("seed", range(0, CASES, 3))
def test_nothing_is_lost_at_any_event(seed: int) -> None:
    engine, requests = drawn(seed, Fraction)
    times = [0]

    def check(worker: Worker) -> None:
        counts, shared = worker.counts, worker.shared
        assert counts["arrived"] == counts["finished"] + counts["rejected"] + sum(worker.waiting) + sum(worker.running)
        assert shared.waiting_all == sum(worker.waiting) and shared.running_all == sum(worker.running)
        assert worker.requests == [waits + runs for waits, runs in zip(worker.waiting, worker.running, strict=True)]
        assert worker.now >= times[-1]
        times.append(worker.now)
        alive = [entry[2] for entry in shared.ends if entry is entry[2].entry]
        for rank in worker.ranks:
            decoding = [seq for seq in alive if seq.rank == rank.index]
            assert (
                len(rank.queue)
                == worker.waiting[rank.index]
                <= (10**9 if engine.queue is None else engine.queue + worker.running[rank.index] + 999)
            )
            assert (
                len(decoding) == rank.decoding
                and len(decoding) + len(rank.under_way) == worker.running[rank.index] <= worker.rules.slots
            )
            step = worker.step - rank.skipped
            context = sum(seq.alone + worker.rules.growth * step for seq in decoding)
            assert context == rank.offset + rank.decoding * worker.rules.growth * step
            held = sum(seq.own for seq in rank.under_way)
            for seq in decoding:
                tokens = seq.alone + worker.rules.growth * (step - 1)
                own = -(-(tokens + worker.rules.ahead) // worker.rules.size) - seq.refs * worker.rules.unit_blocks
                held += seq.own if worker.rules.whole else own
            text = rank.cache.held if rank.cache is not None else 0
            assert held + text * worker.rules.unit_blocks == rank.held(worker.step) <= engine.kv_blocks
            assert rank.held(worker.step) + worker.free_blocks(rank.index) == engine.kv_blocks

    worker, _ = simulated(engine, requests, check=check)
    assert len(times) == worker.events + 1
    counts = worker.counts
    assert counts["arrived"] == len(requests) == counts["finished"] + counts["rejected"]
    assert not sum(worker.waiting) + sum(worker.running)
    assert all(rank.held(worker.step) == 0 == rank.offset == rank.decoding for rank in worker.ranks)
    done = [request for request in requests if worker.rules.refusal(request) is None]
    assert counts["output_tokens"] <= sum(request.output for request in done)
    if not counts["preempted"] and not counts["rejected"]:
        assert (
            counts["computed_tokens"] + counts["hit_tokens"]
            == counts["prompt_tokens"]
            == sum(request.prompt for request in requests)
        )


@pytest.mark.parametrize("seed", range(20))
def test_of_many_ranks_what_is_kept_is_what_a_look_at_all_of_them_finds(seed: int) -> None:
    engine, requests = drawn(seed, Fraction)
    engine = replace(engine, ranks=(5, 16)[seed % 2])
    asked = []

    class Looks(Worker):
        def _fullest(self, working: set[int]) -> tuple[int, int, int]:
            context, grows, steps = found = super()._fullest(working)
            ranks = [rank for rank in self.ranks if rank.decoding and rank.index not in working]
            faster = {rank.index: rank.decoding * self.rules.growth for rank in ranks}
            at = {rank.index: rank.offset + faster[rank.index] * (self.step - rank.skipped) for rank in ranks}
            assert (context, grows) == max(((at[k], faster[k]) for k in at), default=(0, 0))
            others = [(at[k], faster[k]) for k in at if faster[k] > grows]
            if others:  # the first step in which another one is fuller
                assert all(other + more * (steps - 1) <= context + grows * (steps - 1) for other, more in others)
                assert any(other + more * steps > context + grows * steps for other, more in others)
            else:
                assert steps > 10**9
            asked.append(bool(others))
            return found

    def check(worker: Worker) -> None:
        for step in (worker.step, worker.step + 3):
            assert worker._held_after(step) == sum(rank.held(step) for rank in worker.ranks)
        for rank in worker.ranks:
            rank.look()
        assert worker.shared.held == sum(rank.blocks for rank in worker.ranks)

    worker = Looks(engine, check=check)
    worker.feed(requests)
    worker.run()
    assert worker.counts["finished"] and asked


@pytest.mark.parametrize("seed", range(1, CASES, 4))
def test_driven_from_outside_it_does_the_same(seed: int) -> None:
    """Stopped at every arrival and at every event, as pools do it."""
    engine, requests = drawn(seed, Fraction)
    _, rows = simulated(engine, requests)
    again: list[tuple[Any, ...]] = []

    def finished(seq: Any, now: Any) -> None:
        arrival = seq.request.arrival_s
        again.append((seq.no, arrival, seq.started_s - arrival, seq.first_s - arrival, now - arrival, seq.cached))

    worker = Worker(engine, on_finish=finished)
    pending = [(request.arrival_s + engine.request_s, request) for request in requests]
    event: Any = math.inf
    while pending or event < math.inf:
        at = pending[0][0] if pending else math.inf
        time = min(at, event)
        worker.run_until(time)
        while pending and pending[0][0] == time:
            worker.add(pending.pop(0)[1], at_s=time)
        event = worker.next_event_s()
        assert event > time
    assert again == rows


@pytest.mark.parametrize("kind", ["brought", "held", "turned"])
@pytest.mark.parametrize("seed", range(12))
def test_caches_that_come_late_are_held_or_wait_for_a_turn_are_all_served(seed: int, kind: str) -> None:
    """Hooks at random: nothing hangs, everybody is served, every block comes back."""
    engine, requests = drawn(seed, Fraction)
    engine = replace(engine, queue=None)
    random = Random(seed)
    later: list[tuple[Any, int, Any]] = []
    ended = []
    numbers = count()

    def at(time: Any, what: Any) -> None:
        heapq.heappush(later, (time, next(numbers), what))

    def delay() -> Fraction:
        return Fraction(random.randrange(60), 1000)

    def on_room(seq: Any, now: Any) -> bool:
        if random.random() < 0.3:
            return True
        at(now + delay(), lambda time: worker.arrived(seq, time))
        return False

    def on_finish(seq: Any, now: Any) -> bool:
        ended.append(seq.no)
        if kind == "held":
            at(now + delay(), lambda time: worker.release(seq, time))
        return False

    worker = Worker(engine, on_room=on_room, on_finish=on_finish, hold=kind == "held")
    for request in requests:
        brought = kind == "brought" and request.output > 1 and random.random() < 0.7
        one = request._replace(output=1) if kind == "held" else request
        at(
            request.arrival_s,
            lambda time, one=one, brought=brought: worker.add(one, at_s=time, first_s=time if brought else None),
        )
    if kind == "turned":
        for time in range(1, 40):
            admits, decodes = random.choice(((True, False), (False, True), (True, True)))
            at(Fraction(time, 20), lambda now, admits=admits, decodes=decodes: worker.turn(admits, decodes, now))
        at(Fraction(2), lambda now: worker.turn(True, True, now))
    event: Any = math.inf
    while later or event < math.inf:
        time = min(later[0][0] if later else math.inf, event)
        worker.run_until(time)
        while later and later[0][0] == time:
            heapq.heappop(later)[2](time)
        event = worker.next_event_s()
        assert event > time
    assert sorted(ended) == list(range(len(requests)))
    assert not any(rank.held(worker.step) for rank in worker.ranks)


def affine(base: float, per_prompt: float = 0.0, per_sequence: float = 0.0, per_context: float = 0.0) -> Any:
    class Affine:
        def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
            return Line(base + per_prompt * prompt + per_sequence * sequences, per_context, math.inf, 0)

    return Affine()


def served(engine: Engine, requests: Any) -> Served:
    rows = Served()
    worker = Worker(engine, served=rows)
    worker.feed(requests)
    worker.run()
    return rows


def test_a_request_alone_takes_its_prefill_and_a_step_per_further_token() -> None:
    rows = served(Engine(affine(1e-2, 1e-4, 2e-3, 1e-6)), [Request(5.0, 100, 8)])
    first = 1e-2 + 1e-4 * 100
    assert rows.ttft_s[0] == pytest.approx(first, rel=1e-12)
    steps = sum(1e-2 + 2e-3 + 1e-6 * (100 + j) for j in range(1, 8))
    assert rows.e2e_s[0] == pytest.approx(first + steps, rel=1e-12)


def test_chunks_of_a_prompt_and_pairs() -> None:
    asked = []

    class Prices:
        def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
            asked.append((sequences, context, prompt, pairs, most))
            return Line(1.0, 0.0, math.inf, 0)

    served(Engine(Prices(), batch_tokens=50, chunk=40), [Request(0.0, 100, 3), Request(0.0, 30, 1)])
    # 40; 40 and 10 of the next; 20 and 20 (its rest); then a step of decode at 101 and at 102 tokens
    pairs = [40 * 41 // 2, 40 * 40 + 40 * 41 // 2 + 55, 20 * 80 + 210 + 20 * 10 + 210]
    # the second prompt goes on with what is left of the budget in the first step too
    assert asked[0] == (0, 0, 50, pairs[0] + 55, 50)
    assert [step[2] for step in asked[:3]] == [50, 50, 30]
    assert asked[-1][:2] == (1, 101)


def poisson(random: Random, rate: float, count: int, output: Any) -> list[Request]:
    at, requests = 0.0, []
    for _ in range(count):
        at += random.expovariate(rate)
        requests.append(Request(at, 1, output()))
    return requests


def lindley(requests: list[Request], step_s: float) -> list[float]:
    """How long each waits for a single server: what is left of the wait and the service before when it comes."""
    waits = [0.0]
    for before, request in pairwise(requests):
        waits.append(max(0.0, waits[-1] + before.output * step_s - (request.arrival_s - before.arrival_s)))
    return waits


@pytest.mark.parametrize(("law", "load"), in_turn(["fixed", "geometric"], [0.3, 0.7]))
def test_one_slot_is_the_queue_of_the_books(load: float, law: str) -> None:
    """One slot, services of 100 steps, or of geometrically many: every wait is that of Lindley's recursion, the mean of which is that
    of M/D/1 and M/M/1."""
    mean, count = 100, 60_000
    random = Random(3)

    def geometric() -> int:
        return 1 + int(math.log(1 - random.random()) / math.log(1 - 1 / mean))

    requests = poisson(random, load, count, geometric if law == "geometric" else lambda: mean)
    waits = lindley(requests, 1 / mean)
    known = load / (1 - load) if law == "geometric" else load / (2 * (1 - load))
    assert sum(waits) / count == pytest.approx(known, rel=0.08 if law == "geometric" else 0.06)
    first = 4_000
    rows = served(Engine(affine(1 / mean), slots=1), requests[:first])
    assert max(rows.queued_s) > 2 and list(rows.queued_s) == pytest.approx(waits[:first], abs=1e-9)


def test_a_closed_loop_obeys_little() -> None:
    """Clients that send again at once: their number is rate times time in the system, and a slot serves one at a time."""
    clients, slots, left = 12, 4, 2000
    ends: list[float] = []

    def again(seq: Any, now: float) -> None:
        ends.append(now)
        if len(ends) + clients <= left:
            worker.add(Request(now, 10, 20))

    rows = Served()
    worker = Worker(Engine(affine(0.01, 1e-4, 1e-3), slots=slots), served=rows, on_finish=again)
    worker.feed([Request(0.0, 10, 20) for _ in range(clients)])
    worker.run()
    assert len(ends) == left
    early = [e2e for arrival, e2e in zip(rows.arrival_s, rows.e2e_s, strict=True) if 10 < arrival < ends[-1] - 20]
    rate = sum(10 < end < ends[-1] - 20 for end in ends) / (ends[-1] - 30)
    assert rate * sum(early) / len(early) == pytest.approx(clients, rel=0.02)
    assert worker.most["running"] == slots and worker.most["waiting"] == clients


def test_with_room_for_all_nobody_waits() -> None:
    random = Random(5)
    requests = poisson(random, 50.0, 2000, lambda: random.randrange(1, 60))
    rows = served(Engine(affine(1e-3), slots=1 << 20, batch_tokens=1 << 20), requests)
    assert max(rows.queued_s) <= 1e-3 + 1e-9  # the rest of the step that runs when they come


def test_more_traffic_waits_longer_and_more_memory_serves_no_less() -> None:
    random = Random(6)
    base = [
        Request(request.arrival_s, random.randrange(1, 400), request.output)
        for request in poisson(random, 1.0, 1500, lambda: random.randrange(1, 120))
    ]
    engine = Engine(affine(5e-3, 2e-5, 1e-4, 1e-7), slots=32, kv_blocks=600)

    def run(engine: Engine, rate: float) -> tuple[float, float]:
        rows = served(engine, [request._replace(arrival_s=request.arrival_s / rate) for request in base])
        return sum(rows.ttft_s) / len(base), max(a + e for a, e in zip(rows.arrival_s, rows.e2e_s, strict=True))

    means = [run(engine, rate)[0] for rate in (2.0, 8.0, 20.0, 50.0)]
    assert means == sorted(means) and means[-1] > 3 * means[0]
    ends = [run(replace(engine, kv_blocks=blocks), 50.0)[1] for blocks in (120, 300, 600, 5000)]
    assert ends == sorted(ends, reverse=True)
    ends = [run(replace(engine, slots=slots), 50.0)[1] for slots in (2, 8, 32)]
    assert ends == sorted(ends, reverse=True)


def test_what_never_fits_is_turned_away_in_a_stream_and_named_in_a_list() -> None:
    engine = Engine(affine(1.0), kv_blocks=10)
    requests = [Request(0.0, 100, 10), Request(0.0, 150, 12), Request(0.0, 0, 1)]
    with pytest.raises(
        CannotServe, match=r"request 2: a request of 150 prompt and 12 output tokens needs 11 blocks of 16 tokens"
    ):
        refuse(Rules(engine), requests)
    refused = []
    worker = Worker(engine, on_reject=lambda request, now: refused.append(request))
    worker.feed(requests)
    worker.run()
    assert refused == requests[1:] and worker.counts["too_long"] == 2 and worker.counts["finished"] == 1


@pytest.mark.parametrize(
    "change",
    [{"prefix_block": 24}, {"batch_tokens": 0}, {"batch_tokens": 2, "most_tokens_per_step": 3, "tokens_per_step": 2}],
)
def test_rules_that_serve_nobody_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CannotServe):
        Worker(Engine(affine(1.0), **change))


def test_a_full_hit_computes_the_last_token() -> None:
    engine = Engine(affine(1.0), prefix_cache=True, kv_block=16)
    rows = served(
        engine,
        [Request(0.0, 64, 2, (1, 2, 3, 4)), Request(10.0, 64, 2, (1, 2, 3, 4)), Request(20.0, 70, 2, (1, 2, 9, 8))],
    )
    assert list(rows.cached) == [0, 63, 32]


def test_integrals_of_blocks_and_tokens_are_near_those_of_steps() -> None:
    random = Random(9)
    requests = [
        Request(r.arrival_s, random.randrange(50, 400), r.output)
        for r in poisson(random, 4.0, 150, lambda: random.randrange(20, 200))
    ]
    engine = Engine(Prices(Fraction), kv_blocks=700, batch_tokens=512, chunk=256)
    exact = [request._replace(arrival_s=Fraction(request.arrival_s).limit_denominator(1000)) for request in requests]
    worker, _ = simulated(engine, exact)
    slow = Reference(engine, exact).run()
    assert worker.integrals["blocks"] == pytest.approx(float(slow.integrals["blocks"]), rel=0.01)
    assert worker.integrals["tokens"] == pytest.approx(float(slow.integrals["tokens"]), rel=0.01)


@pytest.mark.parametrize("kv_block", [1, 16, 256])
def test_empty_places_of_blocks(kv_block: int) -> None:
    """255 steps of decode with 2,048 to 2,302 tokens, the blocks of which have a place for the token of the step."""
    worker, _ = simulated(Engine(affine(1.0), kv_block=kv_block), [Request(0, 2048, 256)])
    tokens = [2048, *(2048 + i for i in range(255))]
    blocks = [2048 // kv_block, *(-(-(2049 + i) // kv_block) for i in range(255))]
    assert worker.integrals["tokens"] == pytest.approx(sum(tokens))
    assert worker.integrals["blocks"] == pytest.approx(sum(blocks))
    assert worker.most["blocks"] == max(blocks)


def test_columns_of_a_stream_are_small() -> None:
    rows = served(Engine(affine(1e-3)), (Request(i * 1e-2, 10, 3) for i in range(100)))
    assert sum(getattr(rows, name).itemsize for name in Served.__dataclass_fields__) <= 64
    assert {len(getattr(rows, name)) for name in Served.__dataclass_fields__} == {100}


def test_series_keep_their_size() -> None:
    worker = Worker(Engine(affine(1e-2)), sample_s=1e-3)
    worker.feed(Request(i * 0.5, 10, 30) for i in range(200))
    worker.run()
    times = worker.series["time_s"]
    assert 200 <= len(times) <= 512 and times[0] == 0
    assert all(b - a == pytest.approx(times[1]) for a, b in pairwise(times))
    assert len({len(column) for column in worker.series.values()}) == 1
