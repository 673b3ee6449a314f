"""Prices of latent attention to chosen tokens: the block of a decode step is one kernel, by engine, or keeps its parts' prices."""

from __future__ import annotations

import pytest
from conftest import whole

from dagc.calib import load, sparse_mla_decode
from dagc.calib.family import ENGINES
from dagc.cost.price import price
from dagc.cost.records import OpCost

FAMILY = sparse_mla_decode.FAMILY
SPEC = """moe 1
hardware from "{gpu}" {{ gpus = 8 }}
model from "{model}" {{ {size} }}
workload {{ sequences = 64, prompt = 4096 tok, output = 256 tok }}
phase decode {{ gpus = 0..7, {how}, engine = {engine} }}
"""


def block(
    engine: str = "vllm", model: str = "deepseek-v3.2", how: str = "tp = 8", gpu: str = "h200-sxm", size: str = ""
) -> dict[str, OpCost]:
    """Costs of the ops of the block in one sparse layer."""
    plan = whole(SPEC.format(engine=engine, model=model, how=how, gpu=gpu, size=size))
    found = price(plan.phases["decode"].graph, plan.units["decode"])
    return {op: cost for (layer, op), cost in found.ops.items() if layer == "sparse" and op.startswith("mla_indexed.")}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_block_takes_the_time_of_its_kernel(engine: str) -> None:
    found = block(engine)
    timed = {op.removeprefix("mla_indexed."): cost for op, cost in found.items() if cost.family == FAMILY.name}
    assert set(timed) == {"cq", "qn", "qr", "ckv", "kr", "iq", "ik", "iw", "chosen_tokens", "qa", "ol", "o", "y"}
    entry = load("h200_sxm").of(FAMILY, engine)["fp8_block_kv_bf16"]
    sizes = sparse_mla_decode.MODELS["DeepSeek-V3.2"]
    want = float(FAMILY.estimate_s(entry, 64, 4096 + 256, 16, *sizes))
    assert sum(float(cost.time_s.max()) for cost in timed.values()) == pytest.approx(want, rel=0.02)
    riding = {op.removeprefix("mla_indexed.") for op, cost in found.items() if cost.family == "fused"}
    assert riding == {"nq", "nc", "c", "r_in", "r", "nk_in", "nk", "rq", "rk", "chosen_tokens_k", "ol_q"}


def test_a_model_of_other_sizes_has_its_own() -> None:
    timed = [cost for cost in block(model="glm-5").values() if cost.family == FAMILY.name]
    entry = load("h200_sxm").of(FAMILY, "vllm")["bf16_kv_bf16"]
    want = float(FAMILY.estimate_s(entry, 64, 4096 + 256, 8, *sparse_mla_decode.MODELS["GLM-5"]))
    assert sum(float(cost.time_s.max()) for cost in timed) == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("how,size", [("attention { sp = 8 }", ""), ("tp = 8", "attention { index_top_k = 512 }")])
def test_a_split_context_or_another_choice_keeps_the_prices_of_the_parts(how: str, size: str) -> None:
    found = block(how=how, size=size)
    assert not [op for op, cost in found.items() if cost.family == FAMILY.name]
    assert found["mla_indexed.chosen_tokens"].time_s.max() > 0 and found["mla_indexed.cq"].family == "gemm"


def test_bytes_and_products_by_hand() -> None:
    sizes = 7168, 1536, 128, 128, 64
    c = sparse_mla_decode.SparseMlaDecodeConstants(1.0, 2.0, 0.0, 1e40, 1e12, 1e12, 1.0, 0.0, 0.0)
    weights = 7168 * (1536 + 576 + 128 + 64) + 1536 * (16 * 192 + 64 * 128) + 16 * 128 * 7168 + 2 * 512 * 16 * 256
    cached = 4 * (132 * 8192 + 576 * 2 * 2048)
    assert sparse_mla_decode.time_s(c, 4, 8192, 16, *sizes) == pytest.approx((weights + cached) / 1e12)


@pytest.mark.parametrize("gpu", ["h100_sxm", "h200_sxm", "b200_sxm"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_has_the_dtypes_that_were_timed(gpu: str, engine: str) -> None:
    found = set(load(gpu).of(FAMILY, engine))
    assert "fp8_block_kv_bf16" in found
    assert ("nvfp4_kv_fp8" in found) == (gpu == "b200_sxm" and engine != "sglang")
