"""Batches that do not divide: any number of sequences over any ranks, priced at the busiest."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
from conftest import spec_text
from hypothesis import given
from hypothesis import strategies as st
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.execute.prove import prove
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import read_plan
from dagc.plan.result import PhaseResult
from dagc.spec.batching import Batching
from dagc.spec.strategy import Strategy

FLAT = "gpus = 0..7, ep = 4, tp = 2"
FOLDED = "gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }"


def plan(sequences: int, phase: str, kind: str = "decode", **more: str) -> Plan:
    return dagc.compile_text(spec_text(kind=kind, phase=phase, workload=f"sequences = {sequences}, prompt = 64 tok, output = 64 tok", **more))  # fmt: skip


def result(sequences: int, phase: str, kind: str = "decode", **more: str) -> PhaseResult:
    return plan(sequences, phase, kind, **more).phases[kind]


@given(
    sequences=st.integers(1, 400), dp=st.integers(1, 9), ep=st.integers(1, 3), replicas=st.integers(1, 3),
    microbatches=st.integers(1, 9), both=st.booleans(),
)  # fmt: skip
def test_every_sequence_has_a_place_and_no_part_is_empty(
    sequences: int, dp: int, ep: int, replicas: int, microbatches: int, both: bool
) -> None:
    strategy = Strategy(dp=dp, ep=ep, replicas=replicas, microbatches=microbatches, overlap="two_batch" if both else "none")  # fmt: skip
    found = Batching.of(sequences, strategy)
    ranks, lanes = dp * ep * replicas, 2 if both else 1
    assert found.ranks == ranks and found.microbatches <= microbatches and found.lanes <= lanes
    # The busiest rank has what rounding up gives it, and there are no more parts than that takes.
    assert found.each == -(-sequences // (ranks * lanes * microbatches))
    assert found.places >= sequences > found.places - found.part * found.lanes
    if sequences % (ranks * lanes * microbatches) == 0:
        assert (found.places, found.microbatches, found.lanes) == (sequences, microbatches, lanes)
    for groups in (n for n in range(1, ranks + 1) if ranks % n == 0):
        busiest = min(found.part, sequences)
        assert found.share(groups) * found.part // groups >= busiest // groups


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@pytest.mark.parametrize("phase", [FLAT, FOLDED])
def test_an_uneven_batch_takes_what_the_busiest_rank_does(phase: str, kind: str) -> None:
    """Between the batches that fill every rank; what is counted, not timed, is true to the sequences."""
    ranks = 4 if phase == FLAT else 8
    low, odd, high = (result(n, phase, kind) for n in (2 * ranks, 2 * ranks + 1, 3 * ranks))
    assert low.time_s < odd.time_s <= high.time_s
    assert odd.memory.worst.kv_cache_B == high.memory.worst.kv_cache_B
    assert odd.flops_per_token == pytest.approx(high.flops_per_token)
    tokens = (2 * ranks + 1) * (64 if kind == "prefill" else 1)
    assert odd.throughput_tok_s == pytest.approx(tokens / odd.time_s)


def test_idle_ranks_send_nothing_to_experts() -> None:
    """One sequence over eight ranks: attention as for one on each, experts for one alone. As on one GPU, two of eight
    experts are hit."""
    one, each = result(1, FOLDED), result(8, FOLDED)
    assert one.costs.distinct_experts == pytest.approx(2.0) and each.costs.distinct_experts > 5
    assert one.costs.ops["sparse", "gqa.o"].time_s.max() == each.costs.ops["sparse", "gqa.o"].time_s.max()
    assert one.costs.ops["sparse", "moe.g"].time_s.max() <= each.costs.ops["sparse", "moe.g"].time_s.max()
    assert one.time_s <= each.time_s


def test_micro_batches_without_sequences_are_left_out() -> None:
    found = result(1, "gpus = 0..7, pp = 2, tp = 4, microbatches = 8, overlap = two_batch", "prefill")
    assert (found.graph.microbatches, found.graph.lanes) == (1, 1)
    same = result(1, "gpus = 0..7, pp = 2, tp = 4", "prefill")
    assert found.time_s == same.time_s
    ten = result(10, "gpus = 0..7, pp = 2, tp = 4, microbatches = 8", "prefill")
    assert (ten.graph.microbatches, ten.graph.segments[0].sizes["batch"]) == (5, 2)


def test_much_idleness_is_said_with_the_nearest_batches() -> None:
    (few,) = plan(9, FOLDED).diagnostics
    assert few.code == "W06" and "7 of 16 places" in few.message and "8 or 16 sequences" in few.help[0]
    (one,) = plan(1, FOLDED).diagnostics
    assert "1 sequence leaves 7 of 8 places" in one.message and "; 8 sequences" in one.help[0]
    assert not plan(250, "gpus = 0..3, dp = 4").diagnostics  # 63 on the busiest rank, 62.5 in the mean
    (micro,) = plan(12, "gpus = 0..1, tp = 2, microbatches = 8", "prefill").diagnostics
    assert "they fill 6 of 8 micro-batches" in micro.because


UNEVEN = [
    (1, FOLDED),
    (5, FLAT),
    (7, FLAT + ", microbatches = 3"),
    (3, "gpus = 0..7, dp = 2, ep = 2, tp = 2, overlap = two_batch"),
]


@pytest.mark.parametrize(
    ("case", "kind"), spread(product(UNEVEN, ["prefill", "decode"]), [(UNEVEN[0], "prefill"), (UNEVEN[3], "decode")])
)
def test_uneven_plans_are_proved_and_read_back(case: tuple[int, str], kind: str, tmp_path: Path) -> None:
    sequences, phase = case
    made = plan(sequences, phase, kind)
    assert prove(made, kind).holds
    file = tmp_path / "graph.json"
    data = json.loads(dumps(graph_object(made, kind)))
    file.write_bytes(dumps(data))
    again = read_plan(file).phases[kind]
    assert again.time_s == made.phases[kind].time_s and again.memory == made.phases[kind].memory
    data["plan"]["phase"]["sequences"] += 100
    file.write_bytes(dumps(data))
    with pytest.raises(dagc.SpecError, match="not a placed graph"):
        read_plan(file)
