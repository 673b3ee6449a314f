"""What a phase's figures call themselves, and doubtful decode steps that move their cache."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT, spec_text
from state_specs import SPARSE, state_spec

import dagc
from dagc.base.diagnostics import SpecError

WORDS = "not a request's TTFT"


@pytest.mark.parametrize(("options", "taken"), [("", "one pass of all prompts"), (", chunk = 100 tok", "3 passes of all prompts")])  # fmt: skip
def test_the_ttft_of_a_phase_says_what_it_is(options: str, taken: str) -> None:
    plan = dagc.compile_text(spec_text(phase=f"gpus = 0..7, ep = 4, tp = 2{options}"))
    for shown in (plan.report(), plan.markdown(), plan.html().replace("&#x27;", "'").replace("&#39;", "'")):
        flat = " ".join(shown.split())
        assert WORDS in flat and taken in flat and "last sequence of the whole batch" in flat
    assert all(len(line) <= 80 for line in plan.report().splitlines())
    schema = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
    assert WORDS in schema["$defs"]["phase"]["properties"]["ttft_s"]["description"]


def test_a_decode_step_is_no_ttft() -> None:
    plan = dagc.compile_text(spec_text(kind="decode"))
    assert WORDS not in plan.report() and WORDS not in plan.html()


def test_a_step_that_gathers_its_cache_is_doubtful() -> None:
    """An indexer needs the keys of the whole context: split over ranks, they travel with every token."""
    plan = dagc.compile_text(state_spec(SPARSE, "gpus = 0..3, sp = 2, tp = 2", "decode"))
    (found,) = [d for d in plan.diagnostics if "along the context" in d.message]
    assert found.code == "W06" and "all_gather over sp" in found.because[0]
    result = next(iter(plan.phases.values()))
    moved_B = sum(
        result.costs.ops[s.name, op.name].wire_B * s.repeat
        for s in result.graph.segments for op in s.ops if op.kind == "all_gather" and "context" in op.dims
    )  # fmt: skip
    assert moved_B > 0


def test_a_width_that_attention_needs_whole_is_gathered_too() -> None:
    model = """layers = 2, hidden = 64, vocab = 512, dtype = bf16
attention { kind = mla, heads = 8, q_latent = 16, kv_latent = 16, nope_dim = 8, rope_dim = 4, v_dim = 8 }
mlp { hidden = 64 }"""
    plan = dagc.compile_text(
        spec_text(kind="decode", phase="gpus = 0..3, tp = 4, shard { kv_latent = tp }", model=model)
    )
    (found,) = [d for d in plan.diagnostics if "along the context" in d.message]
    assert "mla.c: all_gather over tp" in found.because[0]


@pytest.mark.parametrize("phase", ["gpus = 0..3, sp = 4", "gpus = 0..7, dp = 2, tp = 4", "gpus = 0..7, ep = 4, sp = 2"])
def test_a_cache_that_stays_is_not(phase: str) -> None:
    for kind in ("prefill", "decode"):
        plan = dagc.compile_text(spec_text(kind=kind, phase=phase))
        assert not [d for d in plan.diagnostics if "along the context" in d.message]


@pytest.mark.parametrize(
    ("phase", "kind", "near"),
    [
        ("gpus = 0..4, sp = 5", "prefill", "255 or 260 tokens do"),
        ("gpus = 0..2, sp = 3", "decode", "270 or 273 tokens do"),
        ("gpus = 0..2, tp = 3", "prefill", "tp = 2 or 4 divides it"),
        ("gpus = 0..1, tp = 2, prefix = 300 tok, chunk = 7 tok", "prefill", "prefix = 255 tok at most"),
        ("gpus = 0..3, sp = 4, chunk = 64 tok", "prefill", "leave out `chunk`"),
        ("gpus = 0..6, pp = 2\nattention { tp = 2 }", "prefill", "6 or 8 GPUs can"),
    ],
)
def test_what_must_divide_names_the_nearest_that_does(phase: str, kind: str, near: str) -> None:
    with pytest.raises(SpecError) as found:
        dagc.compile_text(spec_text(kind=kind, phase=phase))
    assert near in "".join(line for d in found.value.diagnostics for line in d.help)
