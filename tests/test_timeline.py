"""The timeline of a rank and the critical path, against the schedule that they are read from."""

from __future__ import annotations

import itertools
import re
from functools import cache

import pytest
from conftest import compiled, examples, spec_text
from hypothesis import assume, given, settings
from random_plans import plans
from text_widths import clashes, lines
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.base.units import TIME, show
from dagc.plan.result import PhaseResult
from dagc.view.draw.figures.markup import width
from dagc.view.draw.figures.time_scale import PAST, TimeScale
from dagc.view.facts.critical import critical
from dagc.view.facts.timeline import bubbles, cells, classes, everyone, representatives, slices

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


@cache
def staged(stages: int, microbatches: int) -> Plan:
    model = (
        "layers = 16, hidden = 512, vocab = 512, dtype = bf16\nattention { kind = gqa, heads = 8, kv_heads = 8, head_dim = 64 }\n"
        "experts { count = 8, top_k = 2, hidden = 256 }"
    )
    phase = f"gpus = 0..{stages * 2 - 1}, pp = {stages}, tp = 2, microbatches = {microbatches}"
    work = f"sequences = {max(64, microbatches)}, prompt = 256 tok, output = 16 tok, routing = zipf(0.4)"
    return dagc.compile_text(spec_text(phase=phase, model=model, workload=work))


@pytest.mark.parametrize(
    ("stages", "microbatches"),
    spread([(1, 1), (1, 64), (2, 8), (4, 8), (4, 64), (8, 16), (16, 40)], {(1, 1), (2, 8), (16, 40)}),
)
def test_words_of_the_timeline_are_apart(stages: int, microbatches: int) -> None:
    """By the widths of the letters: numbers of micro-batches, shares of bubbles, moments and ends never run into each other."""
    svg = staged(stages, microbatches).svg("prefill", "timeline")
    assert clashes(svg) == []
    found = [one.text for one in lines(svg)]
    assert any(text.isdigit() for text in found), "some micro-batch has its number"


@pytest.mark.parametrize("end_s", [0.04007, 1.0, 1.2, 0.0999, 3.525])
def test_the_last_time_of_an_axis_ends_where_the_next_heading_begins(end_s: float) -> None:
    """`40 ms` at the end of 40.07 ms stood in the heading beside it."""
    scale = TimeScale.of(end_s, 0.0, 788.0)
    places = re.findall(r'<text x="([\d.]+)"[^>]*>([^<]+)<', "".join(str(part) for part in scale.axis(0.0, 10.0)))
    assert len(places) > 3
    assert all(float(x) + width(said) / 2 <= scale.end + PAST for x, said in places)


def test_many_micro_batches_are_cut_in_the_middle() -> None:
    """The first rank's micro-batches are all drawn, or counted below the break."""
    result = staged(4, 64).phases["prefill"]
    svg = staged(4, 64).svg("prefill", "timeline")
    gpu = representatives(result)[0].gpu
    drawn = {int(n) for n in re.findall(rf'id="prefill--timeline--{gpu}--(\d+)"', svg)}
    (said,) = re.findall(r"(\d+) of 64 micro-batches", svg)
    assert {0, 1, 2, 3, 60, 61, 62, 63} <= drawn and len(drawn) + int(said) == 64
    assert set(range(64)) - drawn == set(range(min(set(range(64)) - drawn), max(set(range(64)) - drawn) + 1))
    assert "micro-batches" not in "".join(one.text for one in lines(staged(4, 8).svg("prefill", "timeline")))


@pytest.mark.parametrize(("stages", "microbatches"), [(2, 8), (4, 8), (4, 64)])
def test_bubbles_are_when_a_rank_has_no_micro_batch(stages: int, microbatches: int) -> None:
    """Against a walk over all begins and ends; the row says when it ends and how much of it is idle."""
    plan = staged(stages, microbatches)
    result = plan.phases["prefill"]
    latency_s = result.schedule.latency_s
    texts = [one.text for one in lines(plan.svg("prefill", "timeline"))]
    for member in representatives(result):
        work = [s for s in slices(result, member) if s.kind != "send"]
        spans = [[s for s in work if s.microbatch == m] for m in range(microbatches)]
        events = sorted(
            (t, d) for own in spans for t, d in ((min(s.start_s for s in own), 1), (max(s.end_s for s in own), -1))
        )
        idle_s, before_s, running = 0.0, 0.0, 0
        for moment_s, change in [*events, (latency_s, 0)]:
            idle_s += 0.0 if running else moment_s - before_s
            before_s, running = moment_s, running + change
        gaps = bubbles(cells(slices(result, member)), 0.0, latency_s)
        assert sum(b - a for a, b in gaps) == pytest.approx(idle_s, abs=latency_s * 1e-5)
        assert f"idle {idle_s / latency_s:.1%}" in texts
        assert show(max(s.end_s for s in work), TIME, 4) in texts
    # A pipeline of equal stages waits for stages - 1 of all its slots at least.
    ideal = (stages - 1) / (microbatches + stages - 1)
    shares = [float(text.removeprefix("idle ").rstrip("%")) / 100 for text in texts if text.startswith("idle ")]
    assert max(shares) >= 0.9 * ideal
