"""Plan A's layout against the collectives that XLA compiled for the same sharding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import spec_text

import dagc
from dagc.base.collectives import wire_bytes
from dagc.ir.ops.attributes.moves import RingTurnAttrs

DATA = json.loads((Path(__file__).parent / "data" / "flagship.json").read_text())
FLAT = "gpus = 0..63, pp = 4, ep = 4, sp = 2, tp = 2"
CASES = {
    "ag_late": FLAT,
    "ring_late": FLAT + ", sp_method = ring",
    "ulysses_late": FLAT + ", sp_method = ulysses",
    "ag_tpsp_agrs": FLAT + ", sequence_parallel = true",
    "ag_tpsp_fold": (
        "gpus = 0..63, pp = 4, sequence_parallel = true\nattention { dp = 4, sp = 2, tp = 2 }\n"
        "experts { ep = 8, tp = 1 }\norder = [pp, dp, ep, sp, tp]"
    ),
}


def flagship(phase: str) -> dict[str, tuple[int, float]]:
    """Kind -> (executions, wire bytes) of the transformer layers and stage edges along one pipeline path."""
    m = DATA["model"]
    text = spec_text(
        phase=phase,
        model=(
            f"layers = {m['model_layers']}, hidden = {m['hidden']}, vocab = 1024, dtype = fp32\n"
            f"attention {{ heads = {m['heads']}, head_dim = {m['head_dim']} }}\n"
            f"experts {{ count = {m['experts']}, top_k = {m['top_k']}, hidden = {m['moe_ffn']} }}"
        ),
        workload=f"sequences = {m['batch']}, prompt = {m['seq']} tok",
    )
    result = dagc.compile_text(text).phases["prefill"]
    totals: dict[str, tuple[int, float]] = {}
    segment = result.graph.segment("sparse")
    for op in segment.ops:
        if op.is_collective:
            cost = result.costs.ops[segment.name, op.name]
            steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
            count, wire = totals.get(op.runtime_kind, (0, 0.0))
            totals[op.runtime_kind] = (count + segment.repeat * steps, wire + segment.repeat * cost.wire_B)
    count, wire = totals.get("permute", (0, 0.0))
    edges = len(result.graph.stages) - 1
    totals["permute"] = (count + edges, wire + edges * result.costs.transfer.payload_B)
    return totals


@pytest.mark.parametrize("case", ["ag_late", "ring_late", "ulysses_late", "ag_tpsp_agrs"])
def test_the_collectives_are_those_of_xla(case: str) -> None:
    want = {k: (v["executions"], v["wire_B"]) for k, v in DATA["cases"][case]["collectives"].items()}
    assert flagship(CASES[case]) == want


def test_reducing_late_is_cheaper_than_reducing_early() -> None:
    early = DATA["cases"]["ag_early"]["collectives"]["all_reduce"]["wire_B"]
    assert flagship(CASES["ag_late"])["all_reduce"][1] < early


def test_folded_experts_cost_no_more_than_xla() -> None:
    """Experts over (dp, sp): dagc exchanges with 8 ranks and repeats no token over tp."""
    ours = sum(wire for _, wire in flagship(CASES["ag_tpsp_fold"]).values())
    theirs = sum(v["wire_B"] for v in DATA["cases"]["ag_tpsp_fold"]["collectives"].values())
    assert ours <= theirs


def test_wire_bytes_follow_nccl_tests() -> None:
    assert wire_bytes("all_reduce", 8.0, 4) == 12.0
    assert wire_bytes("all_gather", 8.0, 4) == 24.0
    assert wire_bytes("reduce_scatter", 8.0, 4) == 6.0
    assert wire_bytes("all_to_all", 8.0, 4) == 6.0
    assert wire_bytes("send", 8.0, 2) == 8.0
    assert wire_bytes("all_reduce", 8.0, 1) == 0.0
