"""Placed graphs for other programs, and back: networkx, node-link JSON, GraphML, and the file that compiles again."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import networkx as nx
import orjson
import pytest
from conftest import ROOT, few_examples, spec_text
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.plain_data import DataError
from dagc.cli import main
from dagc.export import chrome
from dagc.export.interchange import from_graphml, from_node_link, graphml, node_link, rustworkx
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of
from dagc.view.facts.lanes.steps import Program
from dagc.view.facts.unroll import counts

SCHEMA = json.loads((ROOT / "dagc" / "export" / "graph.schema.json").read_text())
PHASE = "gpus = 0..7, pp = 2, ep = 2, tp = 2, microbatches = 2, overlap = two_batch"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def small() -> Plan:
    return dagc.compile_text(spec_text(phase=PHASE))


@pytest.fixture(scope="module")
def written(small: Plan) -> bytes:
    return dumps(graph_object(small, "prefill"))


def same(a: nx.MultiDiGraph, b: nx.MultiDiGraph) -> bool:
    return bool(
        a.graph == b.graph
        and dict(a.nodes(data=True)) == dict(b.nodes(data=True))
        and sorted(a.edges(keys=True, data=True), key=str) == sorted(b.edges(keys=True, data=True), key=str)
    )


@pytest.mark.parametrize("ranks", spread(["folded", "all"]))
def test_networkx_round_trips(small: Plan, ranks: str) -> None:
    graph = small.to_networkx("prefill", ranks=ranks)
    nodes, edges = counts(small.phases["prefill"])
    times = 4 if ranks == "all" else 1  # ranks of a stage
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (nodes * times, edges * times)
    assert nx.is_directed_acyclic_graph(graph)
    data = node_link(graph)
    assert same(graph, from_node_link(data))
    assert same(graph, nx.node_link_graph(json.loads(data), edges="edges"))
    assert same(graph, from_graphml(graphml(graph)))


@pytest.mark.parametrize("ranks", ["folded", "all"])
def test_rustworkx_reads_its_dialect(small: Plan, ranks: str) -> None:
    rx = pytest.importorskip("rustworkx", reason="pip install -e '.[test]'")
    graph = small.to_networkx("prefill", ranks=ranks)
    found = rx.parse_node_link_json(rustworkx(graph).decode())
    assert found.attrs == {key: str(value) for key, value in graph.graph.items()}
    names = [node["name"] for node in found.nodes()]
    assert names == list(graph)
    for node in found.nodes():
        fields = graph.nodes[node["name"]]
        assert (float(node["time_s"]), json.loads(node["gpus"])) == (fields["time_s"], fields["gpus"])
    edges = {(names[a], names[b], data["kind"], float(data["bytes"])) for a, b, data in found.weighted_edge_list()}
    assert edges == {(a, b, key, size) for a, b, key, size in graph.edges(keys=True, data="bytes")}
    assert rx.is_directed_acyclic_graph(found)


def test_graphml_has_typed_attributes(small: Plan) -> None:
    """Any GraphML reader gets numbers as numbers."""
    graph = small.to_networkx("prefill")
    found = nx.parse_graphml(graphml(graph).decode(), force_multigraph=True)
    fields = next(iter(found.nodes.values()))
    assert isinstance(fields["time_s"], float) and isinstance(fields["stage"], int)
    assert json.loads(fields["gpus"]) == [0, 1, 2, 3]
    assert all(fields["name"] == name and fields["label"] == fields["op"] for name, fields in found.nodes.items())


def test_layers_are_counted_over_the_model(small: Plan) -> None:
    """Equal numbers in graphs, timelines and pictures, with the ends by their names."""
    result = small.phases["prefill"]
    nodes = {name: fields["layer"] for name, fields in small.to_networkx("prefill").nodes(data=True)}
    layers = [f"sparse.{i}" for i in range(sum(s.repeat for s in result.graph.body))]
    assert list(dict.fromkeys(filter(None, nodes.values()))) == ["embed", *layers, "lm_head"]
    found = json.loads(b"".join(chrome.trace(small, "prefill")))["traceEvents"]
    slices = {e["args"]["layer"] for e in found if e["ph"] == "X" and "layer" in e["args"]}
    assert slices <= set(nodes.values()) and {"embed", layers[-1]} <= slices
    program = Program(result)
    boxes = {program.id(p, s, 0).rpartition("@")[0] for p in program.parts for s in program.steps(p)}
    assert boxes <= set(nodes) and any(f".{layers[-1]}/" in name for name in boxes)


def test_a_graph_of_version_2_is_read(small: Plan, written: bytes) -> None:
    """It counted layers within their stage, had the lane in a layer's name, and had no requests."""
    assert small.phases["prefill"].graph.stages[1].layers == (("sparse", 2), ("lm_head", 1))
    text = re.sub(rb"s(\d)\.m(\d)\.(a|b)\.(\w+)(?:\.(\d+))?/", _of_version_2, written)
    data = orjson.loads(text) | {"schema": 2}
    assert any(node["stream"] == "host" for node in data["nodes"])
    data["nodes"] = [node for node in data["nodes"] if node["stream"] != "host"]
    data["edges"] = [edge for edge in data["edges"] if edge["kind"] != "request"]
    for node in data["nodes"]:
        if node["layer"]:
            node["layer"] = node["id"].partition("/")[0].split(".", 2)[2]
    assert any(node["layer"] == "b.lm_head.2" for node in data["nodes"])
    assert plan_of(data).phases["prefill"].time_s == small.phases["prefill"].time_s
    with pytest.raises(DataError, match="is not in the IR"):
        plan_of(data | {"schema": 3})


def _of_version_2(found: re.Match[bytes]) -> bytes:
    stage, microbatch, lane, name, number = found.groups()
    place = {b"embed": 0, b"lm_head": 2}.get(name)
    if place is None:
        place = int(number) + 1 if stage == b"0" else int(number) - 2
    return b"s%s.m%s.%s.%s.%d/" % (stage, microbatch, lane, name, place)


def phase_figures(plan: Plan, phase: str) -> Any:
    """Without what other phases leave: a placed graph is of one phase, on the GPUs of its pool alone; nor how its GPUs were found, nor of which
    layouts it was chosen."""
    found = orjson.loads(dumps(plan.to_json()))["phases"][phase]
    found.pop("placement", None)
    found.pop("alternative", None)
    found.pop("hardware", None)
    for held in (found["memory"], *found["memory"]["stages"]):
        for name in ("shared_peak_B", "kv_tokens", "kv_tokens_per_dp_rank"):
            held.pop(name, None)
    return found


@few_examples
def test_examples_compile_again_to_the_same_cost(example: Plan) -> None:
    for phase in example.phases:
        data = dumps(graph_object(example, phase))
        again = Plan.of(plan_of(orjson.loads(data)))
        assert again.phases[phase].graph == example.phases[phase].graph
        # Of a phase with alternatives the file has the one that it is of.
        assert phase_figures(again, phase) == {
            k: v for k, v in phase_figures(example, phase).items() if k != "alternative"
        }
        assert again.params == example.params
        assert dumps(graph_object(again, phase)) == data


def test_schema_holds(written: bytes, small: Plan) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(orjson.loads(written), SCHEMA)
    expanded = dumps(graph_object(small, "prefill", ranks="all"))
    jsonschema.validate(orjson.loads(expanded), SCHEMA)
    assert plan_of(orjson.loads(expanded)).phases["prefill"].time_s == small.phases["prefill"].time_s
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**orjson.loads(written), "schema": 1}, SCHEMA)


def change(data: Any, path: str, value: Any) -> None:
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    for key in parents:
        data = data[key]
    if isinstance(data, list) and last == len(data):
        data.append(value)
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schema", 1, "schema: is 1; this dagc reads versions 2 and 3"),
        ("extra", 1, "extra: is not one of its fields"),
        ("ranks", "some", "ranks: is neither"),
        ("nodes/3/flopz", 1.0, "nodes[3].flopz: is not one of its fields; did you mean `flops`?"),
        ("nodes/3/id", "nobody", "is not a node"),
        ("nodes/3/id", [], "nodes[3].id: is not a string"),
        ("edges/2/src", [], "edges[2].src: [] is not a node"),
        ("edges/2/kind", [], "edges[2].kind: is not one of"),
        ("edges/2/weight", 1.0, "edges[2].weight: is not one of its fields"),
        ("edges/2/src", "nobody", "edges[2].src: 'nobody' is not a node"),
        ("edges/2/kind", "love", "edges[2].kind: is not one of"),
        ("plan/hardware/gpuz", 8, "plan.hardware.gpuz: is not one of its fields; did you mean `gpus`?"),
        ("plan/hardware/gpus", "8", "plan.hardware.gpus: is not a int"),
        ("plan/phase/strategy/tp", True, "plan.phase.strategy.tp: is not a int"),
        ("plan/hardware/node", None, "plan.hardware.node: is not an object"),
        ("plan/phase/name", "decode", "plan.phase: is decode"),
        ("phase", "decode", "phase: is 'decode'"),
        ("ir/0", "graf", "ir: line 1"),
        ("ir/1", "", "ir: "),
        ("ir/0", 7, "ir: is not a list of lines"),
        ("nodes", {}, "nodes: is not a list"),
        ("nodes/0/gpus", [99], "nodes[0].gpus: is [99], which does not follow"),
        ("nodes/0/kind", "zzz", "nodes[0].kind: is 'zzz'"),
        ("nodes/3/flops", 1.5, "nodes[3].flops: is 1.5"),
        ("nodes/3/stage", 77, "nodes[3].stage: is 77"),
        ("nodes/3/layer", "zzz", "nodes[3].layer: is 'zzz'"),
        ("nodes/0/time_s", "x", "nodes[0].time_s: is 'x', not a time"),
        ("nodes/0/time_s", -1.0, "nodes[0].time_s: is -1.0, not a time"),
        ("plan/hardware/gpus", 4, "plan.hardware.gpus: is 4, and the IR has GPU 7"),
        ("plan/hardware/gpus", -1, "plan.hardware.gpus: is -1, not at least 1"),
        ("plan/hardware/per_node", 0, "plan.hardware.per_node: is 0"),
        ("plan/hardware/mfu", -1.0, "plan.hardware.mfu: is -1.0, not more than 1e-06"),
        ("plan/hardware/mfu", 5, "plan.hardware.mfu: is 5"),
        ("plan/hardware/node/bandwidth_Bps", 0.0, "plan.hardware.node.bandwidth_Bps: is 0.0"),
        ("plan/hardware/compute_flops/default", 0.0, "plan.hardware.compute_flops.default: is 0.0"),
        ("plan/workload/sequences", 0, "plan.workload.sequences: is 0"),
        ("plan/workload/prompt", -4, "plan.workload.prompt: is -4"),
        ("plan/phase/context", -1, "plan.phase.context: is -1"),
        ("plan/phase/context", 1000, "plan.phase.context: is 1000, and embed has context 256"),
        ("plan/phase/strategy/layers_per_stage", [3], "plan.phase.strategy.layers_per_stage: is not"),
        ("plan/workload/routing/kind", "nope", "plan.workload.routing.kind: is 'nope'"),
        ("plan/workload/routing/s", -1e300, "plan.workload.routing.s: is -1e+300"),
        ("plan/phase/sequences", 65, "batch"),
        ("plan/phase/tokens", 3, "tokens"),
        ("plan/model/stack", [], "plan.model.stack: is not the order"),
        ("plan/model/dtype", "int3", "plan.model.dtype: 'int3' is not one of"),
        ("plan/phase/strategy/tp", 0, "plan.phase.strategy.tp: is 0"),
        ("plan/phase/strategy/tp", 10**12, "plan.phase.strategy.tp: is 1000000000000"),
        ("plan/phase/strategy/tp", 4, "plan.phase.strategy: has tp 4, and the mesh of the IR 2"),
        ("plan/phase/strategy/order", [], "plan.phase.strategy.order: does not name"),
        ("plan/phase/window_cache", "some", "plan.phase.window_cache: 'some' is not one of freed, whole"),
        ("plan/phase/kv_block", 0, "plan.phase.kv_block: is 0"),
        ("plan/phase/memory/fraction", 0.0, "plan.phase.memory.fraction: is 0.0"),
        ("plan/phase/memory/of", "it", "plan.phase.memory.of: 'it' is not one of all, static, free"),
        ("plan/phase/memory/graphs_B", -1.0, "plan.phase.memory.graphs_B: is -1.0"),
        ("plan/phase/memory/padding_B", -1.0, "plan.phase.memory.padding_B: is -1.0"),
        ("plan/phase/memory/tiles", [["mxfp4", 0, 128]], "plan.phase.memory.tiles: has a multiple below 1"),
        ("plan/phase/strategy/microbatches", 7, "plan.phase.strategy.microbatches: is 7"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(written: bytes, path: str, value: Any, said: str) -> None:
    data = orjson.loads(written)
    change(data, path, value)
    with pytest.raises(DataError) as error:
        plan_of(data)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lanes=2", "lanes=7", "ir: has 7 lanes"),
        ("gpus 0..3", "gpus 0..7000000000", "ir: line 3: GPU 7000000000 is beyond 1,000,000"),
        ("sparse x 2 }", "sparse x 1000000000 }", "ir: line 3: a stage of more than 1,000,000 layers"),
    ],
)
def test_sizes_of_the_ir_are_bounded(written: bytes, old: str, new: str, said: str) -> None:
    data = orjson.loads(written)
    lines = "\n".join(data["ir"])
    assert old in lines
    data["ir"] = lines.replace(old, new, 1).split("\n")
    with pytest.raises(DataError) as error:
        plan_of(data)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "a b", "a\n"])
def test_a_phase_name_is_no_path(written: bytes, name: str) -> None:
    data = orjson.loads(written)
    data["plan"]["phase"]["name"] = data["phase"] = name
    for node in data["nodes"]:
        node["phase"] = name
    data["ir"][0] = data["ir"][0].replace("prefill", name, 1)
    with pytest.raises(DataError):
        plan_of(data)


def test_cycles_are_named(written: bytes) -> None:
    data = orjson.loads(written)
    first = data["edges"][0]
    data["edges"].append({"src": first["dst"], "dst": first["src"], "kind": "data", "bytes": 0.0})
    with pytest.raises(DataError, match="edges: a cycle: ") as error:
        plan_of(data)
    named = error.value.reason.removeprefix("a cycle: ").split(" -> ")
    assert named[0] == named[-1] and {first["src"], first["dst"]} <= set(named)


def test_a_cycle_in_the_ir_is_refused(written: bytes) -> None:
    data = orjson.loads(written)
    at = next(i for i, line in enumerate(data["ir"]) if line.startswith("  %"))
    name = data["ir"][at].split()[0]
    data["ir"][at] = data["ir"][at].replace("(", f"({name}, ", 1)
    with pytest.raises(DataError, match=f"ir: .*uses {name} before"):
        plan_of(data)


def test_nodes_and_edges_belong_to_the_ir(written: bytes) -> None:
    whole = orjson.loads(written)
    lost = copy.deepcopy(whole)
    gone = lost["edges"].pop()
    with pytest.raises(DataError, match="of the IR is missing"):
        plan_of(lost)
    more = copy.deepcopy(whole)
    more["edges"].append({**gone, "src": whole["nodes"][0]["id"], "kind": "transfer"})
    with pytest.raises(DataError, match=r"edges\[\d+\]: .* is not in the IR"):
        plan_of(more)


@pytest.mark.parametrize("garbage", ["[]", "3", "{}", '{"schema": 2}', "{", '{"schema": [2]}'])
def test_garbage_is_refused(tmp_path: Path, capsys: Capture, garbage: str) -> None:
    path = tmp_path / "g.json"
    path.write_text(garbage)
    assert main(["compile", str(path)]) == 2
    err = capsys.readouterr().err
    assert "error[E15]" in err and "internal" not in err


def test_command(tmp_path: Path, capsys: Capture) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase=PHASE))
    out = tmp_path / "out"
    assert main(["compile", str(spec), "--emit", "json,graphml,nodelink", "-o", str(out)]) == 0
    file = out / "p.prefill.graph.json"
    assert {p.name for p in out.iterdir()} == {
        "p.txt", "p.json", "p.prefill.graph.json", "p.prefill.graphml", "p.prefill.nodelink.json",
    }  # fmt: skip
    capsys.readouterr()
    assert main(["compile", str(file), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["phases"] == json.loads((out / "p.json").read_text())["phases"]
    assert main(["compile", str(file), "--emit", "json", "-o", str(tmp_path / "second")]) == 0
    assert (tmp_path / "second" / "p.prefill.prefill.graph.json").read_bytes() == file.read_bytes()
    assert main(["compile", str(file), "--set", "a=1"]) == 2
    assert main(["compile", str(file), "--phase", "decode"]) == 2
    assert main(["compile", str(tmp_path / "none.graph.json")]) == 2
