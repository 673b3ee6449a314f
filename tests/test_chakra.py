"""Chakra traces: every file is read back with Google's protobuf and compared with the placed graph."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from conftest import compiled, examples, spec_text
from hypothesis import HealthCheck, assume, given, settings
from random_plans import plans
from tiers import spread

pytest.importorskip("google.protobuf", reason="the traces are read with protobuf: pip install -e '.[test]'")

from chakra_schema import COLL, COMM, COMP, RECV, SEND, attributes, messages, read

import dagc
from dagc.base.collectives import REQUESTS
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.export.chakra import configs
from dagc.export.chakra.folder import classes, traces
from dagc.export.chakra.layer_nodes import comm_size
from dagc.export.chakra.ranks import Network, Ranks
from dagc.export.chakra.simulated import Call, fitted, line, nearest
from dagc.ir.mesh import Mesh
from dagc.ir.op import Op
from dagc.ir.ops.attributes.moves import MoveAttrs
from dagc.ir.peers import peers
from dagc.ir.segment import Segment
from dagc.ir.sharding import Sharding
from dagc.plan.result import PhaseResult
from dagc.spec.hardware import Link
from dagc.view.facts.every_rank import expand_ranks
from dagc.view.facts.unroll import Node as Placed
from dagc.view.facts.unroll import unroll


@dataclass(frozen=True)
class Event:
    """A node of a trace, decoded."""

    id: int
    name: str
    type: int
    control: tuple[int, ...]
    data: tuple[int, ...]
    micros: int
    attr: dict[str, Any]


@cache
def decoded(data: bytes) -> list[Event]:
    return [
        Event(
            n.id, n.name, n.type, tuple(n.ctrl_deps), tuple(n.data_deps), n.duration_micros,
            {k: v for k, (_, v) in attributes(n).items()},
        )
        for n in read(data)[1]
    ]  # fmt: skip


def files(result: PhaseResult) -> tuple[Ranks, dict[int, list[Event]]]:
    ranks = Ranks(result)
    return ranks, {rank: decoded(bytes(data)) for rank, data in traces(result, ranks)}


PLANS = {
    "pipeline": spec_text(phase="gpus = 8..23, pp = 2, ep = 4, tp = 2, microbatches = 4"),
    "two lanes": spec_text(phase="gpus = 0..7, ep = 4, tp = 2, microbatches = 2, overlap = two_batch"),
    "two lanes, stages": spec_text(phase="gpus = 0..15, pp = 2, ep = 4, tp = 2, microbatches = 2, overlap = two_batch"),
    "ring": spec_text(phase="gpus = 0..7, sp = 4, tp = 2, sp_method = ring"),
    "ulysses": spec_text(phase="gpus = 0..3, sp = 2, tp = 2, sp_method = ulysses"),
    "folded": spec_text(phase="gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 8 }"),
    "skewed": spec_text(
        phase="gpus = 0..7, ep = 8", workload="sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1.0)"
    ),
    "uneven nodes": spec_text(phase="gpus = 0..11, dp = 3, ep = 4", workload="sequences = 48, prompt = 256 tok"),
    "placed": spec_text(phase="gpus = 0..15, dp = 4, ep = 4\nplace gpu = ep * 4 + dp"),
    "one GPU": spec_text(phase="gpus = 5..5"),
}


@cache
def small(name: str) -> tuple[PhaseResult, Ranks, dict[int, list[Event]]]:
    result = dagc.compile_text(PLANS[name]).phases["prefill"]
    return result, *files(result)


@pytest.mark.parametrize("name", spread(PLANS, lambda name: name != "two lanes"))
def test_every_file_reads_back_consistent(name: str) -> None:
    result, ranks, events = small(name)
    assert sorted(events) == list(range(ranks.network.ranks)) == list(range(prod(ranks.network.shape)))
    consistent(result, ranks, events)


@pytest.mark.parametrize(("name", "phase"), spread([("plan_a", "decode"), ("plan_b", "decode")]))
def test_examples_read_back_consistent(name: str, phase: str) -> None:
    result = compiled(name).phases[phase]
    consistent(result, *files(result))


@settings(deadline=None, max_examples=examples(12), suppress_health_check=list(HealthCheck))
@given(plans())
def test_random_plans_read_back_consistent(case: tuple[str, str]) -> None:
    kind, text = case
    try:
        result = dagc.compile_text(text).phases[kind]
    except SpecError:
        assume(False)
        raise
    consistent(result, *files(result))


def consistent(result: PhaseResult, ranks: Ranks, events: dict[int, list[Event]]) -> None:
    groups = configs.groups(ranks)
    assert all(len(members) == len(set(members)) > 1 for members in groups.values())
    assert all(int(key) >= 1 for key in groups) and len({len(key) for key in groups}) <= 1
    held = placed_by_rank(result, ranks)
    for rank, nodes in events.items():
        ids = [n.id for n in nodes]
        assert len({n.name for n in nodes}) == len(nodes)
        assert ids == sorted(set(ids))
        assert all(d < n.id and d >= ids[0] for n in nodes for d in (*n.control, *n.data))  # all in this file, no cycle
        assert any(not n.control and not n.data for n in nodes)
        if ranks.network.gpus[rank] < 0:
            assert [n.name for n in nodes] == ["idle"]
            continue
        same_as_placed(nodes, held[rank], result)
        comm_is_a_chain(nodes)
    meet(ranks, events, groups)


def placed_by_rank(result: PhaseResult, ranks: Ranks) -> dict[int, dict[str, Placed]]:
    number = {gpu: rank for rank, gpu in enumerate(ranks.network.gpus.tolist()) if gpu >= 0}
    out: dict[int, dict[str, Placed]] = defaultdict(dict)
    for item in expand_ranks(result, unroll(result)):
        if isinstance(item, Placed):
            name, _, gpu = item.id.rpartition("@")
            out[number[int(gpu)]][name] = item
    return out


def placed_id(node: Event) -> str:
    """The id that the placed graph gives the op of a node: its name, without what tells the messages of a permute apart."""
    return re.sub(r"\.(send|recv)(\.\d+)?(\.to\d+)?$", "", node.name)


def same_as_placed(nodes: list[Event], placed: dict[str, Placed], result: PhaseResult) -> None:
    """One node per op (a permute is messages), with its FLOPs and bytes."""
    graph = result.graph
    seen = Counter(placed_id(n) for n in nodes)
    absent = set(placed) - set(
        seen
    )  # a permute skips the ranks that already have their block; requests are the hosts' work
    assert set(seen) <= set(placed) and all(placed[key].kind in ("permute", *REQUESTS) for key in absent)
    for node in nodes:
        op = placed[placed_id(node)]
        if node.type == COMP:
            assert seen[op.id.rpartition("@")[0]] == 1
            assert node.attr["num_ops"] == max(1, round(op.flops))
            assert node.attr["tensor_size"] == max(1, ceil(op.bytes - 1e-6))
        elif node.type == COLL:
            assert COMM[node.attr["comm_type"]] == op.kind
            routed = op.kind == "all_to_all" and graph.segment(op.layer.split(".")[0]).by_name[op.op].scope == "experts"
            size = ceil(op.bytes * (result.costs.imbalance if routed else 1.0) - 1e-6)
            parts = 1 if op.kind == "all_gather" else len(op.gpus)
            assert size <= node.attr["comm_size"] < size + parts and node.attr["comm_size"] % parts == 0
        else:
            assert node.attr["comm_size"] == ceil(op.bytes - 1e-6) > 0
        assert node.attr["stage"] == op.stage and node.attr["microbatch"] == op.microbatch
        layer = op.layer.split(".")[1:]
        assert [node.attr["layer"]] == [int(n) for n in layer] if layer else "layer" not in node.attr
    tensors_are_written_once(nodes)


def tensors_are_written_once(nodes: list[Event]) -> None:
    """And before they are read, but for weights, which are there; a reader waits for the writer and says the same size."""
    written: dict[str, tuple[int, str]] = {}
    waits: dict[int, set[int]] = {}
    for node in nodes:
        waits[node.id] = {*node.control, *node.data}
        reads, writes = (node.attr[key] for key in ("inputs", "outputs"))
        assert all(size.isdigit() for size in (*reads[1::2], *writes[1::2]))
        for name, size in zip(reads[::2], reads[1::2], strict=True):
            if name.startswith("%"):
                source, known = written[name]
                assert source in waits[node.id] and known == size
            else:
                assert "/@" in name
        for name, size in zip(writes[::2], writes[1::2], strict=True):
            assert name not in written and name == f"%{node.id}"
            written[name] = (node.id, size)


def comm_is_a_chain(nodes: list[Event]) -> None:
    """Of two communication nodes of a rank one waits for the other, whatever a feeder does with ids."""
    graph = nx.DiGraph([(d, n.id) for n in nodes for d in n.data])
    graph.add_nodes_from(n.id for n in nodes)
    chain = [n.id for n in nodes if n.type in (COLL, SEND)]
    names = {n.id: (n.name.rpartition(".send")[0], n.data) for n in nodes}
    for a, b in itertools.pairwise(chain):
        assert names[a] == names[b] or nx.has_path(graph, a, b)


def meet(ranks: Ranks, events: dict[int, list[Event]], groups: dict[str, list[int]]) -> None:
    """Collectives of a group come in one order with one size on all its ranks; every send has its receive; and nothing
    waits for itself over all ranks."""
    everyone = list(range(ranks.network.ranks))
    calls: dict[str, dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
    sent: Counter[tuple[int, int, int, int]] = Counter()
    received: Counter[tuple[int, int, int, int]] = Counter()
    meeting: dict[tuple[int, int], Any] = {}
    edges: list[tuple[Any, Any]] = []
    for rank, nodes in events.items():
        for node in nodes:
            if node.type == COLL:
                key = node.attr.get("pg_name", "")
                meeting[rank, node.id] = ("call", key, len(calls[key][rank]))
                calls[key][rank].append(node)
            elif node.type == SEND:
                end = (node.attr["comm_tag"], rank, node.attr["comm_dst"], node.attr["comm_size"])
                assert rank != node.attr["comm_dst"] and 0 <= end[0] < 5e8
                edges.append(((rank, node.id), ("message", end, sent[end])))
                sent[end] += 1
            elif node.type == RECV:
                end = (node.attr["comm_tag"], node.attr["comm_src"], rank, node.attr["comm_size"])
                edges.append((("message", end, received[end]), (rank, node.id)))
                received[end] += 1
    assert sent == received and all(count == 1 for count in sent.values())
    for key, by_rank in calls.items():
        assert sorted(by_rank) == (sorted(groups[key]) if key else everyone)
        stages = {n.attr["stage"] for nodes in by_rank.values() for n in nodes}
        kinds = {
            tuple((n.name if len(stages) == 1 else "", n.attr["comm_type"], n.attr["comm_size"]) for n in nodes)
            for nodes in by_rank.values()
        }  # a table's copies at both ends of a pipeline are of different layers
        assert len(kinds) == 1
    for rank, nodes in events.items():
        at = {n.id: meeting.get((rank, n.id), (rank, n.id)) for n in nodes}
        edges += [(at[d], at[n.id]) for n in nodes for d in (*n.control, *n.data)]
    assert nx.is_directed_acyclic_graph(nx.DiGraph(edges))


def test_bytes_are_those_of_protobuf() -> None:
    """Google's library writes the same bytes for the same values, but for durations of zero, which it leaves out."""
    _, ranks = small("two lanes, stages")[:2]
    for rank, data in traces(ranks.result, ranks):
        from chakra_schema import records

        first, *rest = records(bytes(data))
        assert messages()["GlobalMetadata"].FromString(first).version == "0.0.4"
        for record in rest:
            node = messages()["Node"].FromString(record)
            again = node.SerializeToString(deterministic=True)
            assert again == (
                record if node.duration_micros else record.replace(b"\x38\x00R\x0e\n\tis_cpu_op", b"R\x0e\n\tis_cpu_op")
            )
        if rank > 1:
            break


def test_attributes_have_the_types_that_readers_want() -> None:
    types = {
        "is_cpu_op": "bool", "num_ops": "int64", "tensor_size": "uint64", "comm_type": "int64", "comm_size": "int64",
        "comm_src": "int32", "comm_dst": "int32", "comm_tag": "int32", "pg_name": "string",
    }  # fmt: skip
    needed = {
        COMP: {"is_cpu_op", "num_ops", "tensor_size"},
        COLL: {"is_cpu_op", "comm_type", "comm_size"},
        SEND: {"is_cpu_op", "comm_dst", "comm_size", "comm_tag"},
        RECV: {"is_cpu_op", "comm_src", "comm_size", "comm_tag"},
    }
    for name in ("pipeline", "ring", "one GPU"):
        _, ranks, _ = small(name)
        for _, data in traces(ranks.result, ranks):
            for node in read(bytes(data))[1]:
                found = attributes(node)
                assert needed[node.type] <= set(found) and found["is_cpu_op"][1] is False
                assert all(kind == types[key] for key, (kind, _) in found.items() if key in types)


def test_whole_microseconds_add_up() -> None:
    """Decode kernels take fractions of a microsecond: what rounding takes from one the next one gets."""
    for result in (compiled("plan_a").phases["decode"], compiled("mixtral_8xh100").phases["decode"]):
        ranks = Ranks(result)
        rank, data = next(traces(result, ranks))
        stage = next(i for i, s in enumerate(result.graph.stages) if ranks.network.gpus[rank] in s.gpus)
        at = np.argwhere(ranks.number == rank)[0][1:]
        want = {"compute": 0.0, "comm": 0.0}
        for name, count in result.graph.stages[stage].layers:
            for op in result.graph.segment(name).ops:
                time_s = result.costs.ops[name, op.name].time_s
                index = tuple(min(int(i), n - 1) for i, n in zip(at, time_s.shape, strict=True))
                want[op.stream] += count * result.graph.microbatches * result.graph.lanes * float(time_s[index])
        want["comm"] += sum(edge.time_s for edge in result.costs.edges[stage : stage + 1])
        got = {"compute": 0, "comm": 0}
        for node in decoded(bytes(data)):
            got["compute" if node.type == COMP else "comm"] += node.micros
        assert {k: abs(got[k] - want[k] * 1e6) <= 1.0 for k in got} == {"compute": True, "comm": True}


def test_skewed_tokens_take_the_busiest_ranks_size() -> None:
    result, ranks, events = small("skewed")
    assert result.costs.imbalance > 1.2
    assert len(list(classes(result, ranks))) > 1  # ranks compute for different times
    sizes = {tuple(n.attr["comm_size"] for n in nodes if n.type == COLL) for nodes in events.values()}
    times = {tuple(n.micros for n in nodes if n.type == COMP) for nodes in events.values()}
    assert len(sizes) == 1 and len(times) > 1


def test_exchanges_have_the_bytes_that_were_priced() -> None:
    """Kernels that send one copy of a token to each of the 4 nodes that any of its 8 experts is on."""
    result = compiled("deepseek_v3_h800").phases["prefill"]
    segment = result.graph.segment("sparse")
    for op in (op for op in segment.ops if op.is_token_exchange):
        cost = result.costs.ops[segment.name, op.name]
        rows_B = cost.payload_B * result.costs.imbalance / 8
        hit = 4 * (1 - (3 / 4) ** 8)
        assert cost.family.startswith("cluster_ht")
        assert comm_size(result, segment, op) == pytest.approx(rows_B * hit, rel=1e-6)


def test_network_and_system_are_the_hardwares() -> None:
    plan = compiled("plan_a")
    network, hardware = Ranks(plan.phases["prefill"]).network, plan.spec.hardware
    text = configs.network_text(network, configs.links_of(network, hardware))
    rows = {k: json.loads(v.replace("Switch", '"Switch"')) for k, v in (line.split(": ") for line in text.splitlines())}
    assert rows["npus_count"] == [8, 8] and rows["topology"] == ["Switch", "Switch"]
    # The simulator: hops x latency + bytes / (bandwidth x 1.073741824) ns, two hops through a switch.
    for bandwidth, latency, link in zip(
        rows["bandwidth"], rows["latency"], (hardware.cluster, hardware.node), strict=True
    ):
        assert bandwidth * 1.073741824 * 1e9 == pytest.approx(link.bandwidth_Bps)
        assert 2 * latency * 1e-9 == pytest.approx(link.latency_s)
    system = configs.system({"all_to_all": "oneDirect"}, hardware, roofline=True)
    assert system["local-mem-bw"] == pytest.approx(1440) and system["peak-perf"] == pytest.approx(240)
    assert system["all-to-all-implementation"] == ["oneDirect"]
    # A ring's reductions would be charged again: their time is in the links.
    assert configs.system({}, hardware, roofline=False)["local-mem-bw"] >= 1e9


def test_the_first_dimension_in_which_ranks_differ_is_the_outermost_they_cross() -> None:
    """The simulator charges a message to that one; GPUs of a node are equal along the nodes."""
    network = small("pipeline")[1].network
    node, gpu = np.unravel_index(network.places, network.shape)
    for a, b in itertools.combinations(range(network.ranks), 2):
        apart = network.gpus[a] // 8 != network.gpus[b] // 8
        assert (a % network.shape[0] != b % network.shape[0]) == apart == (node[a] != node[b])
        assert apart or gpu[a] != gpu[b]


@pytest.mark.parametrize(("order", "axis"), [("turns", "ep"), ("near", "tp")])
def test_rings_go_to_near_ranks_and_exchanges_take_turns(order: str, axis: str) -> None:
    """Of a group of two nodes a ring crosses twice; in an all-to-all all members cross in the same rounds."""
    ranks = Ranks(dagc.compile_text(spec_text(phase=f"gpus = 4..19, dp = 2, {axis} = 8")).phases["prefill"])
    nodes = ranks.network.gpus // 8
    orders = set()
    for key, index in ranks.group_of.items():
        for group in {ranks.groups[i] for i in np.unique(index)}:
            at = nodes[[*group]]
            touched = len(set(at.tolist()))
            if touched > 1:
                rounds = [{bool(a != b) for a, b in zip(at, np.roll(at, -k), strict=True)} for k in range(1, len(at))]
                crossing = int((at != np.roll(at, -1)).sum())
                assert all(len(found) == 1 for found in rounds) if key[0] == "turns" else crossing == touched
                orders.add(key[0])
    assert order in orders


def test_messages_of_the_simulators_algorithms() -> None:
    """(latencies, bytes) of each dimension for 8 bytes a rank: on 4 ranks of a node, and on 2 of each of 2 nodes."""
    inside = Network(np.arange(4), (4,), (0,))
    two = Network(np.arange(4), (2, 2), (1, 0))
    near, turns = np.arange(4), np.asarray([0, 2, 1, 3])

    def messages(kind: str, algorithm: str, network: Network, places: Any = near) -> list[float]:
        return line(Call(kind, places, 8.0, 1.0, 1), algorithm, network).tolist()

    assert messages("all_reduce", "oneRing", inside) == [6, 12]  # 2 (n-1) of S/n
    assert messages("all_reduce", "oneHalvingDoubling", inside) == [4, 12]  # 2 log2(n), the same bytes
    assert messages("all_reduce", "oneDirect", inside) == [2, 4]
    assert messages("all_gather", "oneRing", inside) == [3, 24]
    assert messages("reduce_scatter", "oneHalvingDoubling", inside) == [2, 6]
    assert messages("all_to_all", "oneDirect1", inside) == [3, 6]
    assert messages("all_to_all", "oneDirect", inside) == [1, 2]
    assert messages("all_reduce", "oneRing", two) == [3, 3, 6, 6]  # every second hop of the ring leaves the node
    assert messages("reduce_scatter", "oneHalvingDoubling", two) == [1, 1, 2, 4]  # half of it stays inside, first
    assert messages("all_to_all", "oneDirect1", two, turns) == [2, 1, 4, 2]
    assert messages("all_to_all", "oneDirect", two, turns) == [1, 0, 2, 0]
    assert line(Call("send", np.asarray([0, 3]), 8.0, 1.0, 1), "", two).tolist() == [1, 0, 8, 0]


def test_algorithms_are_those_that_bind() -> None:
    """Exchanges of prompts are bound by bandwidth, those of decode steps by latency; without a calibration links stay."""
    plan = compiled("plan_a")
    for phase, algorithm in (("prefill", "oneDirect1"), ("decode", "oneDirect")):
        ranks = Ranks(plan.phases[phase])
        given = configs.links_of(ranks.network, plan.spec.hardware)
        found = nearest(plan.phases[phase], ranks, plan.spec.hardware, given)
        assert found.algorithms["all_to_all"] == algorithm and found.links == given


def test_fitted_links_are_found_again() -> None:
    """From prices that links of a known latency and bandwidth give, whatever the spec says."""
    network = Network(np.arange(16), (2, 8), (1, 0))
    calls = [
        Call(kind, places, size, 1.0, 3)
        for kind in ("all_reduce", "all_gather")
        for places in (np.arange(8), np.arange(16), np.asarray([0, 8]))
        for size in (64.0, 1e5, 1e8)
    ]
    lines = np.asarray([line(call, "oneRing", network) for call in calls])
    true = (Link(40e9, 9e-6), Link(300e9, 3e-6))
    costs = np.asarray([9e-6, 3e-6, 1 / 40e9, 1 / 300e9])
    found = fitted(lines, lines @ costs, np.full(len(calls), 3.0), (Link(50e9, 6e-6), Link(450e9, 2e-6)))
    for a, b in zip(found, true, strict=True):
        assert a.latency_s == pytest.approx(b.latency_s, rel=1e-3)
        assert a.bandwidth_Bps == pytest.approx(b.bandwidth_Bps, rel=1e-3)


def test_uneven_nodes_leave_ranks_idle() -> None:
    _, ranks, _ = small("uneven nodes")
    assert ranks.network.shape == (2, 8)
    assert ranks.network.gpus.tolist() == [0, 8, 1, 9, 2, 10, 3, 11, 4, -1, 5, -1, 6, -1, 7, -1]
    assert small("one GPU")[1].network.shape == (2,)


def test_command_writes_all_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(PLANS["pipeline"])
    out = tmp_path / "out"
    assert main(["compile", str(spec), "--emit", "chakra", "-o", str(out)]) == 0
    folder = out / "p.prefill.chakra"
    names = {p.name for p in folder.iterdir()}
    assert names == {
        *(f"rank.{i}.et" for i in range(16)), "groups.json", "network.yml", "system.json", "system.roofline.json",
        "memory.json", "ranks.json",
    }  # fmt: skip
    about = json.loads((folder / "ranks.json").read_text())
    assert about["gpus"] == [gpu for pair in zip(range(8, 16), range(16, 24), strict=True) for gpu in pair]
    assert "p.prefill.chakra/rank " in about["command"] and 0 < about["steady_s"] <= about["pass_s"]
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "note").write_text("mine")
    assert main(["compile", str(spec), "--emit", "chakra", "-o", str(out)]) == 2
    assert "--force" in capsys.readouterr().err and (folder / "note").exists()
    assert main(["compile", str(spec), "--emit", "chakra", "-o", str(out), "--force"]) == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p for p in out.iterdir() if p.name.startswith(".")] == []
    assert main(["compile", str(spec), "--emit", "chakra", "-o", str(tmp_path / "empty")]) == 2
    assert "communicator groups" in capsys.readouterr().err


def test_one_rank_in_memory_at_a_time() -> None:
    """Ranks share one buffer: a view is the next rank's once that one is asked for."""
    ranks = Ranks(compiled("plan_b").phases["decode"])
    buffers = {data.obj.ctypes.data for _, data in traces(ranks.result, ranks)}  # type: ignore[attr-defined]
    assert len(buffers) == 1


@pytest.mark.parametrize(
    ("have", "got"),
    [
        (Sharding((("a", "b"), ())), Sharding((("b", "a"), ()))),
        (Sharding((("a",), ("b",))), Sharding((("b",), ("a",)))),
    ],
)
def test_a_permute_brings_each_rank_its_block(have: Sharding, got: Sharding) -> None:
    """Blocks of a 6 x 6 tensor on 3 x 3 ranks, moved as the peers say."""
    mesh = Mesh((("a", 3), ("b", 3)), {"tp": ("a", "b")}, {"tp": 9})
    before = Op("v", "scale", ("x",), ("m", "n"), "fp32", sharding=have)
    op = Op("p", "permute", ("v",), ("m", "n"), "fp32", axes=("a", "b"), sharding=got, attrs=MoveAttrs())
    segment = Segment("s", 1, "x", ("m", "n"), "fp32", (before, op), "p", (), {"m": 9, "n": 9})
    found = peers(segment, op, mesh)
    whole = np.arange(81).reshape(9, 9)

    def block(layout: Sharding, at: tuple[int, ...]) -> Any:
        where = dict(zip("ab", at, strict=True))
        parts = []
        for axes in layout.dims:
            index = 0
            for axis in axes:
                index = index * 3 + where[axis]
            step = 9 // 3 ** len(axes)
            parts.append(slice(index * step, (index + 1) * step))
        return whole[tuple(parts)]

    for at in np.ndindex(3, 3):
        source = found.source.get(at, at)
        assert np.array_equal(block(have, source), block(got, at))
        assert source == at or at in found.targets[source]
    assert sum(len(t) for t in found.targets.values()) == len(found.source) == 6
