"""Figures of training steps against what others measured, published or derived: FLOPs per token, memory, activations of a layer."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from statistics import median

import pytest
from conftest import ROOT
from measured_steps import SETS, errors
from step_sets import seqpar
from step_sets.measured_rows import Row, compiled
from step_sets.simumax import memory_error, runs
from tiers import spread

import dagc
from dagc.base.units import Quantity
from dagc.cost.schedule.training.in_flight import peaks
from dagc.cost.schedule.training.schedule_table import make
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
    """DeepSeek-V3 at 4,096 tokens with one MTP layer, in each of NVIDIA's runs that say so or say nothing; and by the formula one more layer,
    the head once more and the projection of two widths to one."""
    whole = step_of("deepseek-v3", 4096)
    further = step_of("deepseek-v3", 4096, "mtp_loss = 0.1")
    found = further.trainings["train"].flops_per_token
    published = [
        float(row["tflops_gpu"]) * 1e12 / float(row["tokens_s_gpu"]) for row in rows("megatron_bridge_mtp.csv")
    ]
    assert len(published) == 17 and published == pytest.approx([found] * 17, rel=0.01)
    assert median(published) == pytest.approx(260.0e9, rel=1e-3)
    hidden, vocab, heads, width = 7168, 129280, 128, (128 + 64 + 128) / 2
    latent = hidden * 1536 + 1536 * heads * 192 + hidden * (512 + 64) + 512 * heads * 256 + heads * 128 * hidden
    experts = 9 * 3 * hidden * 2048 + 256 * hidden
    attention = 2 * 2 * heads * width * (4096 + 1) / 2
    added = 3 * (2 * (latent + experts + hidden * vocab + 2 * hidden * hidden) + attention)
    assert found - whole.trainings["train"].flops_per_token == pytest.approx(added, rel=1e-3)
    assert whole.params == further.params


OTHER_ATTENTION = ("deepseek-v3.2", "deepseek-v4-flash", "glm-5", "qwen3-next-80b-a3b", "qwen3.5-397b-a17b")
"""Sparse and linear attention, and attention to entries of groups, which this formula is not of."""
FURTHER = [name for name in names("model") if name not in OTHER_ATTENTION]


SMALLEST = {
    "deepseek-v2-lite",
    "glm-4.5-air",
    "gpt-oss-20b",
    "llama-3.1-8b",
    "llama-4-scout-17b-16e",
    "mixtral-8x7b",
    "olmoe-1b-7b",
    "qwen1.5-moe-a2.7b",
    "qwen3-30b-a3b",
}
"""Of each family, with every kind of attention and of experts that there is among them."""


@pytest.mark.parametrize("preset", spread(FURTHER, SMALLEST))
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


@pytest.mark.parametrize("row", spread(LAYOUTS, LAYOUTS[::3]), ids=lambda row: row["case"])
def test_peak_memory_is_what_was_measured(row: Row) -> None:
    """Within 4 % of the allocator's peak on B200 (Megatron-LM, bf16, distributed optimizer)."""
    assert abs(memory_error(row)) <= 0.04


def test_every_measured_layout_is_tried() -> None:
    assert len(LAYOUTS) == 10 and len(runs()) == 22


# -- times -----------------------------------------------------------------------------------------

WITHIN = {"b200": (22, 0.05), "nvidia": (12, 0.15), "a100": (6, 0.05), "low": (108, 0.10)}
"""Steps of a set, and the median of how far estimates are off. Nothing is fitted to NVIDIA's in bf16, two numbers to the 108 in 8 and 4 bits."""


@pytest.mark.parametrize("name", spread(SETS, {"a100"}))
def test_times_of_steps_are_near_what_was_measured(name: str) -> None:
    found = [*errors(SETS[name]()).values()]
    cases, most = WITHIN[name]
    assert len(found) == cases
    assert median(map(abs, found)) <= most


# -- activations of a layer ------------------------------------------------------------------------

GPT = f"""moe 1
hardware from "a100-80gb-sxm" {{ gpus = 8 }}
{seqpar.GPT}
model gpt {{
  hidden = HIDDEN, vocab = 51200, stack = [embed, 2 * gpt, lm_head]
  attention {{ heads = HEADS }}
  mlp {{ hidden = FFN }}
}}
workload {{ sequences = BATCH, prompt = 2048 tok }}
"""


@cache
def kept(tp: int, split: bool, recompute: str, batch: int = 4, hidden: int = 6144, heads: int = 64) -> float:
    """Bytes that a layer of GPT keeps of a micro-batch, over s b h, with a mask of each of the two dropouts outside of attention."""
    parallel = "true" if split else "false"
    phase = f"phase train {{ gpus = 0..{tp - 1}, tp = {tp}, sequence_parallel = {parallel}, recompute = {recompute}, dropout = 10% }}\n"
    sizes = {"HIDDEN": hidden, "HEADS": heads, "FFN": 4 * hidden, "BATCH": batch}
    text = GPT
    for name, size in sizes.items():
        text = text.replace(name, str(size))
    graph = dagc.compile_text(text + phase).trainings["train"].graph
    return sum(kept_bytes(graph.segment("gpt"), graph, 1.0).values()) / (2048 * batch * hidden)


@pytest.mark.parametrize("tp", [2, 8])
def test_activations_of_a_dense_layer_are_megatrons(tp: int) -> None:
    """arXiv 2205.05198, table 2. Its terms of s^2 are of attention that stores its scores; here attention
    computes them anew in its gradient, which is the paper's selective recompute."""
    assert kept(tp, split=False, recompute="none") == 10 + 24 / tp
    assert kept(tp, split=True, recompute="none") == 34 / tp
    assert kept(tp, split=False, recompute="full") == 2
    assert kept(tp, split=True, recompute="full") == 2 / tp


def test_activations_of_one_gpu_and_other_batches() -> None:
    assert kept(1, split=False, recompute="none") == 34
    assert kept(8, split=True, recompute="none", batch=1) == 34 / 8


def megatrons(row: Row, recompute: str) -> float:
    """Bytes over s b h that a layer of the table's model keeps: dagc's, and what its model does not have: attention that stores its
    scores, and a mask of dropout there, 5 a s / h on t ranks."""
    tp, hidden, heads = int(row["tp"]), int(row["hidden"]), int(row["heads"])
    split, full = "SP" in recompute, recompute == "full"
    own = kept(tp, split, "full" if full else "none", hidden=hidden, heads=heads)
    scores = 0.0 if full or "selective" in recompute else 5 * heads * int(row["seq"]) / hidden / tp
    return own + scores


@pytest.mark.parametrize("row", seqpar.table("activation_pct"), ids=lambda row: f"{row['model']} {row['recompute']}")
def test_activations_are_megatrons_percentages(row: Row) -> None:
    """Of tensor parallelism alone (arXiv 2205.05198, figure 7): its bars are up to 0.14 points off its own formula."""
    share = 100 * megatrons(row, row["recompute"]) / megatrons(row, "none")
    assert share == pytest.approx(float(row["value"]), abs=0.14)


@pytest.mark.parametrize(
    "row",
    [row for how in ("none", "selective+SP") for row in seqpar.table(f"activations_{how}_GiB")],
    ids=lambda row: f"{row['model']} {row['metric']}",
)
def test_activations_of_the_first_stage_are_megatrons(row: Row) -> None:
    """Its layers times the micro-batches that the schedule holds there (the same, figure 1), to the last printed digit."""
    pp, chunks, batches = (int(row[k]) for k in ("pp", "interleave", "global_batch"))
    schedule = (
        make("interleaved", pp, batches // int(row["micro_batch"]), chunks) if pp > 1 else make("one_f_one_b", 1, 1)
    )
    layer_B = (
        megatrons(row, row["metric"].split("_")[1]) * int(row["seq"]) * int(row["micro_batch"]) * int(row["hidden"])
    )
    assert layer_B * int(row["layers"]) / pp * peaks(schedule)[0].held / 2**30 == float(row["value"])


@pytest.mark.parametrize("row", seqpar.table("params_grads_optimizer_GiB"), ids=lambda row: row["model"])
def test_parameters_and_states_are_megatrons(row: Row) -> None:
    """Of a stage between the ends, as the table counts layers alone; of 22 billion parameters there is one stage, with both tables."""
    needs = compiled(seqpar.spec_of({**row, "recompute": "selective"})).memory
    own = needs[min(1, len(needs) - 1)]
    assert (own.weights_B + own.gradients_B + own.optimizer_B) / 2**30 == pytest.approx(
        float(row["value"]), rel=3e-2 if len(needs) == 1 else 2e-4
    )
