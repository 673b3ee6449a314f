"""Dtypes of a phase in place of the model's: as a model of these dtypes, wherever the phase runs."""

from __future__ import annotations

import pytest
from conftest import spec_text

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.estimates import Estimates

MODEL = 'model from "qwen3-30b-a3b" { }'
MTP = 'model from "deepseek-v3" { weight_dtype = bf16 }'
POOLS = """
hardware pre from "h200-sxm" { gpus = 8 }
hardware dec from "b200-sxm" { gpus = 8 }
link pre to dec { bandwidth = 50 GB/s, latency = 8 us }
"""
WORK = "workload { sequences = 16, prompt = 256 tok, output = 32 tok }"
PREFILL = "phase prefill { hardware = pre, gpus = 0..3, tp = 4, sequences = 4 }"
DECODE = "phase decode { hardware = dec, gpus = 0..3, tp = 4 }"


def text(decode: str = "", model: str = MODEL, rest: str = "") -> str:
    return f"moe 1\n{POOLS}{model}\n{WORK}\n{PREFILL}\n{DECODE.replace('tp = 4', f'tp = 4{decode}')}\n{rest}\n"


@pytest.mark.parametrize("dtypes", ["weight_dtype = fp8", "weight_dtype = nvfp4, kv_dtype = fp8", "kv_dtype = fp8"])
def test_a_phase_costs_what_a_model_of_its_dtypes_costs(dtypes: str) -> None:
    own = dagc.compile_text(text(f", {dtypes}"))
    of_model = text(model=MODEL.replace("{ }", f"{{ {dtypes} }}")).replace("hardware = pre", "hardware = dec")
    whole = dagc.compile_text(of_model.replace("gpus = 0..3, tp = 4, sequences", "gpus = 4..7, tp = 4, sequences"))
    plain = dagc.compile_text(text())
    assert own.phases["decode"].time_s == whole.phases["decode"].time_s
    assert own.phases["decode"].memory == whole.phases["decode"].memory
    assert own.phases["prefill"].time_s == plain.phases["prefill"].time_s
    assert own.phases["decode"].memory != plain.phases["decode"].memory


V4 = 'model from "deepseek-v4-flash" {{ {} }}'


@pytest.mark.parametrize(
    ("of_model", "of_phase"), [("weight_dtype = bf16", ""), ("", "bf16"), ("", "fp8"), ("weight_dtype = fp8", "bf16")]
)
def test_what_a_model_has_in_more_bits_than_its_activations_stays_so(of_model: str, of_phase: str) -> None:
    """The weights that mix residual streams are published in fp32; a dtype that is asked of all replaces those of experts and the others."""
    said = f", weight_dtype = {of_phase}" if of_phase else ""
    spec = load(Source("x.moe", text(said, V4.format(of_model))), Collector())
    assert load(Source("x.moe", print_spec(spec)), Collector()) == spec
    model = spec.of(spec.phase("decode")).model
    kept = {"hyper_collapse": "fp32", "hyper_merge": "fp32"}
    tables = {"embed": "bf16", "lm_head": "bf16"} if model.weight_dtype == "fp8" else {}
    assert dict(model.weight_dtypes) == kept | tables
    own = load(Source("x.moe", text(said, V4.format("weights { hyper_collapse = bf16 }"))), Collector())
    assert own.model.weight_dtypes["hyper_collapse"] == "bf16"


def test_a_head_that_is_apart_stays_in_16_bits() -> None:
    model = 'model from "qwen3-30b-a3b" { weight_dtype = fp8_block, weights { lm_head = bf16 } }'
    spec = load(Source("x.moe", text(", weight_dtype = nvfp4", model)), Collector())
    assert dict(spec.of(spec.phase("decode")).model.weight_dtypes) == {"lm_head": "bf16"}
    assert spec.of(spec.phase("prefill")).model is spec.model
    assert load(Source("x.moe", print_spec(spec)), Collector()) == spec


@pytest.mark.parametrize("more", ["", ", draft = 1, drafter = mtp"])
def test_estimates_are_those_of_compile(more: str) -> None:
    source = f"moe 1\n{POOLS}{MTP}\n{WORK}\nphase decode {{ hardware = dec, gpus = 0..7, tp = 8, weight_dtype = fp8_block, kv_dtype = fp8{more} }}"
    spec = load(Source("x.moe", source), Collector())
    found, plan = Estimates(spec)(spec.phase("decode")), dagc.compile_text(source)
    assert found.time_s == plan.phases["decode"].time_s
    assert found.memory == plan.phases["decode"].memory


def test_phases_on_the_same_gpus_hold_other_dtypes_twice() -> None:
    rest = "phase more { kind = decode, hardware = dec, gpus = 0..3, tp = 4, weight_dtype = fp8 }"
    plan = dagc.compile_text(text(rest=rest))
    shared = plan.pools[1]
    assert shared.phases == ("decode", "more")
    assert shared.copies_B == pytest.approx(plan.phases["more"].memory.worst.weights_B, rel=0.01)  # norms are equal


def test_math_that_a_pool_has_no_unit_for() -> None:
    source = text(rest="phase more { hardware = pre, kind = decode, gpus = 0..3, tp = 4, weight_dtype = nvfp4 }")
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(source)
    (found,) = caught.value.diagnostics
    assert found.code == "E03" and "`pre` cannot run nvfp4" in found.message
    assert found.span is not None and found.span.text == "nvfp4"


def test_reports_and_exports_say_so() -> None:
    from dagc.export.engines.launch import export

    plan = dagc.compile_text(text(", weight_dtype = nvfp4, kv_dtype = fp8"))
    words = "nvfp4 weights, bf16 activations, fp8 KV cache"
    assert words in plan.report() and words in plan.html()
    files = export(plan, "vllm", None, "x")
    assert b"this server needs a checkpoint in nvfp4" in files["x.decode.vllm.sh"]
    assert b"caches are bf16 here and fp8 in `decode`" in files["x.prefill.vllm.sh"]
    assert b"--kv-cache-dtype fp8" in files["x.decode.vllm.sh"]


def test_a_proof_takes_the_dtypes_of_the_phase() -> None:
    spec = spec_text(kind="prefill", phase="gpus = 0..7, ep = 2, tp = 4").replace("dtype = fp32", "dtype = bf16")
    plan = dagc.compile_text(spec.replace("gpus = 0..7,", "gpus = 0..7, weight_dtype = fp8,"))
    assert {w.dtype for s in plan.phases["prefill"].graph.segments for w in s.weights if w.scope == "experts"} == {
        "fp8"
    }
    assert plan.prove("prefill").verdict == "equal"
