"""Prompts that wait for those of other attention-DP ranks: what the rule does, and that nothing else changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from conftest import examples
from serving_reference import Reference
from test_serving_worker import Prices, drawn, simulated
from tiers import spread

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.cli import main
from dagc.lang.open_spec import load_open
from dagc.pipeline.serve import Servings
from dagc.serving.balance import Gate
from dagc.serving.records import Engine, Line, Request, Served
from dagc.serving.worker import Worker


class Second:
    """Every step takes a second."""

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        return Line(1.0, 0.0, math.inf, 0)


def engine(balance: int, gather: int = 0, ranks: int = 3, **more: object) -> Engine:
    return replace(Engine(Second(), ranks=ranks, balance=balance, gather=gather), **more)  # type: ignore[arg-type]


def prompts(engine: Engine, requests: Sequence[tuple[float, int]], output: int = 500) -> dict[float, int]:
    """When steps with prompts begin, and how many prompts of ten tokens each has. `requests`: when they come, and to which rank."""
    order = sorted(requests)
    ranks = iter([rank for _, rank in order])
    worker = Worker(engine, route=lambda worker, request: next(ranks), steps_kept=10_000)
    worker.feed([Request(at, 10, output) for at, _ in order])
    worker.run()
    assert worker.counts["finished"] == len(order)
    return {s.start_s: s.prompt // 10 for s in worker.stretches if s.prompt}


BUSY = [(0.0, 0), (0.0, 1), (0.0, 2)]
"""All ranks decode from second 1 on: prompts were let in by the step that began at second 0."""


def test_prompts_of_all_ranks_run_in_one_step() -> None:
    came = [*BUSY, (3.5, 0), (5.5, 1), (9.5, 2)]
    assert prompts(engine(0), came) == {0: 3, 4: 1, 6: 1, 10: 1}
    assert prompts(engine(50), came) == {0: 3, 10: 3}


def test_a_prompt_without_company_runs_when_it_has_waited_for_long_enough() -> None:
    """Steps count from when prompts were last let in, here by the step at second 0, and go on to count while none wait."""
    for balance, starts in ((1, 4), (2, 4), (3, 6), (4, 4), (5, 5), (50, 50)):
        assert prompts(engine(balance), [*BUSY, (3.5, 0)]) == {0: 3, starts: 1}, balance
    assert prompts(engine(50), [*BUSY, (3.5, 0), (20.5, 0), (60.5, 1)]) == {0: 3, 50: 2, 100: 1}


def test_ranks_that_only_have_prompts_wait_for_nobody_and_ranks_without_requests_hold_nobody_up() -> None:
    one = [(0.0, 0)]
    assert prompts(engine(50), [*one, (3.5, 1)]) == {0: 1, 4: 1}  # rank 1 has nothing else to do
    assert prompts(engine(50), [*one, (3.5, 0)]) == {0: 1, 50: 1}  # rank 0 has, and ranks 1 and 2 have no prompt
    assert prompts(engine(50), [*one, (3.5, 0), (7.5, 2)]) == {
        0: 1,
        8: 2,
    }  # who waits for nobody takes the others along
    assert prompts(engine(50), [(0.0, 0), (3.5, 0), (9.5, 0)], output=6) == {0: 1, 6: 1, 12: 1}  # none decodes any more


def test_once_all_have_one_they_may_wait_for_more() -> None:
    came = [*BUSY, (3.5, 0), (5.5, 1), (9.5, 2), (12.5, 1), (30.5, 0)]
    assert prompts(engine(50, gather=0), came) == {0: 3, 10: 3, 60: 2}
    assert prompts(engine(50, gather=4), came) == {0: 3, 14: 4, 64: 1}


def test_chunks_wait_too() -> None:
    assert prompts(engine(50, chunk=5), BUSY, output=1) == {0: 1, 1: 1}
    came = [*BUSY, (3.5, 0), (5.5, 1), (9.5, 2)]
    apart = Worker(engine(20, chunk=5), route=lambda worker, request: worker.came % 3, steps_kept=10_000)
    apart.feed([Request(at, 10 if rank else 15, 500) for at, rank in came])
    apart.run()
    # the third chunk of rank 0 waits until twenty steps have gone by since the last prompts
    assert [s.start_s for s in apart.stretches if s.prompt] == [0, 1, 2, 10, 11, 31]


def test_slots_and_blocks_count_as_room_for_a_prompt() -> None:
    """The rank that is full has no prompt to run: those of others wait for its next end."""
    came = [*BUSY, (3.5, 0), (3.5, 1), (3.5, 2)]
    full = prompts(engine(90, slots=1), came, output=40)
    assert full == {0: 3, 40: 3}
    # rank 0 is full until its first sequence has ended at second 30: only then all have a prompt to run
    order = [(0.0, 0, 30), (0.0, 0, 90), (0.0, 1, 90), (0.0, 2, 90), (3.5, 0, 5), (3.5, 1, 5), (3.5, 2, 5)]
    ranks = iter([rank for _, rank, _ in order])
    worker = Worker(engine(90, slots=2), route=lambda worker, request: next(ranks), steps_kept=10_000)
    worker.feed([Request(at, 10, output) for at, _, output in order])
    worker.run()
    assert {s.start_s: s.prompt // 10 for s in worker.stretches if s.prompt} == {0: 4, 30: 3}


def test_a_worker_that_does_not_decode_lets_prompts_in() -> None:
    worker = Worker(engine(50, ranks=2), steps_kept=100)
    worker.feed([Request(0.0, 10, 30), Request(0.0, 10, 30)])
    worker.run_until(5.0)
    worker.turn(True, False, 5.0)
    worker.add(Request(5.0, 10, 30), rank=0)
    worker.run_until(9.0)
    worker.turn(True, True, 9.0)
    worker.run()
    assert {s.start_s: s.prompt // 10 for s in worker.stretches if s.prompt} == {0: 2, 5: 1}
    assert worker.counts["finished"] == 3


def gate_by_hand(limit: int, gather: int, looks: Sequence[tuple[bool, bool]]) -> list[bool]:
    """`dagc.serving.balance`, counted step by step. `looks`: whether all ranks have prompts, and whether all generate."""
    waited = gathered = 0
    opened = []
    for all_ready, all_generate in looks:
        if all_ready:
            waited = 0
            opens = not all_generate or gathered >= gather
            if all_generate:
                gathered = 0 if opens else gathered + 1
        else:
            waited += 1
            opens = waited >= limit or not all_generate
            waited = 0 if opens else waited
        opened.append(opens)
    return opened


@pytest.mark.parametrize("seed", range(20))
def test_the_gate_counts_as_by_hand(seed: int) -> None:
    random = Random(seed)
    limit, gather = random.randrange(1, 9), random.randrange(3)
    looks = [(random.random() < 0.2, random.random() < 0.9) for _ in range(300)]
    gate = Gate(limit, gather)
    found = [gate.opens(step, [True, ready], [generate, True]) for step, (ready, generate) in enumerate(looks)]
    assert found == gate_by_hand(limit, gather, looks)


@pytest.mark.parametrize("seed", spread(range(examples(20, 20)), 7))
def test_waiting_steps_are_skipped_exactly(seed: int) -> None:
    """As stepping does it, whatever the other rules are."""
    found, requests = drawn(seed, Fraction)
    random = Random(seed)
    found = replace(
        found, ranks=random.choice((2, 3, 4)), balance=random.choice((2, 3, 7, 60)), gather=random.choice((0, 0, 1, 4))
    )
    if random.random() < 0.5:
        requests = [request._replace(arrival_s=request.arrival_s * 10) for request in requests]
    worker, rows = simulated(found, requests)
    slow = Reference(found, requests).run()
    assert rows == slow.served
    for name in ("finished", "rejected", "preempted", "steps", "hit_tokens", "computed_tokens"):
        assert worker.counts[name] == slow.counts[name], name
    for name in ("waiting", "running", "busy"):
        assert worker.integrals[name] == slow.integrals[name], name
    assert worker.gaps == slow.gaps


def loaded(found: Engine, rate: float = 2.0, count: int = 1500) -> tuple[Worker, Served]:
    random = Random(4)
    at, requests = 0.0, []
    for _ in range(count):
        at += random.expovariate(rate)
        requests.append(Request(at, random.randrange(100, 300), random.randrange(20, 120)))
    served = Served()
    worker = Worker(found, served=served, steps_kept=1 << 20)
    worker.feed(requests)
    worker.run()
    counts = worker.counts
    assert counts["finished"] == count and counts["computed_tokens"] == counts["prompt_tokens"]
    assert not sum(worker.waiting) + sum(worker.running) and all(rank.held(worker.step) == 0 for rank in worker.ranks)
    return worker, served


def test_longer_waits_mean_fewer_steps_with_prompts_faster_decode_and_later_first_tokens() -> None:
    steps, ttft, tpot = [], [], []
    for balance in (0, 2, 5, 20, 80):
        worker, served = loaded(replace(engine(balance, ranks=8), prices=Prices(float)), rate=10.0)
        steps.append(sum(s.prompt > 0 for s in worker.stretches))
        ttft.append(sum(served.ttft_s) / len(served.ttft_s))
        tpot.append(sum((e - t) / (o - 1) for e, t, o in zip(served.e2e_s, served.ttft_s, served.output, strict=True)))
    assert steps == sorted(steps, reverse=True) and steps[-1] < 0.6 * steps[0]
    assert ttft == sorted(ttft) and tpot == sorted(tpot, reverse=True)


@pytest.mark.parametrize("change", [{"ranks": 1, "balance": 50, "gather": 3}, {"ranks": 4, "balance": 1}])
def test_one_rank_or_one_step_is_no_wait(change: dict[str, int]) -> None:
    base = replace(engine(0), prices=Prices(float), ranks=change["ranks"])
    assert loaded(replace(base, **change))[1] == loaded(base)[1]


SPEC = """moe 1
hardware from "h100-sxm" {{ gpus = 8 }}
model m {{
  layers = 2, hidden = 64, vocab = 512, dtype = bf16
  attention {{ kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }}
  experts {{ count = 8, top_k = 2, hidden = 32 }}
}}
workload {{ sequences = 64, prompt = 1024 tok, output = 64 tok }}
phase decode {{ gpus = 0..3, attention {{ {layout} }}, experts {{ ep = 4 }} }}
phase prefill {{ gpus = {prefill}, attention {{ {layout} }}, experts {{ ep = 4 }} }}
serve chat {{ arrivals = closed(16), lengths = uniform(80%, 100%), requests = 60, {words} }}
"""


@pytest.mark.parametrize(
    ("layout", "prefill", "words", "heeds", "says"),
    [
        ("dp = 4", "0..3", "balance = 60, gather = 5", (60, 5), None),
        ("tp = 2, dp = 2", "0..3", "balance = 3", (3, 0), None),
        ("dp = 4", "0..3", "balance = 0, gather = 5", (0, 5), None),
        ("tp = 4", "0..3", "balance = 60", (0, 0), "one attention-DP rank"),
        ("dp = 4", "4..7", "balance = 60", (0, 0), "do not decode"),
        ("dp = 4", "0..3", "balance = 60, roles = switch", (0, 0), "do not decode"),
    ],
)
def test_a_serving_heeds_it_or_says_that_it_does_not(
    layout: str, prefill: str, words: str, heeds: tuple[int, int], says: str | None
) -> None:
    plan = dagc.compile_text(SPEC.format(layout=layout, prefill=prefill, words=words))
    (serve,) = plan.spec.serves
    servings = Servings(plan)
    setup = servings.setup(serve)
    assert {(w.engine.balance, w.engine.gather) for w in setup.workers} == {heeds}
    out = Collector()
    servings.tell_of_balance(serve, setup, out)
    assert [d.code for d in out.items] == ([] if says is None else ["W06"])
    for one in out.items:
        assert says is not None and says in one.message and one.span is not None and one.span.text == "60"


def test_a_command_says_how_prompts_wait_or_that_they_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for layout, words in (("dp = 4", "seed = 0"), ("dp = 4", "balance = 40, gather = 2"), ("tp = 4", "balance = 40")):
        path = tmp_path / "small.moe"
        path.write_text(SPEC.format(layout=layout, prefill="0..3", words=words))
        assert main(["serve", str(path)]) == 0
        shown = capsys.readouterr()
        reports.append(shown.out + shown.err)
    off, on, alone = reports
    assert "wait up to" not in off and "balance" not in off
    assert "prompts wait up to 40 steps until every rank has one, and 2 steps more" in " ".join(on.split())
    assert "W06" in alone and "`balance` of `chat` has no effect: a worker has one attention-DP rank" in alone
    assert "has no effect" not in on


def test_a_search_may_choose_it() -> None:
    text = SPEC.format(layout="dp = 4", prefill="0..3", words="balance = any(0, 60), gather = any(0, 10)")
    out = Collector()
    found = load_open(Source("small.moe", text), out)
    assert [(c.phase, c.path, c.values) for c in found.choices] == [
        ("chat", "balance", (0, 60)),
        ("chat", "gather", (0, 10)),
    ]
    closed = found.closed({"chat": {"balance": 60, "gather": 10}}, out)
    assert closed is not None and not out.items
    assert [(s.balance, s.gather) for s in closed.serves] == [(60, 10)]
