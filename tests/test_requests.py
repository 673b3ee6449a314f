"""Scatter of token ids and gather of results: bytes and times by hand from degrees and GPU ids, and that no step waits for them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.base.collectives import REQUESTS
from dagc.cost.records import OpCost
from dagc.execute.machine import RankMachine
from dagc.execute.prove import prove_small, twin_inputs, twin_of_phase
from dagc.execute.traffic import compare_requests
from dagc.export.chrome import trace
from dagc.export.json import dumps, graph_object
from dagc.plan.result import PhaseResult
from dagc.view.draw.dot import COLORS
from dagc.view.draw.figures.looks import LOOKS
from dagc.view.facts.every_rank import expand_ranks
from dagc.view.facts.unroll import Edge, Node, unroll

PLANS: Mapping[str, tuple[str, dict[str, int]]] = {
    # Degrees in the order of GPU ids, outermost first.
    "dp and ep": ("dp = 2, ep = 4, tp = 2", {"dp": 2, "ep": 4, "tp": 2}),
    "replicas": ("replicas = 2, dp = 2, tp = 2", {"replica": 2, "dp": 2, "tp": 2}),
    "split sequences": ("dp = 4, sp = 2", {"dp": 4, "sp": 2}),
    "stages, lanes": ("pp = 2, dp = 4, tp = 2, microbatches = 2, overlap = two_batch", {"pp": 2, "dp": 4, "tp": 2}),
}
ALONE = ("tp = 4", "sp = 2, tp = 2", "pp = 2, tp = 2, microbatches = 2")
SEQUENCES, PROMPT, ID_B, RESULT_B = 64, 256, 4, 8
BATCH = ("replica", "dp", "ep")


def small(phase: str, kind: str) -> PhaseResult:
    return plan_of(phase, kind).phases[kind]


def plan_of(phase: str, kind: str) -> dagc.Plan:
    degrees = [int(word) for word in phase.replace(",", "").split() if word.isdigit()]
    ranks = 1
    for name, degree in zip(phase.replace(",", "").split()[::3], degrees, strict=False):
        ranks *= 1 if name in ("microbatches", "overlap") else degree
    return dagc.compile_text(spec_text(phase=f"gpus = 0..{ranks - 1}, {phase}", kind=kind))


def places(degrees: Mapping[str, int]) -> Iterator[tuple[int, dict[str, int]]]:
    """(GPU, coordinates) of every rank."""
    for gpu, at in enumerate(itertools.product(*(range(n) for n in degrees.values()))):
        yield gpu, dict(zip(degrees, at, strict=True))


def groups(degrees: Mapping[str, int], stage: int) -> list[list[int]]:
    """GPUs of a stage that differ in their sequences alone."""
    found: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for gpu, at in places(degrees):
        if at.get("pp", 0) == stage:
            found.setdefault(tuple((k, v) for k, v in at.items() if k not in BATCH), []).append(gpu)
    return list(found.values())


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@pytest.mark.parametrize("name", PLANS)
def test_bytes_and_times_by_hand(name: str, kind: str) -> None:
    """The first rank of a group sends every other one the ids of its sequences, and takes in what it chose."""
    phase, degrees = PLANS[name]
    result = small(phase, kind)
    calls = result.graph.microbatches * result.graph.lanes
    assert calls == (4 if "lanes" in name else 1)
    parts = 1
    for axis in BATCH:
        parts *= degrees.get(axis, 1)
    sequences = SEQUENCES // calls // parts
    tokens = PROMPT // degrees.get("sp", 1) if kind == "prefill" else 1
    each_B = {"scatter": sequences * tokens * ID_B, "gather": sequences * RESULT_B}
    assert set(result.requests) == {"scatter", "gather"}
    for call, cost in result.requests.items():
        stage = degrees.get("pp", 1) - 1 if call == "gather" else 0
        slowest_s = 0.0
        for root, *others in groups(degrees, stage):
            crossing = [gpu // 8 != root // 8 for gpu in others]
            assert len(others) == parts - 1
            assert cost.wire_B == len(others) * each_B[call]
            inside_s, outside_s = (crossing.count(c) * each_B[call] / b for c, b in ((False, 450e9), (True, 50e9)))
            latency_s = 6e-6 if any(crossing) else 2e-6
            slowest_s = max(slowest_s, latency_s + max(inside_s, outside_s))
            levels = {"node": crossing.count(False) * each_B[call], "cluster": crossing.count(True) * each_B[call]}
            assert cost.level_B == pytest.approx({level: size for level, size in levels.items() if size})
        assert cost.payload_B == each_B[call] * (parts if call == "scatter" else 1)
        assert float(cost.time_s.max()) == pytest.approx(slowest_s)


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@pytest.mark.parametrize("phase", ALONE)
def test_ranks_that_all_have_the_whole_batch_are_given_nothing_of_their_own(phase: str, kind: str) -> None:
    plan = plan_of(phase, kind)
    assert not plan.phases[kind].requests
    assert not [one for one in unroll(plan.phases[kind]) if one.kind in (*REQUESTS, "request")]
    assert "requests" not in plan.to_json()["phases"][kind]
    assert "requests" not in plan.report() and plan.subject(kind).calls("scatter") == 0


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@pytest.mark.parametrize("name", PLANS)
def test_every_rank_has_one_before_its_ids_are_needed_and_one_behind_its_results(name: str, kind: str) -> None:
    result = small(PLANS[name][0], kind)
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for item in expand_ranks(result, unroll(result)):
        if isinstance(item, Node):
            nodes[item.id] = item
        else:
            edges.append(item)
    stage_gpus = len(result.graph.stages[0].gpus)
    calls = result.graph.microbatches * result.graph.lanes
    for kind_, cost in result.requests.items():
        mine = [node for node in nodes.values() if node.kind == kind_]
        assert len(mine) == stage_gpus * calls
        assert {node.time_s for node in mine} == {float(cost.time_s.max())} and {n.bytes for n in mine} == {
            cost.payload_B
        }
        own = groups(PLANS[name][1], mine[0].stage)
        assert {node.gpus for node in mine} == {tuple(group) for group in own}
        assert all(node.stream == "host" for node in mine)
    asked = [edge for edge in edges if edge.kind == "request"]
    given = {edge.src for edge in asked if nodes[edge.src].kind == "scatter"}
    taken = {edge.dst for edge in asked if nodes[edge.dst].kind == "gather"}
    assert given | taken == {key for key, node in nodes.items() if node.stream == "host"} and not given & taken
    for edge in asked:
        source, target = nodes[edge.src], nodes[edge.dst]
        assert source.start_s + source.time_s <= target.start_s + 1e-12
        if source.kind == "scatter":
            assert target.op == "embed.x" and edge.bytes * len(source.gpus) == source.bytes
        else:
            assert source.start_s + source.time_s == pytest.approx(target.start_s) and edge.bytes == target.bytes
    assert not [e for e in edges if e.kind == "stream" and "host" in (nodes[e.src].stream, nodes[e.dst].stream)]


def test_a_mixed_step_is_given_the_ids_of_both_parts() -> None:
    """16 sequences in decode and a prompt of 256 tokens on each of 4 ranks; each has 17 results."""
    text = spec_text(
        kind="step", phase="kind = mixed, gpus = 0..7, dp = 4, tp = 2, decode = 64, prompt_tokens = 1024 tok"
    )
    requests = dagc.compile_text(text).phases["step"].requests
    assert requests["scatter"].payload_B == 4 * (16 + 256) * ID_B and requests["scatter"].wire_B == 3 * 272 * ID_B
    assert requests["gather"].payload_B == 17 * RESULT_B and requests["gather"].wire_B == 3 * 17 * RESULT_B


def test_gpus_that_have_experts_alone_are_given_no_ids() -> None:
    text = spec_text(kind="decode", phase="gpus = 0..3\nattention { dp = 4 }\nexperts { gpus = 4..7, ep = 4 }")
    result = dagc.compile_text(text).phases["decode"]
    ends = [item for item in unroll(result) if isinstance(item, Node) and item.stream == "host"]
    assert [(node.kind, node.gpus) for node in ends] == [("scatter", (0, 1, 2, 3)), ("gather", (0, 1, 2, 3))]
    assert result.requests["scatter"].wire_B == 3 * 16 * ID_B


def test_slow_links_to_the_front_end_delay_nothing() -> None:
    """A step on links so slow that ids take longer than the step costs what its own collectives cost."""
    text = spec_text(phase="gpus = 0..15, dp = 16", kind="decode", model=DENSE)
    slow = text.replace("latency = 6 us", "latency = 6 s")
    for one in (text, slow):
        plan = dagc.compile_text(one)
        result = plan.phases["decode"]
        assert not result.collectives and set(result.requests) == {"scatter", "gather"}
        assert ("longer than the pass" in plan.report()) == (one is slow)
    assert float(result.requests["gather"].time_s.max()) > 1e3 * result.time_s
    assert result.time_s == dagc.compile_text(text).phases["decode"].time_s
    assert {step.kind for step in result.path}.isdisjoint(REQUESTS)


DENSE = """layers = 2, hidden = 64, vocab = 512, dtype = fp32
attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
mlp { hidden = 64 }"""


@pytest.mark.parametrize("name", PLANS)
def test_the_proof_counts_what_is_handed_out(name: str) -> None:
    """Ids reach ranks by the scatter alone; bytes that it, or the gather, does not move are named."""
    plan = plan_of(PLANS[name][0], "decode")
    result, twin = plan.phases["decode"], twin_of_phase(plan, "decode")
    machine = RankMachine(twin.placed, twin_inputs(twin), twin.placed.the_mesh)
    machine.run()

    def wrong(stated: Mapping[str, OpCost]) -> list[str]:
        return compare_requests(machine.shards, machine.record, stated, result.graph)

    assert wrong(result.requests) == []
    for kind, cost in result.requests.items():
        for field in ("payload_B", "wire_B"):
            assert wrong({**result.requests, kind: replace(cost, **{field: getattr(cost, field) * 2})}) == [kind]
        assert wrong({k: v for k, v in result.requests.items() if k != kind}) == [kind]
        kept, machine.record.requests[kind] = machine.record.requests[kind], []
        assert wrong(result.requests) == [kind]
        machine.record.requests[kind] = kept


def test_ids_that_go_to_the_wrong_ranks_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("dp = 4", "decode")
    proof = prove_small(plan, "decode")
    assert proof.holds and proof.requests == 2
    right = RankMachine.scattered

    def turned(machine: RankMachine, move: Any, whole: Any) -> list[object]:
        """Every rank gets the ids of its neighbour."""
        found = right(machine, move, whole)
        return [*found[1:], found[0]]

    monkeypatch.setattr(RankMachine, "scattered", turned)
    proof = prove_small(plan, "decode")
    assert proof.verdict == "differs" and proof.first and not proof.bytes_wrong


def test_files_have_them() -> None:
    plan = plan_of(PLANS["stages, lanes"][0], "prefill")
    result = plan.phases["prefill"]
    schemas = {n: json.loads((ROOT / "dagc/export" / f"{n}.schema.json").read_text()) for n in ("plan", "graph")}
    whole, graph = (json.loads(dumps(one)) for one in (plan.to_json(), graph_object(plan, "prefill")))
    jsonschema.validate(whole, schemas["plan"])
    jsonschema.validate(graph, schemas["graph"])
    rows = {row["kind"]: row for row in whole["phases"]["prefill"]["requests"]}
    assert [(r["kind"], r["stage"], r["count"]) for r in rows.values()] == [("scatter", 0, 4), ("gather", 1, 4)]
    for kind, cost in result.requests.items():
        assert rows[kind]["wire_B"] == 4 * cost.wire_B and plan.subject("prefill").calls(kind) == 4
    assert sum(node["kind"] in REQUESTS for node in graph["nodes"]) == 8
    events = json.loads(b"".join(trace(plan, "prefill")))["traceEvents"]
    spans = [e for e in events if e["ph"] == "X" and e["cat"] in REQUESTS]
    assert len(spans) == 8 and all(e["ts"] >= 0 and e["dur"] >= 0 for e in spans)
    assert {e["args"]["time_us"] for e in spans} == {float(c.time_s.max()) * 1e6 for c in result.requests.values()}


def test_every_kind_has_a_colour_in_pages() -> None:
    assert {f"k-{kind}" for kind in COLORS} <= {*LOOKS}


def test_a_file_that_lacks_one_is_refused(tmp_path: Path) -> None:
    from dagc.base.plain_data import DataError
    from dagc.importers.placed import plan_of as placed

    data = json.loads(dumps(graph_object(plan_of("dp = 2, tp = 2", "decode"), "decode")))
    assert placed(data).phases["decode"].requests
    (gather,) = (node for node in data["nodes"] if node["kind"] == "gather")
    data["nodes"].remove(gather)
    data["edges"] = [edge for edge in data["edges"] if edge["dst"] != gather["id"]]
    with pytest.raises(DataError, match="gather' of the IR is missing"):
        placed(data)
