"""The examples: verdicts of the two plans, published parameter counts, placement, memory by hand."""

from __future__ import annotations

import pytest
from conftest import INFERENCE, ROOT, compiled

from dagc.api import Plan

# Which of the plans' claims hold, recomputed by hand from their own numbers (True: the requirement passes).
PLAN_A = {
    "1 the model has 10B parameters": False,
    "2 effective compute 240 TFLOP/s": True,
    "2 effective bandwidth 1.44 TB/s": True,
    "2 four layers per stage": True,
    "2 20 GB for 10B parameters": True,
    "3 20 GB / (TP EP PP) = 0.625 GB, as arithmetic": True,
    "3 weights 0.625 GB per GPU": False,
    "4 prefill on 4 x 4 x 2 x 2 = 64 GPUs": True,
    "4 decode on 4 x 4 x 2 = 32 GPUs": True,
    "4 the whole pool works in decode": False,
    "5 activations 1.36 GB, before any division": True,
    "5 activations 1.36 GB, reduced by SP": False,
    "6 KV cache 42.95 GB / (PP SP), as arithmetic": True,
    "6 KV cache 5.37 GB per GPU": False,
    "6 KV cache 0.67 GB per GPU, as heads and batch divide too": True,
    "7 total 7.98 GB of these parts": False,
    "8 1.44 TB/s at 1.1 GB per token, as arithmetic": True,
    "8 1.3 tokens/ms per GPU": False,
    "9 83 tokens/ms meets 100 in prefill": False,
    "9 42 tokens/ms meets 100 in decode": False,
    "10 first token after 3.2 s": False,
    "10 128 prompts at 83 tokens/ms within 10 s": False,
    "10 first token within 10 s": True,
    "11 15 GFLOP per token": False,
    "memory under 90%": True,
    "under traffic: 100 tokens/ms": False,
    "under traffic: first token within 10 s": True,
    "under traffic: GPUs over 85% busy": False,
    "under traffic: load within 10%": True,
    "under traffic: work of GPUs within 10%": False,
    "under traffic: load of experts within 10%": False,
    "under traffic: every GPU's memory under 90%": True,
}
PLAN_B = {
    "1 the model has 10B parameters": False,
    "12 20 GB / 16 = 1.25 GB, as arithmetic": True,
    "12 weights 1.25 GB per GPU": False,
    "12 total 1.29 GB per GPU, without a KV cache": False,
    "13 100 tokens/ms per GPU": False,
    "14 12,800 tokens/ms in decode": False,
    "15 GPU utilisation 2%": False,
    "16 no communication between experts": False,
    "17 128 GPUs": True,
    "17 GPU = dp x 16 + expert: replica 1 starts at 16": True,
    "17 replica 7 starts at 112": True,
    "17 replica 7 ends at 127": True,
    "first token within 10 s": True,
    "memory under 80%": True,
    "under traffic: 12,800 tokens/ms": False,
    "under traffic: first token within 10 s": True,
    "under traffic: load within 10%": True,
    "under traffic: work of GPUs within 10%": True,
}


@pytest.mark.parametrize(("name", "want"), [("plan_a", PLAN_A), ("plan_b", PLAN_B)])
def test_the_verdicts_of_the_plans(name: str, want: dict[str, bool]) -> None:
    plan = compiled(name)
    assert {v.requirement.label: v.passed for v in plan.requirements} == want
    assert any(d.code == "W06" and "22.1x less" in d.message for d in plan.diagnostics)


def test_the_readme_counts_the_claims_of_plan_a() -> None:
    failing = sum(not verdict.passed for verdict in compiled("plan_a").requirements)
    said = f"{failing} of its {len(compiled('plan_a').requirements)} claims do not hold"
    assert said in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_a_block_of_the_spec_replaces_the_stock_one() -> None:
    """The same attention, written out in the spec: every figure stays."""
    from conftest import ROOT, spec_text

    import dagc

    stock = (ROOT / "grammar" / "library" / "blocks.moe").read_text()
    block = stock[stock.index("block gqa(x)") : stock.index("# Multi-head latent")]
    own = dagc.compile_text(
        spec_text(extra=block.replace("block gqa", "block mine")).replace("kind = gqa", "kind = mine")
    )
    library = dagc.compile_text(spec_text())
    assert own.phases["prefill"].time_s == library.phases["prefill"].time_s
    assert own.params == library.params


def test_bare_names_in_a_fold_take_the_phases_own_degrees() -> None:
    from conftest import spec_text

    import dagc

    phase = "gpus = 0..15, dp = 4, tp = 4\nattention { dp, sp, tp }\nexperts { ep = 8, tp = 2 }"
    mesh = dagc.compile_text(spec_text(phase=phase)).phases["prefill"].graph.the_mesh
    assert {a: mesh.degrees[a] for a in ("dp", "tp", "ep", "etp", "edp")} == {
        "dp": 4,
        "tp": 4,
        "ep": 8,
        "etp": 2,
        "edp": 1,
    }
    assert mesh.shape == (4, 2, 2)


def test_idle_stages_are_said() -> None:
    """Plan A's decode sends one micro-batch through four stages; its prefill sends eight."""
    found = [d.message for d in compiled("plan_a").diagnostics if "idle" in d.message]
    assert found == ["the stages of `decode` are idle 75% of the time"]


def test_plan_a_figures_by_hand() -> None:
    """128 x 10240 tokens x 512 x 2 (K, V) x 2 B x 16 layers over pp 4, ep 4 (batch), sp 2 and tp 2."""
    memory = compiled("plan_a").phases["prefill"].memory.worst
    assert memory.kv_cache_B == 128 * 10240 * 512 * 2 * 2 * 16 / (4 * 4 * 2 * 2)
    attention = 4 * 512 * 512 / 2
    experts = 16 / 4 * 3 * 512 * 1024 / 2
    small = 512 * 16 + 2 * 512  # router and two norms
    head = 32_000 * 512 / 2 + 512
    assert memory.stage == 3
    assert memory.weights_B == 2 * (4 * (attention + experts + small) + head)


def test_plan_a_attention_flops_by_hand() -> None:
    result = compiled("plan_a").phases["prefill"]
    tokens = 10240
    pairs = tokens * (tokens + 1) / 2
    layer = 2 * 4 * 512 * 512 * tokens + 4 * 512 * pairs + 2 * 512 * 16 * tokens + 2 * 2 * 3 * 512 * 1024 * tokens
    head = 2 * 512 * 32_000
    matmuls = (16 * layer + head) / tokens
    assert result.flops_per_token == pytest.approx(matmuls, rel=0.01)  # norms, rope and silu are the rest


@pytest.mark.parametrize(
    ("name", "total_b", "active_b"),
    # Counted from the published configs: embeddings, head, attention, router and experts.
    [("mixtral_8xh100", 46.703, 12.880), ("deepseek_v3_h800", 671.026, 37.552)],
)
def test_parameters_are_the_published_ones(name: str, total_b: float, active_b: float) -> None:
    total, active = compiled(name).params
    assert total / 1e9 == pytest.approx(total_b, rel=1e-4)
    assert active / 1e9 == pytest.approx(active_b, rel=1e-3)


def test_deepseek_cache_is_the_latent() -> None:
    """70,272 B a token over 61 layers in 16 bit (512 + 64 wide), 128 sequences of 5120 tokens on each GPU."""
    memory = compiled("deepseek_v3_h800").phases["decode"].memory.worst
    assert memory.kv_cache_B == 70_272 * 5120 * 128


def test_placement_of_the_plans() -> None:
    a, b = compiled("plan_a"), compiled("plan_b")
    assert sorted(a.phases["prefill"].gpus) == list(range(64))
    assert sorted(a.phases["decode"].gpus) == list(range(32))
    assert b.phases["decode"].gpus == tuple(range(128))
    assert a.phases["prefill"].graph.stages[1].gpus == tuple(range(16, 32))


@pytest.mark.parametrize("example_name", [path.stem for path in INFERENCE])
def test_every_example_compiles_and_its_path_adds_up(example: Plan) -> None:
    for result in example.phases.values():
        total = sum(step.time_s for step in result.path)
        pass_s = result.time_s * result.tokens_per_step  # with drafts, a pass brings several tokens
        assert total == pytest.approx(pass_s, rel=1e-6)
        assert result.floor.period_s <= pass_s
        assert result.memory.fits
        assert sum(result.bound_by.values()) == pytest.approx(1.0)


def test_one_kv_head_is_not_divided_by_tp() -> None:
    plan = compiled("custom_attention")
    segment = plan.phases["decode"].graph.segment("sparse")
    weight = segment.weight["@gated_mqa.Wk"]
    assert weight.sharding is not None
    assert weight.sharding.dims == ((), ())


def test_sensitivities_point_the_right_way() -> None:
    plan = compiled("plan_a")
    found = {s.name: s.change for s in plan.sensitivities("decode")}
    assert all(change <= 1e-9 for change in found.values())
    assert found["+10% HBM bandwidth"] < -0.05  # the cache is read once per token
    assert found["+10% compute"] > -0.01
