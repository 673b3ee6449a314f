"""A mixed step: its parts, what they share, and that a step of one part is the phase of that part's kind."""

from __future__ import annotations

from pathlib import Path

import pytest

import dagc
from dagc.base.diagnostics import SpecError

HEAD = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "%s" { }
workload { sequences = 32, prompt = 1024 tok, output = 256 tok }
"""


def compiled(tmp_path: Path, *phases: str, model: str = "mixtral-8x7b") -> dagc.Plan:
    path = tmp_path / "spec.moe"
    path.write_text(HEAD % model + "\n".join(phases) + "\n", encoding="utf-8")
    return dagc.compile(path)


@pytest.mark.parametrize("how", ["tp = 8", "dp = 8, pp = 1", "ep = 8", "pp = 2, tp = 4, microbatches = 2"])
@pytest.mark.parametrize(
    ("mixed", "alone"),
    [("decode = 32", "kind = decode"), ("prompt_tokens = 32768 tok", "kind = prefill")],
)
def test_a_step_of_one_part_is_that_phase(tmp_path: Path, how: str, mixed: str, alone: str) -> None:
    plan = compiled(
        tmp_path,
        f"phase a {{ kind = mixed, gpus = 0..7, {mixed}, {how} }}",
        f"phase b {{ gpus = 0..7, {alone}, {how} }}",
    )
    a, b = plan.phases["a"], plan.phases["b"]
    assert (a.time_s, a.floor_s, a.flops_per_token) == (b.time_s, b.floor_s, b.flops_per_token)
    assert a.memory == b.memory and a.collectives == b.collectives
    assert a.phase_kind.name == "mixed"


@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3", "gpt-oss-120b"])
def test_parts_share_products_and_experts(tmp_path: Path, model: str) -> None:
    """Tokens of both parts are one product; FLOPs are those of the two parts apart."""
    plan = compiled(
        tmp_path,
        "phase m { kind = mixed, gpus = 0..7, decode = 32, prompts = [1024 tok, 512 tok], ep = 1, tp = 8 }",
        "phase d { kind = mixed, gpus = 0..7, decode = 32, tp = 8 }",
        "phase p { kind = mixed, gpus = 0..7, prompts = [1024 tok], tp = 8 }",
        "phase q { kind = mixed, gpus = 0..7, prompts = [512 tok], tp = 8 }",
        model=model,
    )
    flops, tokens, time_s = {}, {"m": 32 + 1536, "d": 32, "p": 1024, "q": 512}, {}
    for name, result in plan.phases.items():
        flops[name], time_s[name] = result.flops_per_token * tokens[name], result.time_s
    assert flops["m"] == pytest.approx(flops["d"] + flops["p"] + flops["q"], rel=1e-9)
    assert max(time_s["d"], time_s["p"]) < time_s["m"] < time_s["d"] + time_s["p"] + time_s["q"]
    segment = plan.phases["m"].graph.body[-1]
    products = [op for op in segment.ops if op.kind == "contract" and op.scope == "experts"]
    assert len({op.name for op in products}) == 3 and segment.sizes["seq"] == 32 + 1536
    assert len([op for op in segment.ops if op.kind == "attend"]) == 3
    cache = {name: plan.phases[name].memory.worst.kv_cache_B for name in "mdpq"}
    assert cache["m"] == pytest.approx(cache["d"] + cache["p"] + cache["q"])
    assert plan.phases["m"].memory.worst.weights_B == plan.phases["d"].memory.worst.weights_B


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("decode = 0, prompt_tokens = 0 tok", "E03"),
        ("decode = 4, prompts = [8 tok], prompt_tokens = 9 tok", "E03"),
        ("decode = 4, prompts = [8 tok], prefixes = [1 tok, 2 tok]", "E03"),
        ("decode = 4, prompts = [0 tok]", "E09"),
        ("decode = 4, sequences = 4", "E12"),
        ("decode = 4, chunk = 4 tok", "E12"),
        ("prompts = [8 tok], draft = 1", "E12"),
        ("decode = 4, prompts = [8 tok], sp = 8", "E03"),
    ],
)
def test_bad_steps_are_refused(tmp_path: Path, said: str, code: str) -> None:
    how = "" if "sp = 8" in said else ", tp = 8"
    with pytest.raises(SpecError) as error:
        compiled(tmp_path, f"phase m {{ kind = mixed, gpus = 0..7, {said}{how} }}")
    assert [d.code for d in error.value.diagnostics if d.code.startswith("E")] == [code]
