"""What is published of DeepSeek V4: parameters, caches and FLOPs of a token at a context of 1,048,576 tokens, beside V3.2."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

from dagc.api import Plan
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline.compile import compile_spec

FLASH = ROOT / "tests" / "data" / "hf_configs" / "deepseek-v4-flash.json"
PRO = {
    "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "q_lora_rank": 1536, "n_routed_experts": 384, "moe_intermediate_size": 3072,
    "o_groups": 16, "index_topk": 1024, "routed_scaling_factor": 2.5, "compress_ratios": [128, *[128, 4] * 30],
}  # fmt: skip
"""Fields in which V4-Pro is not V4-Flash, as torchtitan's and other public configs of it have them."""
GIB = 2**30


MODELS: dict[str, Path] = {}
"""Folders of configs that are no preset."""


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> None:
    MODELS["pro.json"] = tmp_path_factory.mktemp("pro")
    (MODELS["pro.json"] / "pro.json").write_text(json.dumps(json.loads(FLASH.read_text()) | PRO))


@cache
def decode(model: str, context: int = 1_048_576, ranks: int = 64) -> Plan:
    """A sequence on each GPU, whose caches are in bf16."""
    text = f"""moe 1
hardware pool from "b200-sxm" {{ gpus = 64 }}
model one from "{model}" {{ kv_dtype = bf16 }}
workload {{ sequences = {ranks}, prompt = 1024 tok, output = 1 tok }}
phase decode {{ gpus = 0..{ranks - 1}, ep = {ranks}, context = {context} tok }}"""
    out = Collector()
    return Plan.of(compile_spec(load(Source("plan.moe", text), out, {}, MODELS.get(model)), out))


# Sources: the GiB, https://vllm.ai/blog/deepseek-v4 and what was counted after it; parameters and shares of V3.2, the model cards.
V32_GIB, FLASH_GIB, PRO_GIB = 83.88, 6.72, 9.62


def test_caches_of_a_million_tokens_are_those_that_are_published() -> None:
    """What is published counts entries alone: windows and begun groups are 0.3% more."""
    found = {
        name: decode(text).phases["decode"].memory.worst.kv_cache_B / GIB
        for name, text in (("v3.2", "deepseek-v3.2"), ("flash", "deepseek-v4-flash"), ("pro", "pro.json"))
    }
    assert found["v3.2"] == pytest.approx(V32_GIB, rel=1e-4)
    assert found["flash"] == pytest.approx(FLASH_GIB, rel=4e-3) and found["flash"] > FLASH_GIB
    assert found["pro"] == pytest.approx(PRO_GIB, rel=4e-3) and found["pro"] > PRO_GIB


def test_entries_alone_are_the_published_caches_to_the_digit() -> None:
    for text, published in (("deepseek-v4-flash", FLASH_GIB), ("pro.json", PRO_GIB)):
        long, short = (decode(text, n).phases["decode"].memory.worst.kv_cache_B for n in (1_048_576, 1024))
        token_B = (long - short) / (1_048_576 - 1024)
        assert round(token_B * 1_048_576 / GIB, 2) == published


def test_flops_of_a_token_are_about_the_published_share_of_v32() -> None:
    """27% and 10% in FLOPs of 8 bits: products in 4 bits count as half there, and as any other here."""
    v32, flash, large = (
        decode(text).phases["decode"].flops_per_token for text in ("deepseek-v3.2", "deepseek-v4-flash", "pro.json")
    )
    assert large / v32 == pytest.approx(0.27, abs=0.015)
    assert flash / v32 == pytest.approx(0.10, abs=0.025)


def test_parameters_are_those_of_the_model_card() -> None:
    total, active = decode("pro.json").params
    assert total == pytest.approx(1.6e12, rel=0.02) and active == pytest.approx(49e9, rel=0.02)
    assert decode("deepseek-v4-flash").params[0] == pytest.approx(284e9, rel=2e-3)
