"""Prices of the steps of a serving: what is compiled, and what stands between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline.compile import compile_phase, compile_spec
from dagc.pipeline.serve import Servings
from dagc.pipeline.step_kinds import Limits
from dagc.pipeline.step_kinds import Source as Phases
from dagc.pipeline.step_points import Knot, compiled, phase_of
from dagc.pipeline.step_prices import Host, StepPrices
from dagc.pipeline.step_tables import Curve, Errors
from dagc.plan.result import passes_s
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

MIXTRAL = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { }
workload { sequences = 32, prompt = 1024 tok, output = 256 tok }
phase prefill { gpus = 0..7, engine = vllm, attention { dp = 2, tp = 4 }, experts { ep = 8 } }
phase decode { gpus = 0..7, engine = vllm, attention { dp = 2, tp = 4 }, experts { ep = 8 } }
serve chat { arrivals = poisson(4 req/s), requests = 100 }
"""


def spec_of(text: str) -> Spec:
    return load(Source("<test>", text), Collector())


KNOTS = (
    Knot("decode", 16, 1000),
    Knot("prefill", prompts=2, tokens=700, attended=900),
    Knot("decode", 16, 500, 2, 256, 512),
)


@pytest.mark.parametrize("knot", KNOTS, ids=lambda k: k.kind)
def test_a_step_costs_what_its_phase_compiles_to(knot: Knot) -> None:
    spec = spec_of(MIXTRAL)
    phase = replace(phase_of(knot, spec), launches=spec.phases[0].launches.__class__())
    result = compile_phase(Unit(spec, phase, Collector()))
    assert compiled(knot, spec).time_s == passes_s(result.all_passes)


def test_between_knots_the_error_is_below_what_is_said() -> None:
    errors = Errors(0.01)
    curve = Curve(lambda x: 1e4 + x**2, [16.0, 64.0, 256.0, 1024.0], errors)
    found = {x: curve(x) for x in range(16, 1024)}
    for x, value in found.items():
        assert abs(value - (1e4 + x**2)) <= errors.largest * (1e4 + x**2)
    assert 0.0 < errors.largest <= 0.01


def test_setup_has_the_plans_ranks_and_room() -> None:
    spec = spec_of(MIXTRAL)
    plan = compile_spec(spec, Collector())
    (workers,) = Servings(plan).setup(spec.serves[0]).workers
    assert (workers.role, workers.count, workers.gpus, workers.engine.ranks) == ("both", 1, 8, 2)
    room = workers.engine.kv_blocks * workers.engine.kv_block
    assert 0.5 < room * 2 / min(plan.kv_tokens("decode")) < 2.0


def test_a_knot_is_exact_and_lines_hold_where_they_say() -> None:
    spec = spec_of(MIXTRAL)
    limits = Limits(64, 2048, 1280, 1152)
    source = Phases("decode", ranks=2)
    prices = StepPrices(lambda knot: compiled(knot, spec), limits, Host(host_s=1e-3), source, source, source)
    line = prices.step(8.0, 8 * 1024.0)
    assert line.base_s + line.per_token_s * 8 * 1024.0 == pytest.approx(
        1e-3 + compiled(Knot("decode", 16, 1024), spec).time_s, rel=1e-12
    )
    assert line.since <= 8 * 1024.0 < line.until
    before = prices.points
    assert prices.step(8.0, line.since) is line and prices.points == before
