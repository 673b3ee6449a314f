"""The timeline of a rank and the critical path, against the schedule that they are read from."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
from conftest import compiled, examples, spec_text
from hypothesis import assume, given, settings
from random_plans import plans

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.plan.result import PhaseResult
from dagc.view.facts.critical import critical
from dagc.view.facts.timeline import classes, everyone, representatives, slices

SKEWED = "sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1)"
PHASES = {
    "overlap": "gpus = 0..7, ep = 4, tp = 2, microbatches = 4\noverlap = two_batch",
    "ring": "gpus = 0..15, pp = 2, sp = 4, tp = 2, microbatches = 4\nsp_method = ring\noverlap = two_batch",
    "pipeline": "gpus = 0..15, pp = 4, ep = 2, tp = 2, microbatches = 8",
}


@cache
def small(name: str) -> Plan:
    return dagc.compile_text(spec_text(phase=PHASES[name], workload=SKEWED))


@pytest.fixture(params=["plan_a", "mixtral_8xh100", "deepseek_v3_h800", "custom_attention", *PHASES])
def plan(request: pytest.FixtureRequest) -> Plan:
    return small(request.param) if request.param in PHASES else compiled(request.param)


def test_a_rank_does_one_thing_at_a_time_on_each_stream(plan: Plan) -> None:
    for result in plan.phases.values():
        for member in representatives(result):
            free = {"compute": 0.0, "comm": 0.0}
            for piece in slices(result, member):
                assert piece.end_s > piece.start_s >= free[piece.stream] - 1e-12
                free[piece.stream] = piece.end_s
            assert max(free.values()) <= result.schedule.latency_s + result.costs.transfer.time_s + 1e-9


def test_classes_hold_every_rank_once(plan: Plan) -> None:
    for result in plan.phases.values():
        for stage in result.graph.stages:
            assert sum(m.alike for m in classes(result, stage.index)) == len(stage.gpus)
        assert sorted(m.gpu for m in everyone(result)) == sorted(result.gpus)


def test_ranks_of_a_class_have_the_same_slices() -> None:
    result = small("overlap").phases["prefill"]
    first = {m.group: list(slices(result, m)) for m in classes(result, 0)}
    assert len(first) > 1
    for member in everyone(result):
        for mine, other in zip(slices(result, member), first[member.group], strict=True):
            assert (mine.key, mine.start_s) == (other.key, pytest.approx(other.start_s, abs=1e-11))


def test_sends_leave_when_the_schedule_says() -> None:
    result = small("pipeline").phases["prefill"]
    for (stage, microbatch), (begin, end) in result.schedule.sends.items():
        found = [
            s
            for m in classes(result, stage)
            for s in slices(result, m)
            if s.op == "send" and s.microbatch == microbatch
        ]
        assert max(s.end_s for s in found) == pytest.approx(end)
        assert max(s.start_s for s in found) == pytest.approx(begin)


def test_the_critical_path_has_no_gap_and_is_as_long_as_the_pass(plan: Plan) -> None:
    for result in plan.phases.values():
        path = critical(result)
        assert path[0].start_s == pytest.approx(0.0, abs=1e-12)
        for before, after in itertools.pairwise(path):
            assert after.start_s == pytest.approx(before.end_s, abs=1e-11)
        assert path[-1].end_s == pytest.approx(result.schedule.latency_s)


def by_op(result: PhaseResult) -> dict[tuple[str, str], float]:
    """Seconds of each op on the path, what its launches take put together under a name of its own."""
    found: dict[tuple[str, str], float] = {}
    for visit in critical(result):
        cost = result.costs.ops.get((visit.segment, visit.op))
        launch_s = 0.0 if cost is None else min(cost.launch_s, visit.end_s - visit.start_s)
        for key, time_s in (
            ((visit.segment, visit.op), visit.end_s - visit.start_s - launch_s),
            (("", "launch"), launch_s),
        ):
            found[key] = found.get(key, 0.0) + time_s
    return found


@pytest.mark.parametrize("name", ["plan_a", "mixtral_8xh100", "deepseek_v3_h800", "custom_attention"])
def test_the_critical_path_is_the_one_of_the_report(name: str) -> None:
    result = compiled(name).phases["prefill"]
    found = by_op(result)
    for step in result.path:
        assert found.get((step.segment, step.op), 0.0) == pytest.approx(step.time_s, abs=1e-9)


@settings(max_examples=examples(15), deadline=None)
@given(plans())
def test_random_plans(case: tuple[str, str]) -> None:
    try:
        plan = dagc.compile_text(case[1])
    except SpecError:
        assume(False)
    for result in plan.phases.values():
        path = critical(result)
        assert sum(v.end_s - v.start_s for v in path) == pytest.approx(result.schedule.latency_s, rel=1e-9)
        assert all(b.start_s == pytest.approx(a.end_s, abs=1e-12) for a, b in itertools.pairwise(path))
        for member in everyone(result):
            free = {"compute": 0.0, "comm": 0.0}
            for piece in slices(result, member):
                assert piece.start_s >= free[piece.stream] - 1e-12
                free[piece.stream] = piece.end_s
