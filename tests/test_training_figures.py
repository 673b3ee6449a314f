"""Figures of training steps against what others measured, published or derived: FLOPs per token, memory, activations of a layer."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from statistics import median

import pytest
from conftest import ROOT
from measured_steps import SETS, errors
from step_sets.measured_rows import Row
from step_sets.simumax import memory_error, runs

import dagc
from dagc.base.units import Quantity
from dagc.cost.training.kept_activations import kept_bytes
from dagc.lang.library import names

DATA = ROOT / "tests" / "data" / "training"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- FLOPs per token -------------------------------------------------------------------------------


@cache
def step_of(preset: str, seq: int, words: str = "") -> dagc.Plan:
    """On eight GPUs large enough for anything: FLOPs follow from the model alone."""
    return dagc.compile_text(
        f"""moe 1
hardware from "b200-sxm" {{ gpus = 8, memory = 100 TB }}
model from "{preset}" {{ dtype = bf16, weight_dtype = bf16 }}
workload {{ sequences = 8, prompt = {seq} tok }}
phase train {{ gpus = 0..7, dp = 8{words and f", {words}"} }}
"""
    )


def reported() -> Mapping[tuple[str, int], float]:
    """(preset, tokens of a sequence) -> FLOPs per token of NVIDIA's runs, the median."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows("megatron_bridge.csv"):
        per_token = float(row["tflops_gpu"]) * 1e12 / float(row["tokens_s_gpu"])
        found.setdefault((row["preset"], int(row["seq"])), []).append(per_token)
    return {key: median(values) for key, values in found.items()}


def test_flops_per_token_are_those_that_engines_report() -> None:
    """Within a percent, on every model whose runs count in the same way: 3 x (2 x parameters used + causal attention)."""
    found = reported()
    assert len(found) == 7
    for (preset, seq), published in found.items():
        own = step_of(preset, seq).trainings["train"].flops_per_token
        assert own == pytest.approx(published, rel=0.01), preset


def test_a_layer_for_further_tokens_counts_as_engines_count_it() -> None:
    """DeepSeek-V3 at 4,096 tokens with one MTP layer: 260.0 GFLOP per token in NVIDIA's runs; one more layer, the head once more and the
    projection of two widths to one."""
    whole = step_of("deepseek-v3", 4096)
    further = step_of("deepseek-v3", 4096, "mtp_loss = 0.1")
    found = further.trainings["train"].flops_per_token
    assert found == pytest.approx(260.0e9, rel=0.01)
    hidden, vocab, heads, width = 7168, 129280, 128, (128 + 64 + 128) / 2
    latent = hidden * 1536 + 1536 * heads * 192 + hidden * (512 + 64) + 512 * heads * 256 + heads * 128 * hidden
    experts = 9 * 3 * hidden * 2048 + 256 * hidden
    attention = 2 * 2 * heads * width * (4096 + 1) / 2
    added = 3 * (2 * (latent + experts + hidden * vocab + 2 * hidden * hidden) + attention)
    assert found - whole.trainings["train"].flops_per_token == pytest.approx(added, rel=1e-3)
    assert whole.params == further.params


OTHER_ATTENTION = ("deepseek-v3.2", "glm-5", "qwen3-next-80b-a3b", "qwen3.5-397b-a17b")
"""Sparse and linear attention, which this formula is not of."""
FURTHER = [name for name in names("model") if name not in OTHER_ATTENTION]


@pytest.mark.parametrize("preset", FURTHER)
def test_flops_per_token_are_the_formula(preset: str) -> None:
    """3 x (2 x parameters that a token uses, without the input embedding, with the head + attention at half the pairs): from the count
    of parameters and sizes of the config alone. Gains and biases are in the count and multiply nothing: 0.04 % at most."""
    seq = 4096
    plan = step_of(preset, seq)
    model = plan.spec.model

    def size(name: str) -> float:
        value = model.attributes.get(name, 0)
        return value.value if isinstance(value, Quantity) else 0.0

    table = 0 if model.attributes["tied"] else size("vocab") * size("hidden")
    latent = size("attention.v_dim")
    width = (
        (size("attention.nope_dim") + size("attention.rope_dim") + latent) / 2 if latent else size("attention.head_dim")
    )
    whole, window = (seq + 1) / 2, size("attention.window")
    # gpt-oss: every second layer has a window of 128 tokens, of which the first tokens do not have all
    pairs = whole if not window else (whole + window - window * (window - 1) / (2 * seq)) / 2
    attention = model.layers * 2 * 2 * size("attention.heads") * width * pairs
    formula = 3 * (2 * (plan.params[1] - table) + attention)
    assert plan.trainings["train"].flops_per_token == pytest.approx(formula, rel=4e-4)


# -- memory ----------------------------------------------------------------------------------------

LAYOUT = ("model", "layers", "tp", "pp", "ep", "cp", "dp", "mbs", "seq")
LAYOUTS = list({tuple(row[k] for k in LAYOUT): row for row in runs()}.values())
"""One of each: peaks do not depend on how many micro-batches follow each other once a pipeline is full."""


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda row: row["case"])
def test_peak_memory_is_what_was_measured(row: Row) -> None:
    """Within 4 % of the allocator's peak on B200 (Megatron-LM, bf16, distributed optimizer)."""
    assert abs(memory_error(row)) <= 0.04


def test_every_measured_layout_is_tried() -> None:
    assert len(LAYOUTS) == 10 and len(runs()) == 22


# -- times -----------------------------------------------------------------------------------------

WITHIN = {"b200": (22, 0.05), "nvidia": (12, 0.15), "a100": (6, 0.05)}
"""Steps of a set, and the median of how far estimates are off. Nothing is fitted to NVIDIA's."""


@pytest.mark.parametrize("name", SETS)
def test_times_of_steps_are_near_what_was_measured(name: str) -> None:
    found = [*errors(SETS[name]()).values()]
    cases, most = WITHIN[name]
    assert len(found) == cases
    assert median(map(abs, found)) <= most


# -- activations of a layer ------------------------------------------------------------------------

GPT = """moe 1
hardware from "a100-80gb-sxm" { gpus = 8 }
block gpt_attention(x) {
  h = layer_norm(x, gain = true)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  o[batch, seq, kv_heads, group, head_dim] = attend(q, k, v, causal = true)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}
block gpt_mlp(x) {
  let ffn = mlp.hidden
  h = layer_norm(x, gain = true)
  u[batch, seq, ffn] = h * Wu[hidden, ffn]
  a = gelu(u)
  y[batch, seq, hidden] = a * Wd[ffn, hidden]
  return x + y
}
layer gpt { gpt_attention, gpt_mlp }
model gpt {
  hidden = 6144, vocab = 51200, stack = [embed, 2 * gpt, lm_head]
  attention { heads = 64 }
  mlp { hidden = 24576 }
}
workload { sequences = BATCH, prompt = 2048 tok }
"""
MASKS = 2
"""Bytes per token and width of the two dropout masks outside of attention, in Megatron's 34 and 10: dagc has no dropout."""


@cache
def kept(tp: int, split: bool, recompute: str, batch: int = 4) -> float:
    """Bytes that a layer of GPT keeps of a micro-batch, over s b h."""
    parallel = "true" if split else "false"
    phase = (
        f"phase train {{ gpus = 0..{tp - 1}, tp = {tp}, sequence_parallel = {parallel}, recompute = {recompute} }}\n"
    )
    graph = dagc.compile_text(GPT.replace("BATCH", str(batch)) + phase).trainings["train"].graph
    return sum(kept_bytes(graph.segment("gpt"), graph, 1.0).values()) / (2048 * batch * 6144)


@pytest.mark.parametrize("tp", [2, 8])
def test_activations_of_a_dense_layer_are_megatrons(tp: int) -> None:
    """arXiv 2205.05198, table 2, without what dropout stores. Its terms of s^2 are of attention that stores its scores; here attention
    computes them anew in its gradient, which is the paper's selective recompute."""
    assert kept(tp, split=False, recompute="none") == (10 - MASKS) + 24 / tp
    assert kept(tp, split=True, recompute="none") == (34 - MASKS) / tp
    assert kept(tp, split=False, recompute="full") == 2
    assert kept(tp, split=True, recompute="full") == 2 / tp


def test_activations_of_one_gpu_and_other_batches() -> None:
    assert kept(1, split=False, recompute="none") == 34 - MASKS
    assert kept(8, split=True, recompute="none", batch=1) == (34 - MASKS) / 8
