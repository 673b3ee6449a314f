"""The makespan against networkx's longest path on the graph expanded to every rank, built by the rules of the
schedule from the sharded graph and its costs, and not from the schedule found."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import compiled, spec_text
from tiers import in_turn, spread

import dagc
from dagc.api import Plan
from dagc.cost.records import Costs
from dagc.cost.schedule.scheduler import Scheduler
from dagc.plan.result import PhaseResult


def load(name: str) -> ModuleType:
    """A module of the benchmarks, which are not a package."""
    path = Path(__file__).resolve().parent.parent / "benchmarks" / f"{name}.py"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module


nx_view = load("expand_nx")

EVEN = "sequences = 64, prompt = 256 tok, output = 16 tok"
SKEWED = EVEN + ", routing = zipf(1.0)"
PLANS = {
    "one stage": ("gpus = 0..7, ep = 4, tp = 2", EVEN),
    "skewed": ("gpus = 0..15, dp = 2, ep = 4, tp = 2", SKEWED),
    "skewed, micro-batches": ("gpus = 0..15, dp = 2, ep = 4, tp = 2, microbatches = 4", SKEWED),
    "pipeline": ("gpus = 0..15, pp = 4, ep = 4, microbatches = 8", EVEN),
    "two-batch overlap": ("gpus = 0..15, dp = 2, ep = 4, tp = 2, overlap = two_batch, microbatches = 2", SKEWED),
    "everything": ("gpus = 0..31, pp = 2, dp = 2, ep = 4, tp = 2, overlap = two_batch, microbatches = 2", SKEWED),
    "ring": ("gpus = 0..15, ep = 4, sp = 4, sp_method = ring, microbatches = 2", SKEWED),
    "ring, overlap, pipeline": (
        "gpus = 0..31, pp = 2, ep = 4, sp = 4, sp_method = ring, overlap = two_batch, microbatches = 2",
        EVEN,
    ),
    "ulysses": ("gpus = 0..15, ep = 4, sp = 2, tp = 2, sp_method = ulysses, microbatches = 2", EVEN),
    "sequence parallel": ("gpus = 0..7, ep = 4, tp = 2, sequence_parallel = true, microbatches = 4", EVEN),
}


@cache
def plan(name: str, kind: str = "prefill") -> Plan:
    phase, workload = PLANS[name]
    return dagc.compile_text(spec_text(phase=phase, kind=kind, workload=workload))


def check(result: PhaseResult) -> None:
    expanded = nx_view.expand(result.graph, result.costs)
    assert nx_view.longest_path_s(expanded) == pytest.approx(result.schedule.latency_s, rel=1e-9)


@pytest.mark.parametrize(("name", "kind"), in_turn(PLANS, ["prefill", "decode"]))
def test_of_small_plans(name: str, kind: str) -> None:
    check(plan(name, kind).phases[kind])


def uneven(result: PhaseResult, seed: int) -> Costs:
    """Every op takes its own time on every rank, so that each rank is the slowest now and then."""
    rng = np.random.default_rng(seed)
    shape = result.graph.the_mesh.shape
    ops = {key: replace(c, time_s=c.time_s * rng.uniform(0.25, 4.0, shape)) for key, c in result.costs.ops.items()}
    return replace(result.costs, ops=ops)


@pytest.mark.parametrize(
    ("name", "seed"),
    spread([(name, seed) for name in PLANS for seed in range(3)], [(name, k % 3) for k, name in enumerate(PLANS)][::2]),
)
def test_where_every_rank_takes_its_own_time(name: str, seed: int) -> None:
    result = plan(name).phases["prefill"]
    costs = uneven(result, seed)
    found = Scheduler(result.graph, costs, False).run()
    longest = nx_view.longest_path_s(nx_view.expand(result.graph, costs))
    assert found.latency_s == pytest.approx(longest, rel=1e-9)
    assert sum(step.time_s for step in found.path) == pytest.approx(longest, rel=1e-9)


@pytest.mark.parametrize("phase", spread(["prefill", "decode"], ("decode",)))
def test_of_plan_a_on_all_its_gpus(phase: str) -> None:
    check(compiled("plan_a").phases[phase])


def test_skew_makes_ranks_differ() -> None:
    """Routing skew reaches the expanded graph."""
    result = plan("skewed").phases["prefill"]
    expanded = nx_view.expand(result.graph, result.costs)
    assert len(set(expanded.weights.tolist())) > len(result.costs.ops)
    assert expanded.rank_nodes == 16 * sum(s.repeat * len(s.ops) for s in result.graph.segments)


def test_a_slower_edge_lengthens_the_longest_path() -> None:
    """No edge is lost on the way to networkx: there are no parallel ones, and the heaviest one counts."""
    result = compiled("plan_a").phases["decode"]
    expanded = nx_view.expand(result.graph, result.costs)
    before = nx_view.longest_path_s(expanded)
    heaviest = int(expanded.weights.argmax())
    expanded.weights[heaviest] += before
    graph = expanded.to_networkx()
    assert graph.number_of_edges() == expanded.weights.size
    assert graph.number_of_nodes() == expanded.nodes
    assert nx_view.longest_path_s(expanded) >= expanded.weights[heaviest] > before


@pytest.mark.parametrize("name", spread(["one stage", "pipeline"]))
def test_steady_state_of_decoding(name: str) -> None:
    """The period of the recurrence against passes chained by the token's return, run until they are steady."""
    result = plan(name, "decode").phases["decode"]
    ends = [nx_view.longest_path_s(nx_view.expand(result.graph, result.costs, passes=n)) for n in (4, 8)]
    assert (ends[1] - ends[0]) / 4 == pytest.approx(result.schedule.period_s, rel=1e-9)
