"""Kernels of training steps: products grouped as engines run them, attention's gradient, passes over memory, collectives in buckets."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import dagc
from dagc.calib import gemm, load
from dagc.calib.known_gpus import available
from dagc.calib.training_constants import instead, kernels, step_error
from dagc.cost.training.pointwise_passes import Passes, is_pointwise, result_bytes
from dagc.plan.trained import TrainingResult
from dagc.view.facts.training_words import error_text, kernels_text

SPEC = """moe 1
hardware from "HARDWARE" { gpus = 8 }
model from "llama-3.1-8b" { layers = 2 }
workload { sequences = 8, prompt = 4096 tok }
phase train { gpus = 0..7, WORDS }
"""
TOKENS, HIDDEN, FFN, HEADS, KV_HEADS, WIDTH = 4096, 4096, 14336, 32, 8, 128


@cache
def step(words: str = "dp = 8", hardware: str = "b200-sxm") -> TrainingResult:
    return dagc.compile_text(SPEC.replace("HARDWARE", hardware).replace("WORDS", words)).trainings["train"]


def time_s(result: TrainingResult, op: str) -> float:
    return float(np.max(result.costs.ops["dense", op].time_s))


def one_gemm_s(m: float, n: float, k: float) -> float:
    """By the table, at the speed that a step keeps."""
    entry = load("b200_sxm").find(gemm.FAMILY, "bf16", "trtllm")
    assert entry is not None
    launch_s = entry.constants.launch_s
    plain = float(gemm.FAMILY.estimate_s(entry, m, n, k))
    return launch_s + (plain - launch_s) / kernels("b200_sxm").sustained


PRODUCTS = {
    "columns add up: of one input": (("mlp.g", "mlp.u"), (TOKENS, 2 * FFN, HIDDEN)),
    "the sum adds up: gradients of one input": (("mlp.h.grad", "mlp.h.grad.2"), (TOKENS, HIDDEN, 2 * FFN)),
    "rows add up: gradients of weights of one input": (("mlp.Wg.grad", "mlp.Wu.grad"), (2 * FFN, HIDDEN, TOKENS)),
    "alone": (("mlp.y",), (TOKENS, HIDDEN, FFN)),
    "three": (("gqa.q", "gqa.k", "gqa.v"), (TOKENS, (HEADS + 2 * KV_HEADS) * WIDTH, HIDDEN)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_the_gemms_that_engines_run(name: str) -> None:
    ops, sizes = PRODUCTS[name]
    assert sum(time_s(step(), op) for op in ops) == pytest.approx(one_gemm_s(*sizes), rel=1e-6)


def test_the_sum_of_gradients_is_part_of_their_product() -> None:
    assert time_s(step(), "mlp.h.grad.3") == 0


def test_the_gradient_of_attention_takes_five_products() -> None:
    """Where attention takes two, at its own speed."""
    backward = sum(time_s(step(), f"gqa.o_{of}.grad") for of in ("q", "k_2", "v"))
    assert backward == pytest.approx(2.5 / kernels("b200_sxm").backward * time_s(step(), "gqa.o"), rel=1e-9)


def test_one_kernel_makes_the_gradients_of_a_gated_feed_forward() -> None:
    """Ahead it reads two tensors and writes one; back it reads three, one of which it does anew, and writes two."""
    result = step()
    segment, mesh = result.graph.segment("dense"), result.graph.the_mesh
    passes = Passes(segment, mesh, set())
    one = TOKENS * FFN * 2
    wide = [op for op in segment.ops if is_pointwise(op) and "ffn" in op.dims]
    ahead = [op for op in wide if op.cell == "forward" or not op.cell]
    back = [op for op in wide if op not in ahead]
    assert [op.name for op in ahead] == ["mlp.a_in", "mlp.a"] and len(back) == 3
    assert all(result_bytes(segment, op, mesh) == one for op in wide)
    assert sum(map(passes.bytes_of, ahead)) == 3 * one
    assert sum(map(passes.bytes_of, back)) == 5 * one
    assert [passes.begins(op) for op in (*ahead, *back)] == [True, False, True, False, False]


def test_an_optimizer_reads_and_writes_its_states() -> None:
    """AdamW in fp32: norm, clipping and use of gradients, three states, bf16 weights, and sums that begin at zero."""
    result = step("dp = 8, zero = 1")
    count, hardware_Bps = HIDDEN * FFN, 8e12 * 0.8
    wanted = (count / 8 * (4 * 4 + 2 * 3 * 4 + 2) + count * 4) / hardware_Bps
    assert time_s(result, "mlp.Wg.new") == pytest.approx(wanted + 2e-6, rel=1e-6)


def test_a_product_adds_to_the_sums_of_gradients_itself() -> None:
    """It reads and writes them, instead of a result in bf16."""
    assert time_s(step(), "mlp.Wg.grad.2") == pytest.approx(HIDDEN * FFN * (2 * 4 - 2) / 6.4e12 + 2e-6, rel=1e-6)


def test_small_gradients_travel_with_others() -> None:
    """A gain's sum takes its share of a bucket, not the latency of a call of its own."""
    result = step("dp = 8, zero = 1")
    small, large = (result.costs.ops["dense", f"{of}.grad.2.reduce_scatter"] for of in ("mlp.h_gain", "mlp.Wg"))
    per_B = [float(np.max(cost.time_s)) / cost.payload_B for cost in (small, large)]
    assert per_B[0] == pytest.approx(per_B[1], rel=0.1)


def test_collectives_are_those_of_nccl() -> None:
    found = step("tp = 8, sequence_parallel = true").costs.ops
    families = {cost.family for cost in found.values() if cost.group is not None and cost.payload_B}
    assert families == {"nccl all_gather", "nccl reduce_scatter", "nccl all_reduce"}


MOE = """moe 1
hardware from "b200-sxm" { gpus = 8 }
model from "mixtral-8x7b" { layers = 2 }
workload { sequences = 8, prompt = 4096 tok }
phase train { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 } WORDS }
"""


@cache
def routed(words: str = "") -> TrainingResult:
    return dagc.compile_text(MOE.replace("WORDS", words)).trainings["train"]


def test_tokens_go_to_experts_by_nccl_or_by_the_kernels_that_are_named() -> None:
    """Kernels for tokens take them as they are: what comes to a rank is put in order, and nothing before."""

    def families(result: TrainingResult) -> set[str]:
        return {
            cost.family for (_, op), cost in result.costs.ops.items() if "all_to_all" in op and cost.payload_B > 1e6
        }

    assert families(routed()) == {"all_to_all"}
    named = routed(", exchange = deepep_ht")
    assert families(named) == {"deepep_ht_dispatch", "deepep_ht_combine"}
    rows_B = 4096 * 2 * 4096 * 2
    Bps = 8e12 * kernels("b200_sxm").rows
    busiest = named.costs.imbalance

    def dispatch_s(result: TrainingResult) -> float:
        return float(np.max(result.costs.ops["sparse", "moe.t"].time_s)) - 2e-6

    assert dispatch_s(named) == pytest.approx(2 * rows_B * busiest / Bps, rel=1e-6)
    assert dispatch_s(routed()) == pytest.approx((4096 * 4096 * 2 + 3 * rows_B) * busiest / Bps, rel=0.01)


def test_hardware_without_tables_keeps_the_roofline_and_says_so() -> None:
    result = step(hardware="h20")
    assert {cost.family for cost in result.costs.ops.values()} == {"", "fused"}
    each = HIDDEN * FFN * ((4 * 4 + 2 * 3 * 4 + 2) + 4)  # as with tables, the optimizer reads and writes its states
    assert time_s(result, "mlp.Wg.new") == pytest.approx(each / (4e12 * 0.8) + 2e-6, rel=1e-3)
    assert kernels_text(result) == "kernels cost the roofline: none of this hardware was measured"
    assert "no step on this GPU" in error_text(result)


def test_reports_say_whose_steps_the_constants_are_from() -> None:
    said = kernels_text(step())
    assert said.startswith("kernels: tables of b200_sxm") and f"{kernels('b200_sxm').sustained:.0%}" in said
    assert "measured steps of it" in said
    assert "of other GPUs" in kernels_text(step(hardware="h100-sxm"))
    assert "of b200_sxm" in kernels_text(step(hardware="gb200-nvl72"))
    own, other = error_text(step()), error_text(step(hardware="h100-sxm"))
    assert (
        own.startswith("of 25 measured steps on this GPU")
        and f"{getattr(step_error('b200_sxm'), 'median', 0):.0%} in half" in own
    )
    assert other.startswith("no step on this GPU was measured; of 40 on others")


def test_slower_kernels_make_a_longer_step() -> None:
    """Constants are read when a step is compiled, as the fit needs."""
    file = {"sustained": {"b200_sxm": 0.35}, "like": {}, "attention_backward": 0.8, "rows": 0.2}
    spec = SPEC.replace("HARDWARE", "b200-sxm").replace("WORDS", "dp = 8")
    with instead(file):
        slow = dagc.compile_text(spec).trainings["train"]
    assert time_s(slow, "mlp.y") == pytest.approx(
        time_s(step(), "mlp.y") * kernels("b200_sxm").sustained / 0.35, rel=0.02
    )


def test_every_share_is_of_a_calibrated_gpu() -> None:
    measured = {gpu for gpu in available() if step_error(gpu) is not None}
    assert measured == {"a100_sxm", "b200_sxm", "gb200", "gb300"}
    for gpu in available():
        found = kernels(gpu)
        assert 0 < found.sustained <= 1 and 0 < found.rows <= 1 and found.gpu in ("", *available())
