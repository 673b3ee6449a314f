"""Several workers: against a slow simulation of all of them step by step, exactly; against closed forms; and laws that always hold."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from conftest import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pools_reference import Several
from tiers import exhaustive, in_turn, spread

from dagc.serving.pools import Run
from dagc.serving.records import Engine, Line, Load, Outcome, Request, Setup, Switch, Transfer, Workers
from dagc.serving.result import measured
from dagc.serving.rules import CannotServe
from dagc.serving.simulate import simulate
from dagc.spec.serve import Arrivals

F = Fraction


class Prices:
    """A step's time out of all it is asked for, in fractions. `fixed`: every step takes this."""

    def __init__(self, fixed: Any = None) -> None:
        self.fixed = fixed

    def step(self, sequences: Any, context: Any, prompt: Any = 0, pairs: Any = 0, most: Any = 0) -> Line:
        if self.fixed is not None:
            return Line(self.fixed, 0, 10**18, 0)
        # a worker hands over means as floats; they are fractions of few ranks
        means = F(sequences).limit_denominator(16) / 3000 + F(prompt).limit_denominator(16) / 9000
        return Line(F(1, 100) + means + F(pairs, 10**6) + F(most, 50000), F(1, 90000), 10**18, 0)


def engine(**more: Any) -> Engine:
    return Engine(**{"prices": Prices(), "request_s": 0, "swap_s": F(0), "admit": "whole", **more})


def requests(seed: int, count: int, most_gap: int) -> Iterator[Request]:
    """Gaps of up to `most_gap` hundredths of a second, many of them 0; many short outputs."""
    rng, at = random.Random(seed), F(0)
    for _ in range(count):
        at += F(rng.randint(0, most_gap), 100)
        yield Request(at, rng.randint(1, 60), rng.choice([1, 2, 3, rng.randint(1, 40)]))


def random_setup(rng: random.Random, kind: str) -> Setup:
    def some(queue: int | None = None) -> Engine:
        return engine(
            ranks=rng.choice([1, 1, 2, 3]),
            slots=rng.randint(1, 5),
            kv_blocks=rng.choice([8, 20, 1000]),
            kv_block=rng.choice([13, 16]),
            batch_tokens=rng.choice([30, 64, 200]),
            chunk=rng.choice([7, 20, 64]),
            prompts=rng.choice(["mixed", "first"]),
            queue=queue,
        )

    queue = rng.choice([None, None, 1, 3])
    route = rng.choice(["round_robin", "least"])
    transfer = Transfer(rng.choice([0, F(1, 50)]), rng.choice([0, F(1, 1000), F(1, 100)]), rng.random() < 0.5)
    if kind == "equal":
        return Setup((Workers("both", rng.randint(1, 4), some(queue)),), route)
    if kind == "apart":
        workers = (Workers("prefill", rng.randint(1, 3), some(queue)), Workers("decode", rng.randint(1, 3), some()))
        return Setup(workers, route, transfer)
    switch = Switch(rng.choice([0, F(1, 10), 2]), rng.choice([1, 2, 4]), rng.choice([1, 2]))
    more = random.Random(f"{switch.ratio} {transfer.latency_s}")  # other setups stay those that they were
    switch = replace(switch, back_s=more.choice([None, F(1, 7)]), per_token_s=more.choice([0, F(1, 500)]))
    count = 1 if kind == "alone" else rng.randint(2, 5)
    return Setup((Workers("both", count, some(queue)),), route, transfer, switch)


def rows(outcome: Outcome) -> list[tuple[float, float, float]]:
    served = outcome.served
    return sorted(zip(served.arrival_s, served.ttft_s, served.e2e_s, strict=True))


def run(setup: Setup, load: Load) -> Outcome:
    """By the driver, also where one worker alone would do."""
    driver = Run(setup, load)
    driver.run()
    return driver.outcome()


# 650: a worker that leaves is empty by a hand-over that takes no time
@pytest.mark.parametrize("seed", spread([*range(16), 650], {0, 1, 2, 650}))
@pytest.mark.parametrize("kind", ["equal", "apart", "switched", "alone"])
def test_equal_to_a_simulation_of_every_step(kind: str, seed: int) -> None:
    for number in (seed, seed + 100):
        rng = random.Random(number)
        setup = random_setup(rng, kind)
        count, gap = rng.choice([5, 30, 60]), rng.choice([200, 40, 10])
        more = (rng.choice([0, 0, 1, 3, 12]), rng.choice([0, F(1, 10), 3]), rng.choice([None, None, F(3)]))

        def load(number: int = number, count: int = count, gap: int = gap, more: Any = more) -> Load:
            return Load(requests(number, count, gap), *more)

        outcome = run(setup, load())
        slow = Several(setup, load())
        slow.run()
        expected = sorted(
            (float(d.arrival_s), float(d.first_s - d.arrival_s), float(d.end_s - d.arrival_s)) for d in slow.done
        )
        assert rows(outcome) == expected
        counts = outcome.counts
        assert (counts["arrived"], counts["rejected"], counts["switches"]) == (
            slow.arrived,
            slow.rejected,
            slow.switches,
        )
        assert counts["finished"] == len(slow.done) == counts["arrived"] - counts["rejected"]
        assert outcome.end_s == max((d.end_s for d in slow.done), default=0)


def test_a_worker_alone_is_the_same_with_and_without_the_driver() -> None:
    for seed in range(examples(20)):
        setup = replace(random_setup(random.Random(seed), "equal"), route="round_robin")
        setup = replace(setup, workers=(Workers("both", 1, replace(setup.workers[0].engine, admit="prompt")),))
        load = [list(requests(seed, 60, 20)) for _ in range(2)]
        assert rows(run(setup, Load(load[0]))) == rows(simulate(setup, Load(load[1])))


def test_round_robin_over_workers_is_so_many_independent_workers() -> None:
    each = engine(slots=3, kv_blocks=30, batch_tokens=64, chunk=20, admit="prompt")
    all_of_them = list(requests(5, 120, 8))
    together = rows(run(Setup((Workers("both", 3, each),)), Load(all_of_them)))
    apart = [rows(simulate(Setup((Workers("both", 1, each),)), Load(all_of_them[w::3]))) for w in range(3)]
    assert together == sorted(itertools.chain(*apart))


# ---- laws


def conserved(outcome: Outcome, chunks: bool = False, plain: bool = True) -> None:
    """What is in the system at any time, over all time, is what each request spends there; nothing is lost."""
    counts, served = outcome.counts, outcome.served
    assert counts["finished"] == len(served.e2e_s) == counts["arrived"] - counts["rejected"]
    assert counts["output_tokens"] == sum(served.output)
    assert counts["prompt_tokens"] == sum(served.prompt)
    inside = sum(v for k, v in outcome.integrals.items() if k.endswith((".waiting", ".running")))
    spent = sum(served.e2e_s)
    if chunks:  # a request that is computed here may wait there
        assert float(inside) >= spent * (1 - 1e-9)
    else:
        assert float(inside) == pytest.approx(spent, rel=1e-9, abs=1e-9)
    if plain:  # a gap per token but the first; drafts bring several at once
        assert sum(outcome.gaps.values()) == pytest.approx(sum(served.output) - len(served.output))
    assert all(0 < t <= e for t, e in zip(served.ttft_s, served.e2e_s, strict=True))


anything = st.fixed_dictionaries(
    {
        "ranks": st.integers(1, 3),
        "slots": st.integers(1, 4),
        "kv_blocks": st.integers(8, 16),
        "kv_block": st.sampled_from([8, 16]),
        "batch_tokens": st.sampled_from([8, 32, 100]),
        "chunk": st.sampled_from([5, 16, 100]),
        "policy": st.sampled_from(["fcfs", "priority", "shortest"]),
        "prompts": st.sampled_from(["mixed", "first"]),
        "admit": st.sampled_from(["prompt", "whole"]),
        "preempt": st.sampled_from(["recompute", "swap"]),
        "prefix_cache": st.booleans(),
        "queue": st.sampled_from([None, 1, 4]),
        "tokens_per_step": st.sampled_from([1, 1.5]),
        "most_tokens_per_step": st.sampled_from([1, 3]),
    }
)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=anything,
    second=anything,
    counts=st.tuples(st.integers(1, 3), st.integers(0, 3)),
    route=st.sampled_from(["round_robin", "least", "prefix"]),
    transfer=st.builds(Transfer, st.sampled_from([0.0, 0.02]), st.sampled_from([0.0, 0.001]), st.booleans()),
    switch=st.none() | st.builds(Switch, st.sampled_from([0.0, 0.5]), st.integers(1, 3), st.integers(1, 2)),
    clients=st.sampled_from([0, 0, 1, 7]),
    gap=st.sampled_from([0.0, 0.02, 0.3]),
    seed=st.integers(0, 999),
)
def test_any_setup_ends_and_loses_nothing(
    first: Any,
    second: Any,
    counts: Any,
    route: str,
    transfer: Transfer,
    switch: Any,
    clients: int,
    gap: float,
    seed: int,
) -> None:
    rng, at, traffic = random.Random(seed), 0.0, []
    for _ in range(40):
        at += rng.random() * gap
        family = rng.randrange(3)
        blocks = tuple(range(10 * family, 10 * family + rng.randint(0, 4)))
        traffic.append(Request(at, rng.randint(1, 50), rng.randint(1, 14), blocks, rng.randrange(3)))
    prices = Prices(0.01)
    groups = (
        Workers(
            "both" if switch is not None or not counts[1] else "prefill", counts[0], engine(prices=prices, **first)
        ),
    )
    if switch is None and counts[1]:
        groups += (Workers("decode", counts[1], engine(prices=prices, **second)),)
    setup = Setup(groups, route, transfer, switch)
    outcome = run(setup, Load(traffic, clients, 0.1))
    conserved(outcome, transfer.chunks, first["tokens_per_step"] == second["tokens_per_step"] == 1)
    again = run(setup, Load(traffic, clients, 0.1))
    assert (rows(again), again.counts, again.integrals) == (rows(outcome), outcome.counts, outcome.integrals)


@pytest.mark.parametrize(("kind", "think_s"), in_turn(["equal", "apart", "switched"], [0, F(1, 4)]))
def test_clients_of_a_closed_loop_are_thinking_or_served(kind: str, think_s: Any) -> None:
    """Little: C = rate x (E2E + think), but for the drain at the end, which is no longer than a request."""
    clients, count = 6, 600
    each = engine(slots=4, kv_blocks=60, batch_tokens=64, chunk=20)
    groups = {
        "equal": (Workers("both", 2, each),),
        "apart": (Workers("prefill", 1, each), Workers("decode", 1, each)),
        "switched": (Workers("both", 2, each),),
    }[kind]
    setup = Setup(groups, "least", Transfer(F(1, 100), F(1, 10000)), Switch(F(1, 10)) if kind == "switched" else None)
    outcome = run(setup, Load(requests(1, count, 0), clients, think_s))
    conserved(outcome)
    spent = sum(outcome.served.e2e_s) + count * float(think_s)
    longest = max(outcome.served.e2e_s) + float(think_s)
    assert -float(think_s) < float(outcome.end_s) - spent / clients < longest
    assert spent / clients / float(outcome.end_s) == pytest.approx(1, rel=0.05)
    in_the_system = [
        sum(a <= t < a + e - 1e-9 for a, e in zip(outcome.served.arrival_s, outcome.served.e2e_s, strict=True))
        for t in outcome.served.arrival_s
    ]
    assert max(in_the_system) <= clients


# ---- closed forms


def poisson(seed: int, count: int, rate: float, mean_steps: float) -> Iterator[Request]:
    """Poisson arrivals of requests whose steps are geometric: near exponential service times."""
    rng, at = random.Random(seed), 0.0
    for _ in range(count):
        at += rng.expovariate(rate)
        yield Request(at, 1, 1 + int(rng.expovariate(1 / mean_steps)))


def mean_wait_s(setup: Setup, load: Load) -> float:
    queued_s = run(setup, load).served.queued_s
    return sum(queued_s) / len(queued_s)


STEP_S, STEPS, COUNT = 0.001, 100, 12_000
SERVICE_S = STEP_S * (STEPS + 0.5)


def one_slot(count: int, route: str, slots: int = 1) -> Setup:
    return Setup((Workers("both", count, engine(prices=Prices(STEP_S), slots=slots)),), route)


def erlang_c(servers: int, rate: float, service_s: float) -> float:
    """Mean wait of M/M/c."""
    offered, term, total = rate * service_s, 1.0, 0.0
    for k in range(servers):
        total += term
        term *= offered / (k + 1)
    term /= 1 - offered / servers
    return term / (total + term) * service_s / (servers - offered)


def erlang_arrivals(stages: int, rate: float, service_s: float) -> float:
    """Mean wait of E_c/M/1: GI/M/1 with the root of sigma = A*(mu (1 - sigma))."""
    mu, sigma = 1 / service_s, 0.5
    for _ in range(500):
        sigma = (stages * rate / (stages * rate + mu * (1 - sigma))) ** stages
    return sigma / (mu * (1 - sigma))


@pytest.mark.parametrize("servers", spread([1, 3], {3}))
def test_slots_of_one_worker_are_servers_with_one_queue(servers: int) -> None:
    """M/M/c. A request that comes while others run waits for the end of their step: half of one."""
    rate = 0.7 * servers / SERVICE_S
    busy = 1 - (1 - 0.7) ** servers if servers == 1 else 0.95
    wait_s = mean_wait_s(one_slot(1, "least", servers), Load(poisson(11, COUNT, rate, STEPS)))
    assert wait_s == pytest.approx(erlang_c(servers, rate, SERVICE_S) + busy * STEP_S / 2, rel=0.1)


def test_round_robin_makes_arrivals_of_each_worker_more_even() -> None:
    """Every third of a Poisson stream: gaps of three exponential stages."""
    rate = 0.7 * 3 / SERVICE_S
    wait_s = mean_wait_s(one_slot(3, "round_robin"), Load(poisson(12, COUNT, rate, STEPS)))
    assert wait_s == pytest.approx(erlang_arrivals(3, rate / 3, SERVICE_S), rel=0.1)


@exhaustive
def test_least_loaded_is_between_one_queue_and_round_robin() -> None:
    rate = 0.7 * 3 / SERVICE_S
    waits = [
        mean_wait_s(setup, Load(poisson(13, COUNT, rate, STEPS)))
        for setup in (one_slot(1, "least", 3), one_slot(3, "least"), one_slot(3, "round_robin"))
    ]
    assert waits[0] < 0.95 * waits[1] < 0.9 * waits[2]


def test_full_slots_of_a_closed_loop_end_one_request_per_service_time() -> None:
    """C clients on c one-slot workers, C >= c, all requests alike: each worker ends one every `steps` steps."""
    outcome = run(one_slot(3, "least"), Load(itertools.repeat(Request(0, 1, 10), 300), clients=5))
    assert float(outcome.end_s) == pytest.approx(300 / 3 * 10 * STEP_S)
    assert outcome.integrals["both.busy"] == pytest.approx(3 * outcome.end_s)


# ---- prefill and decode apart


FREE = Transfer(0, 0)


def apart(prefill: int = 1, decode: int = 1, transfer: Transfer = FREE, **more: Any) -> Setup:
    each = engine(**{"batch_tokens": 20, "chunk": 20, "slots": 8, **more})
    return Setup((Workers("prefill", prefill, each), Workers("decode", decode, each)), "least", transfer)


def price(sequences: int, context: int, prompt: int = 0, pairs: int = 0) -> Fraction:
    line = Prices().step(sequences, context, prompt, pairs, prompt)
    return line.base_s + line.per_token_s * context


def alone_s(prompt: int, output: int) -> tuple[Fraction, Fraction]:
    """Time of the chunks of 20 of a request alone, and of its decode steps."""
    chunks = [(start, min(20, prompt - start)) for start in range(0, prompt, 20)]
    first = sum((price(0, 0, c, c * s + c * (c + 1) // 2) for s, c in chunks), F(0))
    return first, sum((price(1, prompt + j) for j in range(1, output)), F(0))


def test_a_request_alone_is_its_prefill_its_transfer_and_its_decode() -> None:
    first, rest = alone_s(50, 7)
    for chunks, exposed in ((False, 50), (True, 10)):
        outcome = run(apart(transfer=Transfer(F(1, 500), F(1, 10000), chunks)), Load([Request(0, 50, 7)]))
        sent = F(1, 500) + F(exposed, 10000)
        assert rows(outcome) == [(0.0, float(first), float(first + sent + rest))]
        assert outcome.counts["sent_tokens"] == 50


def test_a_link_slower_than_prefill_is_exposed_in_chunks_too() -> None:
    """Chunks of 20, 20 and 10 tokens, each sent after the one before."""
    slow = F(1, 100)  # seconds per token: a chunk takes longer to send than to compute
    first, rest = alone_s(50, 7)
    begin = price(0, 0, 20, 210)
    outcome = run(apart(transfer=Transfer(0, slow, True)), Load([Request(0, 50, 7)]))
    assert rows(outcome) == [(0.0, float(first), float(begin + 50 * slow + rest))]


def test_one_token_needs_no_decode_worker() -> None:
    outcome = run(apart(transfer=Transfer(5, 1)), Load([Request(0, 50, 1)]))
    assert rows(outcome) == [(0.0, float(alone_s(50, 1)[0]), float(alone_s(50, 1)[0]))]
    assert outcome.counts["sent_tokens"] == 0


def test_a_link_sends_one_cache_after_the_other() -> None:
    """Two prompts that end in one step, output of two tokens each: the second cache arrives one transfer later."""
    load = Load([Request(0, 10, 2), Request(0, 10, 2)])
    outcome = run(apart(transfer=Transfer(F(1, 2), 0)), load)
    first = price(0, 0, 20, 2 * 55)
    step = price(1, 11)
    assert rows(outcome) == [
        (0.0, float(first), float(first + F(1, 2) + step)),
        (0.0, float(first), float(first + 1 + step)),
    ]
    # by two workers at once
    outcome = run(apart(2, transfer=Transfer(F(1, 2), 0)), Load([Request(0, 10, 2), Request(0, 10, 2)]))
    first = price(0, 0, 10, 55)
    assert rows(outcome) == [(0.0, float(first), float(first + F(1, 2) + price(2, 22)))] * 2


def test_a_cache_holds_its_blocks_until_it_is_sent() -> None:
    """Room for one prompt at a time on the prefill worker: the next one starts when the cache of the first has gone."""
    setup = apart(transfer=Transfer(3, 0), kv_blocks=4, kv_block=16)
    outcome = run(setup, Load([Request(0, 50, 2), Request(0, 50, 2)]))
    first, rest = alone_s(50, 2)
    assert rows(outcome) == [
        (0.0, float(first), float(first + 3 + rest)),
        (0.0, float(2 * first + 3), float(2 * (first + 3) + rest)),
    ]


def test_a_cache_waits_for_room_at_the_decode_worker() -> None:
    """One slot there: the second request waits on the prefill worker for the end of the first, and is sent then."""
    one, two = apart(transfer=Transfer(F(1, 2), 0)).workers
    setup = Setup((one, replace(two, engine=replace(two.engine, slots=1))), "least", Transfer(F(1, 2), 0))
    outcome = run(setup, Load([Request(0, 10, 9), Request(0, 10, 9)]))
    first, rest = price(0, 0, 20, 110), alone_s(10, 9)[1]
    assert rows(outcome) == [
        (0.0, float(first), float(first + F(1, 2) + rest)),
        (0.0, float(first), float(first + 2 * (F(1, 2) + rest))),
    ]


def test_with_free_links_the_first_token_is_that_of_the_prefill_workers_alone() -> None:
    """What decode does, does not matter to them; and the whole is as fast as the slower of both."""
    traffic = list(requests(8, 150, 3))
    both = run(apart(2, 2), Load(traffic))
    alone = run(
        Setup((apart().workers[0].__class__("both", 2, apart().workers[0].engine),), "least"),
        Load([r._replace(output=1) for r in traffic]),
    )
    assert [row[:2] for row in rows(both)] == [row[:2] for row in rows(alone)]


@pytest.mark.parametrize("slower", ["prefill", "decode"])
def test_with_free_links_the_rate_is_that_of_the_slower_pool(slower: str) -> None:
    step_s = {"prefill": 0.01, "decode": 0.01, slower: 0.1}
    one, two = (
        Workers(role, 2, engine(prices=Prices(step_s[role]), slots=4, batch_tokens=10, chunk=10))
        for role in ("prefill", "decode")
    )
    outcome = run(
        Setup((one, two), "least", Transfer(0, 0)), Load(itertools.repeat(Request(0, 10, 5), 2000), clients=60)
    )
    # a step of a prefill worker is a prompt; 4 steps of a decode worker are 4 outputs
    alone = {"prefill": 2 / step_s["prefill"], "decode": 2 * 4 / 4 / step_s["decode"]}
    assert 2000 / outcome.end_s == pytest.approx(min(alone.values()), rel=0.02)
    assert outcome.integrals[f"{slower}.busy"] / (2 * outcome.end_s) == pytest.approx(1, abs=0.02)
    other = "decode" if slower == "prefill" else "prefill"
    assert outcome.integrals[f"{other}.busy"] / (2 * outcome.end_s) < 0.5


# ---- roles


def test_a_worker_alone_takes_prompts_changes_decodes_and_changes_back() -> None:
    """Four requests at once, slots for two: prompts of two, change, their decode, change, and again."""
    each = engine(batch_tokens=100, chunk=100, slots=2)
    setup = Setup((Workers("both", 1, each),), switch=Switch(F(3)))
    outcome = run(setup, Load([Request(0, 10, 3)] * 4))
    prefill, decode = price(0, 0, 20, 110), price(2, 22) + price(2, 24)
    round_s = prefill + 3 + decode
    assert (
        rows(outcome)
        == [(0.0, float(prefill), float(round_s))] * 2
        + [(0.0, float(round_s + 3 + prefill), float(2 * round_s + 3))] * 2
    )
    assert outcome.counts["switches"] == 3
    assert outcome.integrals["both.busy"] == 2 * (prefill + decode)


def test_a_pool_gives_workers_to_the_longer_queue_and_keeps_one_of_each_role() -> None:
    """Four workers, two of each role at first. Prompts alone: three of them take prompts; then long outputs: they go back."""
    each = engine(prices=Prices(0.01), slots=4, batch_tokens=10, chunk=10)
    setup = Setup((Workers("both", 4, each),), "least", Transfer(0, 0), Switch(0.05))
    short = Load([Request(0, 10, 1)] * 400, clients=40)
    outcome = run(setup, short)
    assert outcome.counts["switches"] == 1
    assert outcome.end_s == pytest.approx(400 / 3 * 0.01, rel=0.1)  # a prompt a step, of three workers
    fixed = run(
        Setup(
            tuple(replace(w, count=2) for w in apart(prices=Prices(0.01), slots=4, batch_tokens=10).workers), "least"
        ),
        short,
    )
    assert outcome.end_s < 0.75 * fixed.end_s
    long = Load([Request(0, 10, 200)] * 60, clients=40)
    run_of_both = Run(setup, Load([*short.requests, *long.requests], clients=40))
    run_of_both.run()
    assert run_of_both.switches >= 2
    assert len(run_of_both.outcome().served.e2e_s) == 460


def test_roles_do_not_change_to_and_fro_at_a_steady_load() -> None:
    each = engine(prices=Prices(0.01), slots=4, batch_tokens=10, chunk=10)
    setup = Setup((Workers("both", 4, each),), "least", Transfer(0, 0), Switch(0.05))
    outcome = run(setup, Load(poisson(3, 3000, 60.0, 6)))
    assert outcome.counts["switches"] <= 3000 / 100


# ---- the door


def test_a_full_queue_turns_requests_away() -> None:
    each = engine(prices=Prices(1), slots=1, batch_tokens=10, chunk=10, queue=2)
    outcome = run(Setup((Workers("both", 2, each),)), Load([Request(0, 5, 3)] * 10))
    # all come at once, before a step starts: two wait at each worker
    assert (outcome.counts["arrived"], outcome.counts["rejected"], outcome.counts["finished"]) == (10, 6, 4)
    assert sorted(outcome.served.e2e_s) == [3, 3, 6, 6]


def test_a_client_that_was_turned_away_sends_again_when_a_request_ends() -> None:
    each = engine(prices=Prices(1), slots=1, batch_tokens=10, chunk=10, queue=1)
    outcome = run(Setup((Workers("both", 1, each),)), Load(itertools.repeat(Request(0, 5, 2), 40), clients=5))
    counts = outcome.counts
    assert counts["arrived"] == 40 == counts["finished"] + counts["rejected"]
    assert counts["finished"] >= 15  # the worker is never idle while requests are left
    assert outcome.integrals["both.busy"] == outcome.end_s == 2 * counts["finished"]


def test_what_no_worker_can_hold_is_said_or_counted() -> None:
    setup = apart(kv_blocks=4, kv_block=10)
    long = Request(0, 30, 20)  # the prompt has room on a prefill worker, the whole none on a decode worker
    with pytest.raises(CannotServe, match="request 2: a request of 30 prompt and 20 output tokens needs 5 blocks"):
        simulate(setup, Load([Request(0, 5, 5), long]))
    outcome = run(setup, Load(iter([Request(0, 5, 5), long, Request(0, 5, 5)])))
    assert (outcome.counts["finished"], outcome.counts["rejected"], outcome.counts["too_long"]) == (2, 1, 1)
    with pytest.raises(CannotServe, match="can be served"):
        run(setup, Load(itertools.repeat(long), clients=3))


# ---- totals


def test_balance_and_busy_gpus() -> None:
    """Long and short requests in turn: round robin over two gives one of them all the long ones."""
    traffic = [Request(F(n, 10), 10, 40 if n % 2 else 2) for n in range(40)]
    workers = Workers("both", 2, engine(), gpus=8, decode_gpus=4)
    for route, most in (("round_robin", 50 / 31), ("least", 1.5)):
        result = measured("chat", setup := Setup((workers,), route), run(setup, Load(traffic)), Arrivals("constant"))
        assert result.imbalance == pytest.approx(most) if route == "round_robin" else result.imbalance < most
    alone = replace(workers, count=1)
    outcome = simulate(Setup((alone,)), Load([Request(0, 50, 9)]))
    assert outcome.loads == {"both": (59,)}
    prompts, rest = price(0, 0, 50, 50 * 51 // 2), alone_s(50, 9)[1]
    result = measured("chat", Setup((alone,)), outcome, Arrivals("constant"))
    assert result.roles[0].busy == pytest.approx(1)
    assert result.utilization == pytest.approx(float((prompts + rest / 2) / (prompts + rest)))


def test_peaks_and_times_with_a_queue_are_those_of_the_columns() -> None:
    setup = one_slot(2, "least", slots=3)
    outcome = run(setup, Load(poisson(4, 500, 60.0, STEPS)))
    served = outcome.served
    changes = []
    for arrival, queued in zip(served.arrival_s, served.queued_s, strict=True):
        if queued:
            changes += [(arrival, 1), (arrival + queued, -1)]
    changes.sort()
    waiting = most = 0
    queued_s, before = 0.0, 0.0
    for at, change in changes:
        queued_s += (at - before) * (waiting > 0)
        waiting, before = waiting + change, at
        most = max(most, waiting)
    assert outcome.integrals["both.queued"] == pytest.approx(queued_s, rel=1e-6)
    assert outcome.most["both.waiting"] == most
    assert outcome.most["both.running"] == 6
    series = outcome.series
    assert max(series["both.running"]) <= 6 and len(series["time_s"]) == len(series["both.waiting"])
    mean = sum(series["both.running"]) / len(series["time_s"])
    assert mean == pytest.approx(outcome.integrals["both.running"] / outcome.end_s, rel=0.1)


def test_caches_are_never_fuller_on_average_than_at_most() -> None:
    """One client: its blocks are most when its answer ends."""
    setup = Setup((Workers("both", 1, engine(admit="prompt", kv_block=16)),))
    outcome = run(setup, Load([Request(0, 60, 200)] * 4, clients=1))
    assert outcome.most["both.blocks"] == -(-(60 + 199) // 16)
    assert outcome.integrals["both.blocks"] / outcome.end_s < outcome.most["both.blocks"]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("clients", [0, 2])
def test_samples_of_blocks_are_of_their_moment(count: int, clients: int) -> None:
    """Two long answers, nothing else happens: blocks grow from those of the prompts to those of the last tokens."""
    setup = Setup((Workers("both", count, engine(prices=Prices(F(1, 100)), admit="prompt", kv_block=16)),))
    outcome = run(setup, Load([Request(0, 60, 1000)] * 2, clients=clients))
    held = [
        blocks for at, blocks in zip(outcome.series["time_s"], outcome.series["both.blocks"], strict=True) if at > 0.5
    ]
    assert held == sorted(held)
    assert held[0] < 2 * 10 < 2 * 60 < held[-1] <= outcome.most["both.blocks"] <= 2 * 67
    mean = sum(outcome.series["both.blocks"]) / len(outcome.series["time_s"])
    assert mean == pytest.approx(float(outcome.integrals["both.blocks"] / outcome.end_s), rel=0.05)
