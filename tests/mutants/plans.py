"""The small plans whose placed graphs are broken: every way in which a strategy makes collectives."""

from __future__ import annotations

from functools import cache

import dagc
from dagc.cost.records import Costs
from dagc.ir.graph import Graph
from dagc.spec.unit import Unit

GQA = "attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }"
MLA = "attention { kind = mla, heads = 4, q_latent = 12, kv_latent = 8, nope_dim = 4, rope_dim = 4, v_dim = 4 }"
EXPERTS = "experts { count = 4, top_k = 2, hidden = 4 }"
SHARED = "experts { count = 4, top_k = 2, hidden = 4, shared = 1 }"

PLANS: dict[str, tuple[str, str, str, str]] = {
    "tp": ("prefill", "gpus = 0..3, tp = 4", GQA, EXPERTS),
    "sequence parallel": ("prefill", "gpus = 0..1, tp = 2, sequence_parallel = true", GQA, EXPERTS),
    "context gathered": ("prefill", "gpus = 0..3, sp = 2, tp = 2", GQA, EXPERTS),
    "ring": ("prefill", "gpus = 0..3, sp = 2, tp = 2, sp_method = ring", GQA, EXPERTS),
    "ulysses": ("prefill", "gpus = 0..1, sp = 2, sp_method = ulysses", GQA, EXPERTS),
    "ep": ("prefill", "gpus = 0..3, ep = 4", GQA, EXPERTS),
    "ep x tp": ("prefill", "gpus = 0..3, ep = 2, tp = 2", GQA, SHARED),
    "ep inside tp": ("prefill", "gpus = 0..3\nattention { tp = 4 }\nexperts { ep = 4 }", GQA, EXPERTS),
    "ep over dp and tp": (
        "prefill",
        "gpus = 0..3, sequence_parallel = true\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
        GQA,
        EXPERTS,
    ),
    "experts folded": ("prefill", "gpus = 0..3\nattention { dp = 4 }\nexperts { ep = 2, tp = 2 }", GQA, EXPERTS),
    "redundant": ("prefill", "gpus = 0..1, ep = 2, redundant = 2", GQA, EXPERTS),
    "pipeline": ("prefill", "gpus = 0..5, pp = 3, tp = 2, layers_per_stage = [1, 2, 1], microbatches = 2", GQA, SHARED),
    "dp": ("prefill", "gpus = 0..1, dp = 2", MLA, EXPERTS),
    "mla": ("prefill", "gpus = 0..3, sp = 2, tp = 2, sequence_parallel = true", MLA, EXPERTS),
    "decode": ("decode", "gpus = 0..3, ep = 2, tp = 2", GQA, EXPERTS),
    "decode, context split": ("decode", "gpus = 0..3, sp = 2, tp = 2", GQA, EXPERTS),
    "decode, mla, context split": ("decode", "gpus = 0..3, sp = 2, tp = 2", MLA, EXPERTS),
    "decode, context over tp": ("decode", "gpus = 0..3, tp = 4, dcp = 2", GQA, EXPERTS),
    "experts by load": ("prefill", "gpus = 0..1, ep = 2, expert_placement = balanced, routing = histogram([5, 4, 1, 2])", GQA, EXPERTS),
}  # fmt: skip
"""Name -> (kind, phase, attention, experts)."""
STEPS: dict[str, tuple[str, str, str, str]] = {
    "step, dp": ("train", "gpus = 0..1, dp = 2, microbatches = 2", GQA, EXPERTS),
    "step, tp": ("train", "gpus = 0..1, tp = 2, sequence_parallel = true", GQA, SHARED),
    "step, ring": ("train", "gpus = 0..1, sp = 2, sp_method = ring, zero = 1", GQA, EXPERTS),
    "step, ulysses": ("train", "gpus = 0..1, sp = 2, sp_method = ulysses", GQA, EXPERTS),
    "step, ep": ("train", "gpus = 0..1, ep = 2, zero = 2, microbatches = 2", GQA, EXPERTS),
    "step, pipeline": ("train", "gpus = 0..3, pp = 2, dp = 2, microbatches = 2, recompute = full", MLA, EXPERTS),
    "step, zero 3": ("train", "gpus = 0..1, dp = 2, zero = 3", MLA, EXPERTS),
}
"""The same of training steps."""

SPEC = """moe 1
hardware pool {{
  gpus = 8, per_node = 8
  compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model small {{
  layers = {layers}, dense_first = {dense}, hidden = 8, vocab = 16, dtype = fp32
  {attention}
  mlp {{ hidden = 8 }}
  {experts}
}}
workload {{ sequences = 4, prompt = 4 tok, output = 4 tok }}
phase {kind} {{
  {phase}
}}
"""


def trained(text: str) -> tuple[Graph, Unit, Costs]:
    """Of the phase `train` of a spec."""
    text = text.replace("phase train {", "phase train {\n  kind = train")
    plan = dagc.compile_text(text)
    (result,) = plan.trainings.values()
    return result.graph, Unit(plan.spec, plan.spec.trainings[0]), result.costs


@cache
def placed(name: str) -> tuple[Graph, Unit, Costs]:
    """The placed graph of a plan, and what else the proof asks of it. A pipeline has layers to spread."""
    kind, phase, attention, experts = (PLANS | STEPS)[name]
    piped = "pp" in phase
    text = SPEC.format(
        kind=kind, phase=phase, attention=attention, experts=experts, layers=4 if piped else 1, dense=int(piped)
    )
    if kind == "train":
        return trained(text)
    plan = dagc.compile_text(text)
    return plan.phases[kind].graph, plan.units[kind], plan.phases[kind].costs
