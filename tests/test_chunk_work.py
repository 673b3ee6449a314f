"""Chunks of equally much work, and chunks that follow each other through the stages."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random

import pytest
from conftest import spec_text

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.cost import chunks
from dagc.cost.schedule.chunk_flow import MOST_EXPLICIT, Pass, in_flight_s
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of
from dagc.lang.expand import expand
from dagc.lang.expand.work_cuts import cuts, work_of
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.estimates import Estimates
from dagc.spec.unit import Unit
from dagc.view.facts.findings import assumptions

LONG = "sequences = 8, prompt = 8192 tok, output = 16 tok"


def compiled(phase: str, workload: str = LONG) -> Plan:
    return dagc.compile_text(spec_text(phase=f"gpus = 0..7, {phase}", workload=workload))


# -- cut by work ------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear, count", [(0.0, 4), (1000.0, 7), (1e9, 3)])
def test_cuts_are_where_a_parabola_says(linear: float, count: int) -> None:
    """a x + x^2 / 2 = k / n of the whole: x = sqrt(a^2 + 2 k W / n) - a."""
    tokens = 100_000
    work = lambda x: linear * x + x * x / 2  # noqa: E731
    found = cuts(work, tokens, count, 1)
    ends = [sum(found[: k + 1]) for k in range(count)]
    wanted = [(linear**2 + 2 * work(tokens) * (k + 1) / count) ** 0.5 - linear for k in range(count)]
    assert ends == [pytest.approx(x, abs=1.0) for x in wanted] and ends[-1] == tokens


def test_cuts_are_whole_units_and_none_is_empty() -> None:
    found = cuts(lambda x: x**6, 100, 30, 16)
    assert sum(found) == 100 and min(found) > 0 and all(n % 16 == 0 for n in found[:-1])


def test_work_is_that_of_the_passes() -> None:
    """What the passes of the layers multiply in all is what one pass would, however it is cut; of the head each has its last token."""
    phase = compiled("tp = 8, chunk = 1024 tok, chunk_by = work").spec.phases[0]
    spec = compiled("tp = 8").spec
    graph = expand.run(Unit(spec, phase))
    work = work_of(graph, 0)
    each = []
    for size in chunks.sizes(phase):
        before = size.context - size.tokens
        each.append(work(size.context) - work(before))
    assert sum(each) == pytest.approx(work(8192))
    assert max(each) / min(each) < 1.01
    plain = compiled("tp = 8, chunk = 1024 tok").spec.phases[0]
    by_tokens = [work(s.context) - work(s.context - s.tokens) for s in chunks.sizes(plain)]
    assert max(by_tokens) / min(by_tokens) > 1.5


@pytest.mark.parametrize("prefix", [0, 4096])
def test_a_cut_prompt_is_whole(prefix: int) -> None:
    phase = compiled(f"dp = 8, prefix = {prefix} tok, chunk = 512 tok, chunk_by = work").spec.phases[0]
    assert (
        sum(phase.cuts) == phase.new_tokens == 8192 - prefix
        and len(phase.cuts) == phase.passes == (8192 - prefix) / 512
    )
    assert phase.tokens == max(phase.cuts) == phase.cuts[0]
    assert all(a >= b for a, b in pairwise(phase.cuts[:-1]))
    sizes = chunks.sizes(phase)
    assert sizes[-1].context == 8192 and sum(s.count * s.tokens for s in sizes) == 8192 - prefix


def test_many_passes_are_priced_in_runs() -> None:
    phase = compiled("dp = 8, chunk = 64 tok, chunk_by = work").spec.phases[0]
    sizes = chunks.sizes(phase)
    assert len(sizes) == chunks.MOST < phase.passes
    assert sum(s.count for s in sizes) == phase.passes and sum(s.count * s.tokens for s in sizes) == pytest.approx(8192)


# -- through the stages ------------------------------------------------------------------------------


def slow(passes: list[Pass]) -> float:
    """Every job by the longest path over (job, stage): ends of the job before on this stage, and of this job on the stage before."""
    ends: dict[tuple[int, int], float] = {}
    job = 0
    for one in passes:
        for _ in range(round(one.count)):
            for number in range(one.microbatches):
                for stage, time_s in enumerate(one.stage_s):
                    here = ends.get((job - 1, stage), 0.0)
                    if stage == 0:
                        here += one.host_s if number == 0 else 0.0
                    came = ends[job, stage - 1] + one.sends_s[stage - 1] if stage else 0.0
                    ends[job, stage] = max(here, came) + time_s
                job += 1
    return max(ends.values())


def test_against_the_longest_path() -> None:
    random = Random(11)
    for _ in range(60):
        stages = random.randint(1, 5)
        passes = [
            Pass(
                random.randint(1, 4), tuple(random.uniform(0.1, 3) for _ in range(stages)),
                tuple(random.uniform(0, 1) for _ in range(stages - 1)), random.randint(1, 3), random.choice([0.0, 0.7]),
            )
            for _ in range(random.randint(1, 6))
        ]  # fmt: skip
        added = in_flight_s(passes)
        assert sum(one.count * own for one, own in zip(passes, added, strict=True)) == pytest.approx(slow(passes))


@pytest.mark.parametrize("count, stages, micro", [(1, 1, 1), (6, 4, 1), (10, 3, 4)])
def test_equal_passes_are_a_pipeline(count: int, stages: int, micro: int) -> None:
    """n m + p - 1 times the time of a stage."""
    (own,) = in_flight_s([Pass(count, (2.0,) * stages, (0.0,) * (stages - 1), micro)])
    assert count * own == pytest.approx(2.0 * (count * micro + stages - 1))


def test_many_passes_are_not_followed_one_by_one() -> None:
    passes = [Pass(1, (1.0, 3.0), (0.5,), 2), Pass(MOST_EXPLICIT + 500, (2.0, 1.0), (0.5,), 2)]
    assert sum(p.count * s for p, s in zip(passes, in_flight_s(passes), strict=True)) == pytest.approx(slow(passes))


@pytest.fixture(scope="module")
def both() -> tuple[Plan, Plan]:
    said = "pp = 4, tp = 2, chunk = 1024 tok"
    return compiled(said), compiled(f"{said}, chunk_overlap = full")


def test_chunks_in_flight_take_less(both: tuple[Plan, Plan]) -> None:
    apart, flow = (plan.phases["prefill"] for plan in both)
    assert flow.time_s < 0.6 * apart.time_s and flow.bubble < apart.bubble == apart.schedule.bubble
    assert flow.graph == apart.graph and flow.memory == apart.memory and flow.schedule.path == apart.schedule.path
    assert sum(step.time_s for step in flow.path) == pytest.approx(flow.time_s)
    slowest = sum(max(c.schedule.stage_s) * c.count for c in flow.chunks)
    assert slowest <= flow.time_s <= slowest + 4 * max(max(c.schedule.stage_s) for c in flow.chunks)
    busy = sum(c.count * sum(c.schedule.stage_s) for c in flow.chunks)
    assert flow.bubble == pytest.approx(1 - busy / (4 * flow.time_s))


def test_one_stage_has_nothing_to_overlap() -> None:
    apart, flow = (compiled(f"tp = 8, chunk = 1024 tok{o}").phases["prefill"] for o in ("", ", chunk_overlap = full"))
    assert apart.time_s == flow.time_s


def test_estimates_are_what_is_compiled(both: tuple[Plan, Plan]) -> None:
    plan = both[1]
    found = Estimates(plan.spec)(plan.spec.phases[0])
    assert found.time_s == plan.phases["prefill"].time_s and found.memory == plan.phases["prefill"].memory


# -- proof, printing, what is wrong ---------------------------------------------------------------------------


def test_the_largest_chunk_is_proved() -> None:
    proof = compiled("pp = 2, dp = 2, tp = 2, chunk = 1024 tok, chunk_by = work, chunk_overlap = full").prove("prefill")
    assert proof.verdict == "equal", proof


def test_chunks_are_written_and_read_back() -> None:
    plan = compiled("pp = 4, tp = 2, chunk = 1000 tok, chunk_by = work, chunk_overlap = full, prefix = 100 tok")
    again = dagc.compile_text(print_spec(plan.spec))
    assert again.spec.phases[0].cuts == plan.spec.phases[0].cuts
    assert again.phases["prefill"].time_s == pytest.approx(plan.phases["prefill"].time_s)
    back = plan_of(json.loads(dumps(graph_object(plan, "prefill"))))
    assert back.phases["prefill"].time_s == pytest.approx(plan.phases["prefill"].time_s)


@pytest.mark.parametrize("said, code, marked", [
    ("dp = 8, chunk_by = work", "E12", "work"),
    ("dp = 8, chunk_overlap = full", "E12", "full"),
    ("dp = 8, chunk = 64 tok, chunk_by = time", "E02", "time"),
    ("pp = 2, tp = 4, chunk = 64 tok, chunk_overlap = full, place = best", "E12", "best"),
    ("pp = any, tp = 4, chunk = 64 tok, chunk_by = work", "E12", "work"),
])  # fmt: skip
def test_faults_are_marked(said: str, code: str, marked: str) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(said)
    assert (code, marked) in [(d.code, d.span.text) for d in caught.value.diagnostics if d.span is not None]


def test_a_decode_has_no_chunks() -> None:
    with pytest.raises(SpecError, match="belongs to a prefill phase"):
        dagc.compile_text(spec_text(phase="gpus = 0..7, dp = 8, chunk_by = work", kind="decode"))


def test_long_prompts_have_passes_that_take_equally_long() -> None:
    """Where attention is most of a pass, equal work is nearly equal time; reports say how near."""
    text = (
        'moe 1\nhardware from "h100-sxm" { gpus = 8 }\nmodel from "llama-3.1-8b" { }\n'
        "workload { sequences = 4, prompt = 131_072 tok, output = 128 tok }\n"
        "phase prefill { gpus = 0..7, pp = 4, tp = 2, chunk = 16_384 tok, chunk_overlap = full, chunk_by = HOW }"
    )
    plans = {how: dagc.compile_text(text.replace("HOW", how)) for how in ("tokens", "work")}
    spread = {}
    for how, plan in plans.items():
        slowest = [max(c.schedule.stage_s) for c in plan.phases["prefill"].chunks]
        spread[how] = max(slowest) / min(slowest)
    assert spread["work"] < 1.1 and spread["tokens"] > 3
    by_work, by_tokens = (plans[how].phases["prefill"] for how in ("work", "tokens"))
    assert by_work.time_s < by_tokens.time_s and by_work.bubble < by_tokens.bubble
    assert any("of the stage that takes longest" in said for _, said in assumptions(plans["work"]))
