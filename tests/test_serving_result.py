"""What a simulated run amounts to, on runs whose figures are known."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from conftest import examples
from tiers import left_out

from dagc.serving import gaps
from dagc.serving.offered import load_of
from dagc.serving.records import Engine, Line, Outcome, Served, Setup, Workers
from dagc.serving.result import Limits, ServeResult, columns, measured, spread_of_gaps
from dagc.serving.simulate import simulate
from dagc.serving.verdict import BACKLOGGED, OVERLOADED, STABLE
from dagc.spec.serve import Arrivals, Lengths, Serve
from dagc.view.draw.figures.plot import linear
from dagc.view.draw.figures.svg import moment_text


class Constant:
    """Every step takes a second."""

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0) -> Line:
        return Line(1.0, 0.0, float("inf"))


SETUP = Setup((Workers("both", 2, Engine(Constant(), ranks=2, kv_blocks=100, kv_block=16), gpus=4),))


def outcome(arrival: np.ndarray, ttft: np.ndarray, e2e: np.ndarray, output: int = 1, **more: object) -> Outcome:
    n = len(arrival)
    order = np.argsort(arrival + e2e, kind="stable")
    served = Served(
        arrival_s=array("d", arrival[order]), queued_s=array("d", [0.0] * n), ttft_s=array("d", ttft[order]),
        e2e_s=array("d", e2e[order]), prompt=array("l", [100] * n), output=array("l", [output] * n), cached=array("l", [25] * n),
    )  # fmt: skip
    given = {
        "served": served,
        "end_s": float((arrival + e2e).max(initial=0.0)),
        "counts": {
            "arrived": n, "finished": n, "prompt_tokens": 100 * n, "hit_tokens": 25 * n, "output_tokens": output * n, "steps": n,
        },
        "integrals": {},
        "gaps": {},
        "series": {},
    }  # fmt: skip
    return Outcome(**{**given, **more})  # type: ignore[arg-type]


def queue(rate: float, count: int, seed: int, gap: str = "poisson") -> Outcome:
    """M/D/1 (D/D/1 where the gap is constant) with a service of one second."""
    random = np.random.default_rng(seed)
    arrival = np.cumsum(random.exponential(1 / rate, count) if gap == "poisson" else np.full(count, 1 / rate))
    k = np.arange(count)
    waits = np.maximum.accumulate(arrival - k) + k + 1 - arrival
    return outcome(arrival, waits, waits)


def test_gaps_are_between_deliveries_in_the_mean_too() -> None:
    """Five tokens in 2 s after the first, drafted ones among them: 4 requests, each with two steps of decode, a second apart."""
    run = outcome(np.arange(4.0), np.full(4, 1.0), np.full(4, 3.0), output=5, gaps={gaps.number(1.0): 8.0})
    found = measured("chat", SETUP, run, Arrivals("constant", rate_per_s=1.0))
    assert (found.itl.mean_s, found.tpot.mean_s) == (1.0, 0.5)
    assert found.itl.p50_s == pytest.approx(found.itl.mean_s, rel=gaps.RESOLUTION)


def test_figures_of_a_small_run() -> None:
    """Four requests at one, two, three and four seconds, each with its first token a second and all five after three."""
    came = np.array([1.0, 2.0, 3.0, 4.0])
    run = outcome(
        came, np.full(4, 1.0), np.full(4, 3.0), output=5,
        integrals={
            "both.waiting": 3.0, "both.running": 9.0, "both.busy": 6.0, "both.blocks": 600.0, "both.tokens": 7200.0, "both.queued": 1.5,
        },
        most={"both.waiting": 2, "both.running": 3, "both.blocks": 200},
        gaps={gaps.number(0.5): 16.0},
    )  # fmt: skip
    found = measured("chat", SETUP, run, Arrivals("constant", rate_per_s=1.0))
    assert found.duration_s == 6.0
    assert (found.ttft.mean_s, found.tpot.p99_s, found.e2e.p50_s, found.itl.mean_s) == (1.0, 0.5, 3.0, 0.5)
    assert found.itl.p99_s == pytest.approx(0.5, rel=gaps.RESOLUTION)
    assert (found.rate_per_s, found.throughput_tok_s, found.gpus) == (4 / 6, 20 / 6, 8)
    assert found.throughput_per_gpu_tok_s == pytest.approx(20 / 6 / 8)
    assert found.throughput_per_user_tok_s == 2.0
    assert found.utilization == 6.0 / (2 * 6.0)
    assert (found.queue_mean, found.queue_most, found.running_mean, found.running_most) == (0.5, 2, 1.5, 3)
    assert found.fullest.kv_fill_mean == pytest.approx(100 / 400)
    assert found.fullest.kv_fill_most == 0.5
    assert found.fullest.kv_waste == pytest.approx(1 - 7200 / (600 * 16))
    assert (found.saturated, found.hit_rate) == (0.25, 0.25)
    assert (found.goodput_per_s, found.met) == (4 / 6, 1.0)


def test_percentiles_are_exact_and_goodput_counts_what_keeps_every_limit() -> None:
    random = np.random.default_rng(1)
    came, first, whole = np.sort(random.uniform(0, 100, 1001)), random.gamma(2, 1, 1001), random.gamma(2, 1, 1001)
    run = outcome(came, first, first + whole, output=11)
    limits = Limits(ttft_s=3.0, tpot_s=0.3)
    found = measured("chat", SETUP, run, Arrivals("poisson", rate_per_s=10.0), limits)
    ordered = np.sort(first)
    assert (found.ttft.p50_s, found.ttft.p90_s, found.ttft.p99_s) == (ordered[500], ordered[900], ordered[990])
    good = (first <= 3.0) & (whole / 10 <= 0.3)
    assert 0 < good.sum() < 1001
    assert found.goodput_per_s == pytest.approx(good.sum() / found.duration_s)
    assert found.met_each == pytest.approx({"ttft_s": (first <= 3.0).mean(), "tpot_s": (whole <= 3.0).mean()})
    assert measured("chat", SETUP, run, Arrivals("poisson"), Limits()).goodput_per_s == found.rate_per_s


def test_an_output_of_one_token_has_no_tpot() -> None:
    run = outcome(np.arange(3.0), np.ones(3), np.ones(3))
    found = measured("chat", SETUP, run, Arrivals("constant", rate_per_s=1.0), Limits(tpot_s=1e-9))
    assert np.isnan(columns(run.served)["tpot_s"]).all()
    assert np.isnan(found.tpot.mean_s) and np.isnan(found.itl.p50_s)
    assert found.met == 1.0


def test_a_run_in_which_nothing_ends_has_no_times_and_no_rates() -> None:
    nothing = outcome(np.zeros(0), np.zeros(0), np.zeros(0), end_s=0.0)
    nothing.counts.update(arrived=10, rejected=10)  # type: ignore[attr-defined]
    found = measured("chat", SETUP, nothing, Arrivals("poisson", 1.0), Limits(ttft_s=1.0))
    assert found.verdict == OVERLOADED and np.isnan(found.ttft.p99_s)
    assert (found.rate_per_s, found.goodput_per_s, found.throughput_tok_s, found.utilization, found.met) == (
        0,
        0,
        0,
        0,
        0,
    )


def test_a_single_request_is_its_own_mean_and_percentiles() -> None:
    found = measured(
        "chat", SETUP, outcome(np.ones(1), np.ones(1), np.full(1, 3.0), output=3), Arrivals("constant", 1.0)
    )
    assert found.e2e.mean_s == found.e2e.p99_s == 3.0 and found.duration_s == 3.0 and found.verdict == STABLE


def test_the_gaps_are_known_to_their_resolution() -> None:
    random = np.random.default_rng(2)
    values = np.exp(random.normal(-4, 1, 20000))
    histogram: dict[int, float] = {}
    for value in values:
        histogram[gaps.number(value)] = histogram.get(gaps.number(value), 0.0) + 1.0
    found = spread_of_gaps(histogram, float(values.mean()))
    for p, at in ((50, found.p50_s), (90, found.p90_s), (99, found.p99_s)):
        assert at == pytest.approx(np.percentile(values, p), rel=2 * gaps.RESOLUTION + 1e-3)


@pytest.mark.parametrize(
    ("rate", "verdict", "least"),
    [left_out((0.5, STABLE, 40)), (0.95, STABLE, 33), (1.05, OVERLOADED, 38), left_out((1.2, OVERLOADED, 40))],
)
def test_an_m_d_1_queue_is_judged_by_its_utilisation(rate: float, verdict: str, least: int) -> None:
    """Of forty runs of 10,000 requests each: near a utilisation of one, chance decides a few."""
    found = [measured("q", SETUP, queue(rate, 10_000, seed), Arrivals("poisson", rate)).verdict for seed in range(40)]
    assert found.count(verdict) >= least
    other = OVERLOADED if verdict == STABLE else STABLE
    assert found.count(other) <= (2 if rate == 1.05 else 0)


@pytest.mark.parametrize(("rate", "verdict"), [(0.95, STABLE), (1.0, STABLE), (1.05, OVERLOADED)])
def test_even_arrivals_are_judged_by_a_short_run(rate: float, verdict: str) -> None:
    found = measured("q", SETUP, queue(rate, 300, 0, "constant"), Arrivals("constant", rate))
    assert found.verdict == verdict
    assert found.growth.served == pytest.approx(min(1.0, 1 / rate), abs=0.01)


def test_a_short_run_of_uneven_arrivals_is_seldom_called_overloaded_wrongly() -> None:
    found = [
        measured("q", SETUP, queue(0.8, 300, seed), Arrivals("poisson", 0.8)).verdict for seed in range(examples(100))
    ]
    assert found.count(OVERLOADED) <= 2


class Batched:
    """A step has a part for itself, for each sequence, for each prompt token and for the context."""

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        return Line(6e-3 + 40e-6 * sequences + 5e-6 * prompt, 2e-9, float("inf"))


class Slowing(Batched):
    """A request of 2,048 and 256 tokens adds 61 ms to its steps: at most 16.3 in a second."""

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        return Line(11e-3 + 80e-6 * sequences + 20e-6 * prompt, 0, float("inf"))


def test_a_short_run_below_capacity_is_not_called_overloaded() -> None:
    """The more are in the system, the longer each of them takes: their number strays for long."""
    engine = Engine(Slowing(), slots=100_000, batch_tokens=8192, chunk=8192)
    setup = Setup((Workers("both", 1, engine, gpus=8),))
    arrivals = Arrivals("poisson", 10.0)

    def found(seed: int) -> str:
        load = load_of(Serve("q", arrivals, Lengths("fixed", 2048, 256), requests=600, seed=seed))
        return measured("q", setup, simulate(setup, load), arrivals).verdict

    assert [found(seed) for seed in range(examples(60))].count(OVERLOADED) <= 1


@pytest.mark.parametrize(
    "rules",
    [
        left_out({"slots": 48}),
        {"slots": 512, "kv_blocks": 3000},
        left_out({"slots": 256, "prompts": "first"}),
        left_out({"slots": 100_000}),
    ],
    ids=["slots", "cache", "prompts first", "nothing limits the batch"],
)
def test_a_server_of_batches_is_judged_by_what_it_serves_when_saturated(rules: dict[str, Any]) -> None:
    """Whatever limits the batch: its capacity is the rate of a run whose requests all wait from the start."""
    engine = Engine(Batched(), batch_tokens=2048, chunk=2048, **rules)
    setup = Setup((Workers("both", 1, engine, gpus=8),))
    lengths = Lengths("uniform", 1000, 200, 0.5, 1.5)

    def found(arrivals: Arrivals, seed: int = 0) -> ServeResult:
        serve = Serve("q", arrivals, lengths, requests=2500, seed=seed)
        return measured("q", setup, simulate(setup, load_of(serve)), arrivals)

    full = found(Arrivals("burst"))
    assert full.verdict == BACKLOGGED and full.saturated > 0.9
    verdicts = {
        share: [found(Arrivals("poisson", share * full.rate_per_s), seed).verdict for seed in range(3)]
        for share in (0.7, 0.9, 1.2)
    }
    assert verdicts[0.7] == [STABLE] * 3 and verdicts[1.2] == [OVERLOADED] * 3
    assert OVERLOADED not in verdicts[0.9]


def test_what_comes_at_once_or_in_a_loop_does_not_overload() -> None:
    came = np.zeros(100)
    waits = np.arange(1.0, 101.0)
    assert measured("q", SETUP, outcome(came, waits, waits), Arrivals("burst")).verdict == BACKLOGGED
    assert measured("q", SETUP, queue(1.2, 5000, 1), Arrivals("closed", clients=8)).verdict == STABLE


def test_a_full_queue_that_turns_requests_away_is_overload() -> None:
    run = queue(0.5, 1000, 1)
    run.counts.update(arrived=1100, rejected=100)  # type: ignore[attr-defined]
    found = measured("q", SETUP, run, Arrivals("poisson", 0.5))
    assert found.verdict == OVERLOADED
    assert found.met == pytest.approx(1000 / 1100)


def test_where_nothing_limits_the_batch_the_requests_in_the_system_pile_up() -> None:
    """First tokens come at once, but every request takes longer than the one before."""
    came = np.arange(2000) / 10.0
    whole = 1.0 + 0.2 * came
    found = measured("q", SETUP, outcome(came, np.full(2000, 0.1), whole, output=100), Arrivals("constant", 10.0))
    assert found.verdict == OVERLOADED
    short = measured(
        "q", SETUP, outcome(came, np.full(2000, 0.1), 60.0 + whole, output=100), Arrivals("constant", 10.0)
    )
    assert short.verdict == BACKLOGGED, "the batch may just fill up"
    steady = measured(
        "q", SETUP, outcome(came, np.full(2000, 0.1), np.full(2000, 20.0), output=100), Arrivals("constant", 10.0)
    )
    assert steady.verdict == STABLE


def test_marks_of_an_axis_are_told_apart() -> None:
    counts = linear(2.0, lambda v: f"{v:,.0f}", 4, least_step=1.0)
    assert [counts.said(mark) for mark in counts.marks] == ["0", "1", "2"]
    said = [moment_text(seconds, 0.5) for seconds in (191.5, 192.0, 192.5)]
    assert said == ["191.5 s", "192 s", "192.5 s"]
