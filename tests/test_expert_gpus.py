"""Experts on GPUs of their own: computed alike, counted byte for byte, priced by the slower end, and micro-batches that take turns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jsonschema
import numpy as np
import pytest
from conftest import ROOT, spec_text
from hypothesis import given
from tiers import spread

import dagc
from dagc.base.collectives import FROM_EXPERTS, TO_EXPERTS
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.cost.network import crossing_time
from dagc.cost.schedule.period import period_s
from dagc.execute.numpy import row_moves
from dagc.execute.prove import prove, prove_graph
from dagc.export.engines.launch import export
from dagc.ir.graph import Graph
from dagc.ir.groups import between
from dagc.ir.op import Op
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.spec.hardware import Link

SHARED = (
    "layers = 2, hidden = 16, vocab = 64, dtype = fp32\nattention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }\n"
    "experts { count = 8, top_k = 2, hidden = 8, shared = 1 }"
)
SMALL = SHARED.replace(", shared = 1", "")
TINY = "sequences = 16, prompt = 16 tok, output = 4 tok"
PLANS = {
    "as many on both sides": ("decode", "gpus = 0..1, attention { dp = 2 }\nexperts { gpus = 2..3, ep = 2 }"),
    "more experts": ("decode", "gpus = 0..1, attention { tp = 2 }\nexperts { gpus = 2..5, ep = 4 }"),
    "more attention": ("decode", "gpus = 4..7, microbatches = 3, attention { dp = 4 }\nexperts { gpus = 0..1, ep = 2 }"),
    "one GPU each": ("decode", "gpus = 1, attention { dp = 1 }\nexperts { gpus = 0, ep = 1 }"),
    "one for attention": ("prefill", "gpus = 0, attention { dp = 1 }\nexperts { gpus = 1..4, ep = 4 }"),
    "one for experts": ("prefill", "gpus = 0..3, attention { dp = 2, sp = 2 }\nexperts { gpus = 4, ep = 1 }"),
    "widths of experts split too": (
        "decode", "gpus = 0..3, microbatches = 2, attention { dp = 2, tp = 2 }\nexperts { gpus = 4..7, ep = 2, tp = 2 }",
    ),
    "tokens split over tp": (
        "prefill", "gpus = 0..7, sequence_parallel = true, attention { dp = 2, sp = 2, tp = 2 }\nexperts { gpus = 8..11, ep = 4 }",
    ),
    "ids in no order": ("decode", "gpus = [9, 2, 5, 0], attention { dp = 4 }\nexperts { gpus = [7, 1], ep = 2 }"),
    "spare experts": ("decode", "gpus = 0..1, redundant = 4, attention { dp = 2 }\nexperts { gpus = 2..5, ep = 4 }"),
}  # fmt: skip


def small(name: str, model: str = SMALL) -> tuple[str, str]:
    kind, phase = PLANS[name]
    return kind, spec_text(kind=kind, phase=phase, model=model, workload=TINY)


@pytest.mark.parametrize(
    "name",
    spread(
        PLANS, ("more attention", "widths of experts split too", "ids in no order", "spare experts", "one GPU each")
    ),
)
def test_the_same_is_computed(name: str) -> None:
    """Numbers, bytes of every collective, FLOPs, weights and cache of every rank."""
    kind, text = small(name)
    plan = dagc.compile_text(text)
    proof = prove(plan, kind)
    assert proof.holds, proof
    assert proof.ranks == len(plan.phases[kind].gpus)


def test_shared_experts_stay_with_attention() -> None:
    kind, text = small("widths of experts split too", SHARED)
    plan = dagc.compile_text(text)
    assert prove(plan, kind).holds
    weights = {w.name: w for s in plan.phases[kind].graph.segments for w in s.weights}
    away = {name for name, w in weights.items() if w.sharding is not None and w.sharding.on}
    assert away == {name for name, w in weights.items() if w.scope == "experts"} and len(away) == 3


def test_a_library_model_is_proved_through_its_twin() -> None:
    head = 'moe 1\nhardware from "h800-sxm" { gpus = 64 }\nmodel from "deepseek-v3" { }\n'
    text = f"{head}workload {{ sequences = 256, prompt = 512 tok, output = 64 tok }}\nphase decode {{ gpus = 0..3, attention {{ dp = 2, tp = 2 }}, experts {{ gpus = 8..15, ep = 8 }}, microbatches = 2 }}"
    proof = dagc.compile_text(text).prove("decode")
    assert proof.holds, proof


# -- what must not pass --------------------------------------------------------------------------------


def mutated(name: str, change: Any) -> tuple[Any, Graph]:
    """A compiled small plan, and its placed graph with each op as `change` has it."""
    kind, text = small(name)
    plan = dagc.compile_text(text)
    graph = plan.phases[kind].graph

    def changed(segment: Segment) -> Segment:
        return replace(segment, ops=tuple(change(segment, op) for op in segment.ops))

    return plan, replace(graph, segments=tuple(map(changed, graph.segments)))


def test_a_row_at_the_wrong_experts_rank_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank of the experts gets what is its neighbour's."""
    kind, text = small("more experts")
    plan = dagc.compile_text(text)
    true = row_moves.move_rows

    def turned(shards: Any, segment: Any, op: Op, ranks: Any, values: Any, takers: Any = None) -> Any:
        found = true(shards, segment, op, ranks, values, takers)
        return found if op.kind != TO_EXPERTS else [*found[1:], found[0]]

    monkeypatch.setattr("dagc.execute.numpy.collectives.move_rows", turned)
    proof = prove(plan, kind)
    assert proof.verdict == "differs" and "to_experts" in proof.first


def test_experts_stored_in_another_order_are_noticed() -> None:
    """Weights in the order of etp, ep where rows come in that of ep, etp."""
    kind, text = small("widths of experts split too")
    plan = dagc.compile_text(text)
    graph = plan.phases[kind].graph

    def swapped(segment: Segment) -> Segment:
        weights = tuple(
            replace(w, sharding=replace(w.sharding, dims=(("etp",), *w.sharding.dims[1:-1], ("ep",))))
            if w.scope == "experts" and w.sharding is not None and w.sharding.dims[-1]
            else w
            for w in segment.weights
        )
        return replace(segment, weights=weights)

    wrong = replace(graph, segments=tuple(map(swapped, graph.segments)))
    with pytest.raises(VerifyError):
        verify(wrong)
    assert not prove_graph(wrong, plan.units[kind], plan.phases[kind].costs).holds


def test_rows_that_do_not_come_back_are_noticed() -> None:
    """Half of the rows at each of two ranks that combine the same tokens."""
    plan, wrong = mutated(
        "more experts",
        lambda segment, op: replace(op, sharding=op.sharding.with_dim(1, ("tp",))) if op.kind == FROM_EXPERTS else op,
    )
    with pytest.raises(VerifyError):
        verify(wrong)
    assert not prove_graph(wrong, plan.units["decode"], plan.phases["decode"].costs).holds


@pytest.mark.parametrize("kind", [TO_EXPERTS, FROM_EXPERTS])
def test_wrong_bytes_are_noticed(kind: str) -> None:
    _, text = small("more experts")
    plan = dagc.compile_text(text)
    result = plan.phases["decode"]
    for field in ("payload_B", "wire_B"):
        ops = {
            key: replace(cost, **{field: getattr(cost, field) * 1.01}) if key[1].endswith(kind) else cost
            for key, cost in result.costs.ops.items()
        }
        proof = prove_graph(result.graph, plan.units["decode"], replace(result.costs, ops=ops))
        assert proof.verdict == "differs" and all(kind in name for name in proof.bytes_wrong) and proof.bytes_wrong


def test_ops_run_where_their_operands_are() -> None:
    """A product of experts on the ranks of attention, and a layout there by the experts' axes."""
    for change in (
        lambda segment, op: replace(op, on="") if op.on and not op.is_collective else op,
        lambda segment, op: replace(op, sharding=replace(op.sharding, on="")) if op.kind == TO_EXPERTS else op,
    ):
        _, wrong = mutated("more experts", change)
        with pytest.raises(VerifyError):
            verify(wrong)


# -- text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["more experts", "one GPU each", "widths of experts split too"])
def test_text_reads_back_equal_at_every_level(name: str) -> None:
    kind, text = small(name)
    graph = dagc.compile_text(text).phases[kind].graph
    shown = print_graph(graph)
    assert " on experts" in shown and parse_graph(shown) == graph


# -- prices --------------------------------------------------------------------------------------------


@st.composite
def two_sets(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Disjoint GPUs in any order, on nodes of some size."""
    ids = draw(st.permutations(range(24)))
    many, few = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return [*ids[:many]], [*ids[many : many + few]], draw(st.sampled_from((1, 2, 4, 8)))


@given(two_sets(), st.sampled_from((1.0, 1.7)), st.sampled_from((1.0, 2.5)))
def test_what_goes_across_takes_as_long_as_the_slower_end(
    sets: tuple[list[int], list[int], int], sent: float, received: float
) -> None:
    """Counted message by message: every sender has a part for every receiver; ports of a node and NICs work side by side."""
    senders, receivers, per_node = sets
    links, each_B = (Link(400e9, 2e-6), Link(50e9, 6e-6)), 1e6
    shape = between(np.array([senders]), np.array([receivers]), per_node)
    ports: dict[tuple[str, int, int], float] = {}
    for a in senders:
        for b in receivers:
            level = int(a // per_node != b // per_node)
            message_B = each_B / len(senders)
            for key, factor in ((("out", a, level), sent), (("in", b, level), received)):
                ports[key] = ports.get(key, 0.0) + message_B * factor
    slowest_s = max(size / links[key[2]].bandwidth_Bps for key, size in ports.items())
    farthest = max(key[2] for key in ports)
    found = crossing_time(each_B, shape, *links, sent=sent, received=received)
    assert found.time_s == pytest.approx(links[farthest].latency_s + slowest_s, rel=1e-12)
    assert sum(found.level_B) == pytest.approx(each_B * len(receivers) / len(senders), rel=1e-12)


def test_a_collective_says_what_each_end_sends_or_gets() -> None:
    """8 sequences of 2 choices and 64 numbers: 4 kB in all, of which each of 4 ranks gets a quarter, and each of 2 sends a half."""
    plan = dagc.compile_text(
        spec_text(
            kind="decode", phase="gpus = 0..1, attention { dp = 2 }\nexperts { gpus = 8..11, ep = 4 }",
            workload="sequences = 8, prompt = 16 tok, output = 4 tok",
        )
    )  # fmt: skip
    result = plan.phases["decode"]
    costs = {op.kind: result.costs.ops[s.name, op.name] for s in result.graph.segments for op in s.ops if op.is_across}
    whole_B = 8 * 2 * 64 * 4
    there, back = costs[TO_EXPERTS], costs[FROM_EXPERTS]
    assert (there.payload_B, there.wire_B) == (whole_B / 4, whole_B / 2)
    assert (back.payload_B, back.wire_B) == (whole_B / 2, whole_B / 4)
    assert there.group is not None and there.group.ranks == 6
    assert there.level_B.keys() == {"cluster"} and there.level_B["cluster"] == there.wire_B


def test_memory_of_each_side() -> None:
    """Experts' GPUs hold experts alone; the others all else."""
    apart = dagc.compile_text(
        spec_text(kind="decode", phase="gpus = 0..3, attention { dp = 4 }\nexperts { gpus = 4..7, ep = 4 }")
    )
    one = dagc.compile_text(spec_text(kind="decode", phase="gpus = 0..3, attention { dp = 4 }\nexperts { ep = 4 }"))
    (whole,) = one.phases["decode"].memory.stages
    home, experts = apart.phases["decode"].memory.stages
    assert (home.on, experts.on) == ("", "experts") and experts.kv_cache_B == 0
    assert (
        home.weights_B + experts.weights_B == pytest.approx(whole.weights_B)
        and min(home.weights_B, experts.weights_B) > 0
    )
    assert home.kv_cache_B == whole.kv_cache_B
    assert set(apart.phases["decode"].gpus) == set(range(8))


# -- turns ---------------------------------------------------------------------------------------------


def turns(turn_count: int, layers: list[tuple[float, ...]]) -> float:
    """When the last micro-batch is through layers of (attention, there, experts, back, rest): each side and each direction does one
    thing at a time, in order of micro-batches; the rest runs when its rows are back, and takes its time from attention."""
    home = experts = there = back = rest_free = 0.0
    ready = [0.0] * turn_count
    for attention_s, there_s, experts_s, back_s, rest_s in layers:
        sent, done, came = [], [], []
        for k in range(turn_count):
            home = max(home, ready[k]) + attention_s
            sent.append(home)
        for at in sent:
            there = max(there, at) + there_s
            done.append(there)
        for at in done:
            experts = max(experts, at) + experts_s
            came.append(experts)
        for k, at in enumerate(came):
            back = max(back, at) + back_s
            rest_free = max(rest_free, back) + rest_s
            ready[k] = rest_free
        home += rest_s * turn_count
    return max(ready)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_micro_batches_take_turns(count: int) -> None:
    """A step, against both sides' work added up in a few lines. Attention and experts without tensor parallelism, so that each
    layer is five stretches."""
    text = spec_text(
        kind="decode", phase=f"gpus = 0..3, microbatches = {count}, attention {{ dp = 4 }}\nexperts {{ gpus = 8..11, ep = 4 }}",
        workload="sequences = 960, prompt = 4096 tok, output = 16 tok", model="layers = 6, hidden = 1024, vocab = 512\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 128 }\nexperts { count = 8, top_k = 2, hidden = 4096 }",
    )  # fmt: skip
    result = dagc.compile_text(text).phases["decode"]
    graph, layers = result.graph, list[tuple[float, ...]]()
    assert (graph.lanes, graph.microbatches, result.batches) == (count, 1, count)
    for segment in (segment for segment, _ in graph.layers):
        parts = [0.0] * 5
        at = 0
        for op in segment.ops:
            at = {TO_EXPERTS: 1, FROM_EXPERTS: 3}.get(op.kind, 2 if op.on else 4 if at >= 3 else 0)
            parts[at] += float(result.costs.ops[segment.name, op.name].time_s.max())
        if any(op.is_across for op in segment.ops):
            layers.append(tuple(parts))
        else:
            layers.append((parts[0], 0.0, 0.0, 0.0, 0.0))
    wanted_s = turns(count, layers) if count > 1 else sum(map(sum, layers))
    assert result.schedule.period_s == pytest.approx(wanted_s, rel=1e-9)
    assert period_s(graph, result.costs) == result.schedule.period_s, "the fast schedule is the same bit for bit"
    assert sum(step.time_s for step in result.schedule.path) == pytest.approx(result.schedule.period_s, rel=1e-9)
    busy_s = max(sum(one[0] + one[4] for one in layers), sum(one[2] for one in layers)) * count
    assert busy_s <= result.schedule.period_s * (1 + 1e-9)


# -- two pools ------------------------------------------------------------------------------------------

POOLS = """moe 1
hardware near { gpus = 12, per_node = 4
  compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 2 TB/s, mbu = 80%, price = 2 $/h
  link node { bandwidth = 400 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
hardware far { gpus = 8, per_node = 8
  compute = 400 TFLOP/s, mfu = 60%, memory = 96 GB, hbm = 4 TB/s, mbu = 80%, price = 3 $/h
  link node { bandwidth = 800 GB/s, latency = 1 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
link near to far { bandwidth = 40 GB/s, latency = 10 us }
model small {
layers = 2, hidden = 64, vocab = 64, dtype = fp32
attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 16 }
experts { count = 8, top_k = 2, hidden = 64 }
}
workload { sequences = 16, prompt = 16 tok, output = 4 tok }
phase decode { hardware = near, gpus = 0..3, microbatches = 2, attention { dp = 4 }, experts { hardware = far, gpus = 0..1, ep = 2 } }
"""


def test_experts_in_another_pool() -> None:
    """The same ids in both pools are other GPUs; each side computes at its own speed, and what goes across takes the link between."""
    plan = dagc.compile_text(POOLS)
    proof = prove(plan, "decode")
    assert proof.holds and proof.ranks == 6, proof
    result = plan.phases["decode"]
    assert [(seat.hardware, seat.on, seat.ids) for seat in result.seats] == [
        ("near", "", (0, 1, 2, 3)),
        ("far", "experts", (0, 1)),
    ]
    assert [stage.capacity_B for stage in result.memory.stages] == [64e9, 96e9]
    ops = {op.name: (op, result.costs.ops[s.name, op.name]) for s in result.graph.segments for op in s.ops}
    there = next(cost for op, cost in ops.values() if op.kind == TO_EXPERTS)
    # 8 sequences of a micro-batch, 2 choices, 64 numbers of 4 bytes; each of 4 ranks sends a quarter, each of 2 gets a half.
    assert there.payload_B == 8 * 2 * 64 * 4 / 2 and there.level_B == {"pools": there.payload_B / 2}
    slower_s = there.payload_B * float(there.time_s.max() > 0) / 40e9
    assert float(there.floor_s.max()) == pytest.approx(slower_s) and float(there.time_s.max()) > 10e-6
    faster = dagc.compile_text(POOLS.replace("hbm = 4 TB/s", "hbm = 40 TB/s")).phases["decode"].costs.ops
    changed = {
        key for key, cost in result.costs.ops.items() if float(cost.floor_s.max()) != float(faster[key].floor_s.max())
    }
    assert changed == {
        (s.name, op.name)
        for s in result.graph.segments
        for op in s.ops
        if op.on and not op.is_collective and result.costs.ops[s.name, op.name].floor_s.any()
    }
    assert plan.subject("decode").price_per_s == pytest.approx((4 * 2 + 2 * 3) / 3600)
    graph = result.graph
    assert parse_graph(print_graph(graph)) == graph
    apart = graph.the_mesh.apart
    assert apart is not None and apart.linked and (apart.gpus.per_node, graph.the_mesh.the_gpus.per_node) == (8, 4)
    assert apart.gpus.ids == (16, 17), "behind the 12 of the phase's pool, from a whole node on"
    with_nics = POOLS.replace(
        "50 GB/s, latency = 6 us }\n}\nlink near", "50 GB/s, latency = 6 us, nics = 4 }\n}\nlink near"
    )
    shared = dagc.compile_text(with_nics).phases["decode"].graph.the_mesh
    assert shared.apart is not None and (shared.apart.gpus.nics, shared.the_gpus.nics) == ((1, 2), None)
    assert parse_graph(print_graph(dagc.compile_text(with_nics).phases["decode"].graph)).the_mesh == shared


def test_pools_of_experts_that_are_wrong() -> None:
    for change, message in (
        ({"link near to far { bandwidth = 40 GB/s, latency = 10 us }": ""}, "no link joins `near` and `far`, which has the experts of `decode`"),
        ({"hardware = far, gpus = 0..1": "hardware = fare, gpus = 0..1"}, "there is no pool `fare`"),
        ({"hardware = far, gpus = 0..1, ": "hardware = far, "}, "`hardware` in `experts` needs `gpus` there"),
        ({"hardware = far, gpus = 0..1": "hardware = far, gpus = 7..8"}, "GPU 8 is not in the 8 of the pool `far`"),
    ):  # fmt: skip
        text = POOLS
        for old, new in change.items():
            text = text.replace(old, new)
        with pytest.raises(SpecError) as raised:
            dagc.compile_text(text)
        assert [d.message for d in raised.value.diagnostics if d.severity == "error"] == [message]


def test_files_of_two_pools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(POOLS)
    assert main(["compile", str(path), "--emit", "json,html,svg", "-o", str(tmp_path / "out")]) == 0
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    jsonschema.validate(plan, json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text()))
    phase = plan["phases"]["decode"]
    assert phase["gpus"] == [0, 1, 2, 3] and phase["expert_gpus"] == {"hardware": "far", "gpus": [0, 1]}
    capsys.readouterr()
    assert main(["compile", str(tmp_path / "out" / "plan.decode.graph.json"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["phases"]["decode"]
    assert again["tpot_s"] == phase["tpot_s"]


def test_a_serving_counts_the_experts_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four that take prompts, two that attend in decode and two that have its experts."""
    path = tmp_path / "plan.moe"
    decode = "phase decode { gpus = 4..5, attention { dp = 2 }, experts { gpus = 6..7, ep = 2 } }"
    serve = "serve chat { arrivals = constant(100 req/s), requests = 20 }"
    path.write_text(spec_text(phase="gpus = 0..3, ep = 4", extra=f"{decode}\n{serve}"))
    assert main(["serve", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["servings"]["chat"]
    assert [role["gpus"] for role in found["roles"]] == [4, 4]


def test_the_example() -> None:
    """What its comments say: each side of the plan has 32 GPUs, three micro-batches take turns, and it outruns the alternative, which
    misses the requirement."""
    path = ROOT / "examples" / "deepseek_v3_expert_gpus.moe"
    apart, together = dagc.compile(path), dagc.compile(path, settings={"decode": "together"})
    result = apart.phases["decode"]
    assert [len(seat.gpus) for seat in result.seats] == [32, 32] and result.batches == 3
    assert result.throughput_tok_s > together.phases["decode"].throughput_tok_s
    assert [v.passed for v in apart.requirements] == [True, True] and [v.passed for v in together.requirements] == [
        False,
        True,
    ]
    experts_share = 256 // 32
    held = {
        w.sharding.dims[0]
        for s in result.graph.segments
        for w in s.weights
        if w.scope == "experts" and w.sharding is not None
    }
    assert held == {("ep",)} and result.graph.the_mesh.size(("ep",)) * experts_share == 256


# -- what is refused -----------------------------------------------------------------------------------

WRONG = {
    "attention { dp = 4 }, experts { gpus = 2..5, ep = 4 }": "GPUs 2, 3 are in `gpus` of the experts and of the phase",
    "attention { dp = 4 }, experts { gpus = 4..9, ep = 4 }": "the degrees of `experts` of `decode` multiply to 4, but it has 6 GPUs",
    "attention { dp = 2 }, experts { gpus = 4..7, ep = 4 }": "the degrees of `attention` of `decode` multiply to 2, but it has 4 GPUs",
    "attention { dp = 4 }, experts { gpus = 60..67, ep = 8 }": "GPUs 64, 65, 66, 67 are not in the pool of 64",
    "attention { dp = 4 }, experts { gpus = [4, 4], ep = 2 }": "GPU 4 is listed twice",
    "attention { dp = 4 }, experts { gpus = any, ep = 4 }": "`gpus` of `experts` cannot be left open",
    "pp = 2, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }": "experts on GPUs of their own and `pp` cannot be combined",
    "replicas = 2, attention { dp = 2 }, experts { gpus = 4..7, ep = 4 }": "experts on GPUs of their own and `replicas` cannot be combined",
    "dispatch = allgather, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }": "experts on GPUs of their own and `dispatch` cannot be combined",
    "exchange = deepep_ll, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }": "experts on GPUs of their own and `exchange` cannot be combined",
    "overlap = two_batch, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }": "experts on GPUs of their own and `overlap` cannot be combined",
    "place = best, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }": "experts on GPUs of their own and `place` cannot be combined",
    "microbatches = 27, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }": "at most 26 micro-batches take turns at attention and at experts",
    "attention { dp = 4 }, experts { gpus = 4..7, ep = 3, tp = 2 }": "the degrees of `experts` of `decode` multiply to 6, but it has 4 GPUs",
}  # fmt: skip


@pytest.mark.parametrize("phase", WRONG)
def test_bad_input_is_said_at_its_place(phase: str) -> None:
    with pytest.raises(SpecError) as raised:
        dagc.compile_text(spec_text(kind="decode", phase=f"gpus = 0..3, {phase}"))
    found = [d for d in raised.value.diagnostics if d.severity == "error"]
    assert [d.message for d in found] == [WRONG[phase]]
    assert found[0].span is not None and found[0].span.text in phase


def test_a_model_without_experts_has_none_to_place() -> None:
    model = "layers = 2, hidden = 64, vocab = 512\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 128 }"
    with pytest.raises(SpecError, match="has no routed experts"):
        dagc.compile_text(
            spec_text(
                kind="decode", model=model, phase="gpus = 0..3, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }"
            )
        )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "plan.moe"
    path.write_text(
        spec_text(
            kind="decode", phase="gpus = 0..3, microbatches = 2, attention { dp = 4 }\nexperts { gpus = 8..11, ep = 4 }"
        )
    )
    return path


def test_files_and_pictures(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON by its schema; every picture and trace; and the placed graph, which costs the same when it is read."""
    assert main(["compile", str(spec), "--emit", "json,svg,dot,html,md,perfetto", "-o", str(tmp_path / "out")]) == 0
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    schema = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
    jsonschema.validate(plan, schema)
    phase = plan["phases"]["decode"]
    assert phase["gpus"] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert [(s["stage"], s.get("on"), s["gpus"]) for s in phase["memory"]["stages"]] == [
        (0, None, [0, 1, 2, 3]), (1, "experts", [8, 9, 10, 11]),
    ]  # fmt: skip
    wires = {(c["stage"], c["kind"]): c["wire_B"] for c in phase["collectives"]}
    assert wires[0, TO_EXPERTS] > 0 == wires[1, TO_EXPERTS] and wires[1, FROM_EXPERTS] > 0 == wires[0, FROM_EXPERTS]
    capsys.readouterr()
    assert main(["compile", str(tmp_path / "out" / "plan.decode.graph.json"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["phases"]["decode"]
    assert again["tpot_s"] == phase["tpot_s"] and again["memory"]["peak_B"] == phase["memory"]["peak_B"]


def test_what_cannot_have_it_says_so(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = dagc.compile(spec)
    for engine in ("vllm", "sglang", "trtllm", "megatron"):
        with pytest.raises(SpecError, match="its experts have GPUs of their own"):
            export(plan, engine, None, "plan")
    for command in (
        ["compile", str(spec), "--emit", "chakra", "-o", str(tmp_path / "traces")],
        ["survive", str(spec), "--lose", "gpu:9"],
        ["run", str(spec)],
    ):
        assert main(command) == 2
        assert "GPUs of their own" in capsys.readouterr().err
    opened = tmp_path / "open.moe"
    opened.write_text(spec.read_text().replace("microbatches = 2", "microbatches = any(1, 2)"))
    assert main(["search", str(opened)]) == 2
    assert "knows no experts on GPUs of their own" in capsys.readouterr().err
