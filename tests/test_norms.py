"""Norms over a split width: row sums are reduced, the rows themselves stay where they are."""

from __future__ import annotations

import pytest
from conftest import spec_text
from tiers import in_turn

import dagc
from dagc.execute.prove import prove

BLOCK = """
block wide(x) {{
  let ffn = mlp.hidden
  u[batch, seq, ffn] = x * Wu[hidden, ffn]
  n = {norm}(gelu(u){gain})
  y[batch, seq, hidden] = n * Wd[ffn, hidden]
  return x + y
}}
layer dense {{ gqa, wide }}
"""
MODEL = """layers = 2, hidden = 8, vocab = 32, dtype = fp32
stack = [embed, 2 * dense, lm_head]
attention { heads = 4, kv_heads = 2, head_dim = 4 }
mlp { hidden = 16 }"""


def spec(norm: str, phase: str, gain: str = "") -> str:
    work = "sequences = 8, prompt = 8 tok, output = 8 tok"
    return spec_text(phase=phase, model=MODEL, workload=work, extra=BLOCK.format(norm=norm, gain=gain))


@pytest.mark.parametrize(("norm", "sums"), [("rms_norm", 1), ("layer_norm", 2)])
def test_only_one_number_a_row_is_sent(norm: str, sums: int) -> None:
    result = dagc.compile_text(spec(norm, "gpus = 0..1, tp = 2")).phases["prefill"]
    segment = result.graph.segment("dense")
    after_attention = [op for op in segment.ops if op.is_collective and op.block == "wide"]
    costs = [result.costs.ops[segment.name, op.name] for op in after_attention[:-1]]
    assert [c.payload_B for c in costs] == [8 * 8 * 4.0] * sums


@pytest.mark.parametrize(
    ("phase", "norm"),
    in_turn(
        [
            "gpus = [0]",
            "gpus = 0..3, tp = 4",
            "gpus = 0..7, dp = 2, sp = 2, tp = 2",
            "gpus = 0..3, sp = 2, tp = 2, sequence_parallel = true",
            "gpus = 0..1, tp = 2\nshard { hidden = tp }",
        ],
        ["rms_norm", "layer_norm"],
    ),
)
def test_a_norm_of_parts_is_the_norm(norm: str, phase: str) -> None:
    proof = prove(dagc.compile_text(spec(norm, phase)), "prefill")
    assert proof.holds, proof


def test_a_norm_without_a_gain_has_only_its_sums_beside_it() -> None:
    proof = prove(dagc.compile_text(spec("layer_norm", "gpus = 0..1, tp = 2", ", gain = false")), "prefill")
    assert proof.holds, proof
