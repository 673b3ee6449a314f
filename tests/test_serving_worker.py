"""The worker against the stepwise reference: equal in rational arithmetic, within 1e-9 s in floats, whatever the policy."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from serving_reference import Reference

from dagc.serving.records import Engine, Line, Request, Served
from dagc.serving.worker import Worker

CASES = 60


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
        requests = random_load(random, kind, engine, random.choice((1, 20, 40)), random.choice((0.0, 0.01, 0.1, 1.0)))
        worker = Worker(engine)
        if all(worker.rules.refusal(request) is None for request in requests):
            return engine, requests
        seed += 100_003


@pytest.mark.parametrize("seed", range(CASES))
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
    assert Counter({k: v for k, v in worker.gaps.items() if v}) == slow.gaps
