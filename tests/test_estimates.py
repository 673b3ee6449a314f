"""Estimates of phases are what compiling them finds, bit for bit, whatever was estimated before."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from conftest import examples
from hypothesis import HealthCheck, given, settings
from random_plans import plans
from tiers import spread

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.base.traced import Tape, chosen
from dagc.lang.load import load
from dagc.pipeline.compile import compile_phase
from dagc.pipeline.estimates import Estimate, Estimates
from dagc.plan.result import PhaseResult
from dagc.spec.phase import Part, Phase
from dagc.spec.spec import Spec
from dagc.spec.strategy import Fold
from dagc.spec.unit import Unit

Outcome = PhaseResult | tuple[str, ...]

MODELS = {
    "dense": ('model from "qwen3-32b" { }', ""),
    "routed": ('model from "qwen3-235b-a22b" { weight_dtype = fp8 }', "engine = vllm"),
    "skewed": ('model from "qwen3-235b-a22b" { weight_dtype = fp8 }', "engine = vllm"),
    "drafts": ('model from "deepseek-v3" { mtp_layers = 1 }', "engine = sglang, draft = 2, acceptance = 70%, drafter = mtp"),
    "windows": ('model from "gpt-oss-20b" { }', "engine = vllm"),
    "chooses": ('model from "deepseek-v3.2" { }', ""),
    "groups": ('model from "deepseek-v4-flash" { }', ""),
    "states": ('model from "qwen3-next-80b-a3b" { }', "engine = vllm"),
}  # fmt: skip


def spec_of(name: str, hardware: str = "h200-sxm") -> Spec:
    model, words = MODELS[name]
    routing = ", routing = power_law(0.4)" if name == "skewed" else ""
    text = f"""moe 1
hardware from "{hardware}" {{ gpus = 64 }}
{model}
workload {{ sequences = 64, prompt = 2048 tok, output = 256 tok{routing} }}
phase prefill {{ gpus = 0..7, tp = 8, {words.partition(", draft")[0]} }}
phase decode {{ gpus = 0..7, tp = 8, {words} }}"""
    return load(Source("<test>", text), Collector())


def compiled(spec: Spec, phase: Phase) -> Outcome:
    unit = Unit(spec, phase, Collector())
    try:
        return compile_phase(unit)
    except SpecError as error:
        return messages(error)


def messages(error: SpecError) -> tuple[str, ...]:
    return tuple(f"{d.code} {d.message} {d.because}" for d in error.diagnostics if d.code.startswith("E"))


def estimated(estimates: Estimates, phase: Phase) -> Estimate | tuple[str, ...]:
    try:
        return estimates(phase)
    except SpecError as error:
        return messages(error)


def check(found: Estimate | tuple[str, ...], true: Outcome, phase: Phase) -> bool:
    """Both found the same; whether the phase compiles."""
    if isinstance(true, tuple) or isinstance(found, tuple):
        assert found == true, phase
        return False
    assert found.time_s == true.time_s, phase
    assert found.throughput_tok_s == true.throughput_tok_s
    assert found.tokens_per_step == true.tokens_per_step
    assert found.memory == true.memory
    assert found.memory.live_B == true.memory.live_B
    assert found.fits == true.memory.fits
    return True


def drawn(rng: random.Random, spec: Spec) -> Phase:
    """Some phase of some layout on 8 or 16 GPUs; most are legal."""
    phase = rng.choice(spec.phases)
    gpus, pp = rng.choice(((8, 1), (8, 1), (16, 2), (16, 1)))
    dp, sp = rng.choice(((1, 1), (1, 1), (2, 1), (4, 1), (8, 1), (1, 2)))
    tp = gpus // pp // dp // sp
    etp = rng.choice((1, 1, 2))
    strategy = replace(
        phase.strategy, pp=pp, microbatches=rng.choice((1, 1, 2)), overlap=rng.choice(("none", "none", "two_batch")),
        attention=Fold((("dp", dp), ("sp", sp), ("tp", tp))), experts=Fold((("ep", gpus // pp // etp), ("tp", etp))),
        sp_method=rng.choice(("allgather", "ring", "ulysses")), dispatch=rng.choice(("all_to_all", "all_to_all", "allgather")),
        sequence_parallel=phase.takes_prompts and rng.random() < 0.3,
    )  # fmt: skip
    return resized(rng, replace(phase, gpus=tuple(range(gpus)), strategy=strategy))


def resized(rng: random.Random, phase: Phase) -> Phase:
    """The phase with other sizes; a decode step may become a mixed one."""
    sequences = rng.choice((1, 7, 16, 64, 512, 1000))
    if phase.takes_prompts:
        tokens = rng.choice((128, 1000, 2048, 8192))
        passes = rng.choice((1, 1, 3))
        last = rng.choice((0, 96)) if passes > 1 else 0
        cached = rng.choice((0, 0, 512))
        sized = replace(phase, sequences=sequences, tokens=tokens, passes=passes, last=last, context=0)
        return replace(sized, context=cached + sized.new_tokens)
    context = rng.choice((64, 1000, 4096, 30000))
    sized = replace(phase, sequences=sequences, context=context)
    degrees = phase.strategy.attention.degrees if phase.strategy.attention is not None else ()
    if rng.random() < 0.7 or ("sp", 2) in degrees:
        return sized
    parts = (Part("decode", sequences, sized.tokens, context), Part("prompt", 3, 512, rng.choice((512, 700))))
    return replace(sized, kind="mixed", parts=parts, sequences=sequences + 3)


@pytest.mark.parametrize("name", spread(MODELS, lambda name: name not in ("routed", "windows")))
def test_an_estimate_is_what_compile_finds(name: str) -> None:
    """Three sizes of each layout in turn, so that what is kept of one is used for the others."""
    rng = random.Random(name)
    spec = spec_of(name, "h200-sxm" if name != "dense" else "h100-sxm")
    estimates = Estimates(spec)
    layouts = [drawn(rng, spec) for _ in range(examples(3, 2))]
    held = 0
    for turn in range(3):
        for layout in layouts:
            phase = layout if not turn else resized(rng, layout) if layout.kind != "mixed" else layout
            held += check(estimated(estimates, phase), compiled(spec, phase), phase)
    assert held >= 3


def test_a_layout_with_skewed_experts_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """At further sizes nothing is lowered, and ranks differ all the same."""
    spec = spec_of("skewed")
    phase = spec.phase("decode")
    strategy = replace(phase.strategy, attention=Fold((("dp", 4), ("tp", 2))), experts=Fold((("ep", 8), ("tp", 1))))
    phase = replace(phase, strategy=strategy)
    estimates = Estimates(spec)
    for context in (1000, 2000):
        estimates(replace(phase, context=context))
    monkeypatch.setattr(estimates.layouts, "lowered_and_kept", lambda unit: pytest.fail("lowered"))
    for sequences, context in ((64, 3000), (64, 3001), (128, 3000)):
        own = replace(phase, sequences=sequences, context=context)
        result = compiled(spec, own)
        assert isinstance(result, PhaseResult) and any(cost.time_s.size > 1 for cost in result.costs.ops.values())
        assert check(estimates(own), result, own)


@settings(deadline=None, max_examples=examples(12), suppress_health_check=list(HealthCheck))
@given(plans())
def test_any_plan_is_estimated_as_it_compiles(case: tuple[str, str]) -> None:
    _, text = case
    try:
        spec = load(Source("<test>", text), Collector())
    except SpecError:
        return
    estimates = Estimates(spec)
    for phase in (spec.phases[0], replace(spec.phases[0], sequences=3 * spec.phases[0].sequences)):
        check(estimated(estimates, phase), compiled(spec, phase), phase)


def test_a_line_is_right_where_a_choice_is_the_same() -> None:
    """How a search came to what it chose is not traced: it is asked again."""
    asked: list[float] = []

    def larger(a: float, b: float) -> str:
        asked.append(a)
        return "first" if a > b else "second"

    tape = Tape()
    a, b = tape.given(3.0), tape.given(2.0)
    assert chosen(larger, (a, b)) == "first" and chosen(larger, (1.0, 2.0)) == "second"
    line = tape.function([a + b])
    assert line(5.0, 4.0) == (9.0,) and line(4.0, 5.0) is None and asked == [3.0, 1.0, 5.0, 4.0]
