"""Warm-up: how long a pipeline takes to fill and to drain, and what workers move that change between prompts and decode."""

from __future__ import annotations

import pytest
from conftest import compiled, spec_text

import dagc
from dagc.plan.result import PhaseResult
from dagc.plan.subject import phase_metrics
from dagc.view.facts.timeline import bubbles, cells, representatives, slices


def small(stages: int, microbatches: int, kind: str = "prefill") -> PhaseResult:
    text = spec_text(kind=kind, phase=f"gpus = 0..{stages - 1}, pp = {stages}, microbatches = {microbatches}")
    return dagc.compile_text(text).phases[kind]


@pytest.mark.parametrize("microbatches", [1, 3, 40])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_pipeline_fills_while_its_first_micro_batch_travels(stages: int, microbatches: int) -> None:
    """By hand: the first micro-batch waits for nobody, so it takes each stage's own time and a send after each but the last."""
    schedule = small(stages, microbatches).schedule
    sends = [schedule.sends[stage, 0] for stage in range(stages - 1)]
    travels = sum(schedule.stage_s[: stages - 1]) + sum(end - start for start, end in sends)
    assert schedule.fill_s == pytest.approx(travels, rel=1e-9)
    if microbatches == 1:  # and then the first stage waits for the others
        assert schedule.drain_s == pytest.approx(
            schedule.latency_s - schedule.stage_s[0] if stages > 1 else 0.0, rel=1e-9
        )
    assert schedule.drain_s >= sum(schedule.stage_s[1:]) * (1 - 1e-9) or stages == 1


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_figures_are_the_gaps_of_the_picture(phase: str) -> None:
    """The timeline finds gaps from single kernels; the metrics from runs of layers."""
    plan = compiled("plan_a")
    result = plan.phases[phase]
    stages = len(result.graph.stages)
    gaps = {}
    for member in representatives(result):
        if member.stage in (0, stages - 1):
            found = cells(slices(result, member))
            gaps.setdefault(member.stage, []).append(bubbles(found, result.schedule.host_s, result.schedule.latency_s))
    last = [idle[0][1] - idle[0][0] for idle in gaps[stages - 1]]
    first = [idle[-1][1] - idle[-1][0] for idle in gaps[0]]
    assert max(last) == pytest.approx(result.schedule.fill_s, rel=1e-6)
    assert min(first) == pytest.approx(result.schedule.drain_s, rel=1e-6)
    metrics = phase_metrics(plan.subject(phase))
    assert [metrics[name].value for name in ("fill", "drain", "bubble")] == [
        result.schedule.fill_s, result.schedule.drain_s, result.schedule.bubble,
    ]  # fmt: skip


def test_views_say_what_fills_and_what_drains() -> None:
    plan = compiled("plan_a")
    picture = plan.svg("prefill", "timeline")
    assert "fill 27.3%" in picture and "drain 27.3%" in picture
    assert "(fill 29.42 ms, drain 29.38 ms)" in " ".join(str(plan).split())
    assert ">fill " not in compiled("mixtral_8xh100").svg("prefill", "timeline")
