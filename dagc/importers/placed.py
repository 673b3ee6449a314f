"""A placed graph as a file that can be compiled again: `dagc compile PLAN.PHASE.graph.json`.

Costs are worked out from `ir` (the textual IR) and `plan` (hardware, workload, phase and the model's sizes); `nodes` and
`edges` are what follows from them, for other programs to read. Reading checks that they belong together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isclose
from pathlib import Path
from typing import Any

import numpy as np

from ..base.collectives import REQUESTS, SCATTER
from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.files import MAX_GRAPH_BYTES, Reach, Unreadable, read_named
from ..base.frozen import replace
from ..base.plain_data import DataError, check_object, from_data
from ..ir.graph import Graph
from ..ir.mesh import GpuMap
from ..ir.text.read import parse_graph
from ..ir.text.scan import TextError
from ..ir.verify.verify import verify
from ..ir.verify.violation import VerifyError
from ..plan.graph_file import FIELDS, READ_SCHEMAS, SKIP
from ..plan.plan import CompiledPlan
from ..plan.result import PhaseResult
from ..spec.hardware import Hardware, PoolLink
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from ..spec.workload import Workload
from ..view.facts.every_rank import expand_ranks
from ..view.facts.unroll import Edge, Node, unroll
from .limits import check_ranges, check_together, hardware_of

KINDS = ("data", "stream", "transfer", "request")


def read_plan(path: Path, allow_import: Sequence[str | Path] = ()) -> CompiledPlan:
    """Compile a placed graph; `allow_import` as for a spec. Raises SpecError with E15 and the path of what is wrong."""
    import orjson

    try:
        data = orjson.loads(read_named(str(path), MAX_GRAPH_BYTES, allow_import))
    except Unreadable as error:
        raise _refused(path, f"cannot be read: {error}") from None
    except orjson.JSONDecodeError as error:
        raise _refused(path, f"is not JSON: {error}") from None
    try:
        return plan_of(data, Reach.of(path, allow_import))
    except DataError as error:
        raise _refused(path, str(error)) from None


def _refused(path: Path, reason: str) -> SpecError:
    return SpecError([Diagnostic("E15", f"`{path}` is not a placed graph that can be compiled", because=(reason,))])


def plan_of(data: Any, reach: Reach | None = None) -> CompiledPlan:
    """The plan of a file's object. Raises DataError, or SpecError when the plan itself is refused (memory)."""
    if not isinstance(data, dict):
        raise DataError("", "is not an object")
    if isinstance(data.get("schema"), bool) or data.get("schema") not in READ_SCHEMAS:
        known = " and ".join(map(str, READ_SCHEMAS))
        raise DataError("schema", f"is {data.get('schema')!r}; this dagc reads versions {known}")
    if "parts" in data:
        raise DataError("parts", "is of a training step, whose order of cells is not read")
    check_object(data, FIELDS, "")
    nodes, edges = listed(data)
    acyclic(nodes, edges)
    graph = graph_of(data["ir"])
    unit = unit_of(data["plan"], graph, reach or Reach.of(None))
    graph = on_nodes(graph, unit.spec.hardware)
    if data["phase"] != graph.phase:
        raise DataError("phase", f"is {data['phase']!r}, the IR is of {graph.phase!r}")
    check_together(unit, graph)
    result = costed(graph, unit)
    same_graph(result, data["nodes"], edges, data["ranks"], data["schema"])
    return finished(unit, result)


def listed(data: dict[str, Any]) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Ids of the nodes, and the edges between them; every field is known and every end exists. Raises DataError."""
    if data["ranks"] not in ("folded", "all"):
        raise DataError("ranks", "is neither `folded` nor `all`")
    for name in ("nodes", "edges", "ir"):
        if not isinstance(data[name], list):
            raise DataError(name, "is not a list")
    ids: dict[str, int] = {}
    for i, node in enumerate(data["nodes"]):
        name = check_object(node, Node.__slots__, f"nodes[{i}]")["id"]
        if not isinstance(name, str):
            raise DataError(f"nodes[{i}].id", "is not a string")
        if name in ids:
            raise DataError(f"nodes[{i}].id", f"{name!r} occurs there twice")
        ids[name] = i
    edges = []
    for i, edge in enumerate(data["edges"]):
        fields = check_object(edge, Edge.__slots__, f"edges[{i}]")
        for end in ("src", "dst"):
            if not isinstance(fields[end], str) or fields[end] not in ids:
                raise DataError(f"edges[{i}].{end}", f"{fields[end]!r} is not a node")
        if fields["kind"] not in KINDS:
            raise DataError(f"edges[{i}].kind", f"is not one of {', '.join(KINDS)}")
        edges.append((fields["src"], fields["dst"], fields["kind"]))
    twice = next((e for e, n in Counter(edges).items() if n > 1), None)
    if twice is not None:
        raise DataError("edges", f"{twice[0]} -> {twice[1]} ({twice[2]}) occurs there twice")
    return list(ids), edges


def acyclic(nodes: Iterable[str], edges: Iterable[tuple[str, str, str]]) -> None:
    """No node waits for itself. Raises DataError with the nodes of a cycle."""
    after: dict[str, list[str]] = {name: [] for name in nodes}
    waits = dict.fromkeys(after, 0)
    for source, target, _ in edges:
        after[source].append(target)
        waits[target] += 1
    ready = [name for name, count in waits.items() if not count]
    while ready:
        for target in after[ready.pop()]:
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    left = {name for name, count in waits.items() if count}
    if not left:
        return
    before: dict[str, str] = {}
    for source in left:
        before |= {target: source for target in after[source] if target in left}
    at = next(name for name in waits if name in left)
    seen: list[str] = []
    while at not in seen:
        seen.append(at)
        at = before[at]
    cycle = [at, *reversed(seen[seen.index(at) :])]
    shown = cycle if len(cycle) <= 8 else [*cycle[:4], "..", *cycle[-3:]]
    raise DataError("edges", f"a cycle: {' -> '.join(shown)}")


def graph_of(lines: list[Any]) -> Graph:
    """The graph of the textual IR, verified. Raises DataError."""
    if not all(isinstance(line, str) for line in lines):
        raise DataError("ir", "is not a list of lines")
    try:
        graph = parse_graph("\n".join(lines) + "\n")
        if graph.level != "placed":
            raise DataError("ir", f"is at level {graph.level!r}, not placed")
        ids = placement_ids(graph)
        if len(np.unique(ids)) != len(ids) or min(ids) < 0:
            raise DataError("ir", "a GPU id occurs twice")
        verify(graph)
        return graph
    except TextError as error:
        raise DataError("ir", str(error)) from None
    except VerifyError as error:
        raise DataError("ir", error.line) from None
    except (KeyError, IndexError, ValueError, AssertionError, AttributeError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("ir", f"is inconsistent: {type(error).__name__} {error}") from None


def placement_ids(graph: Graph) -> tuple[int, ...]:
    """Of all ranks. Raises ValueError where they are others than the mesh has."""
    mesh = graph.the_mesh
    assert mesh.ids.size == sum(len(stage.gpus) for stage in graph.stages)
    assert mesh.apart is None or mesh.expert_ids.size
    return mesh.all_gpus


def on_nodes(graph: Graph, hardware: Hardware) -> Graph:
    """The graph on the nodes of the file's hardware."""
    mesh, domains = graph.the_mesh, hardware.domains
    gpus = GpuMap(mesh.the_gpus.ids, domains[0], domains[1:], hardware.nics)
    apart = mesh.apart
    if apart is not None and not apart.linked:
        apart = replace(apart, gpus=replace(gpus, ids=apart.gpus.ids))
    return replace(graph, mesh=replace(mesh, gpus=gpus, apart=apart))


def unit_of(data: Any, graph: Graph, reach: Reach) -> Unit:
    """The compilation that the costing passes see. Raises DataError."""
    experts = data.get("experts") if isinstance(data, dict) else None
    parts = check_object(
        {k: v for k, v in data.items() if k != "experts"} if experts is not None else data,
        ("hardware", "model", "workload", "phase"), "plan",
    )  # fmt: skip
    gpus = tuple(sorted(graph.the_mesh.the_gpus.ids))
    hardware: Hardware = hardware_of(parts["hardware"], "plan.hardware")
    nothing: dict[str, Any] = {"blocks": {}, "checkpoint": {}}
    model: Model = from_data(Model, parts["model"], "plan.model", SKIP, nothing)
    workload: Workload = from_data(Workload, parts["workload"], "plan.workload", SKIP)
    check_ranges(hardware, "plan.hardware")
    _check_calibration(hardware, reach)
    check_ranges(workload, "plan.workload")
    phase: Phase = from_data(Phase, parts["phase"], "plan.phase", SKIP, {"gpus": gpus})
    check_ranges(phase, "plan.phase")
    kind = phase.graph_kind
    if (phase.name, kind) != (graph.phase, graph.kind):
        raise DataError("plan.phase", f"is {phase.name} ({kind}), the IR is that of {graph.phase} ({graph.kind})")
    spec = Spec(hardware, model, workload, (phase,), (), {}, {})
    apart, linked = phase.strategy.apart, graph.the_mesh.apart is not None and graph.the_mesh.apart.linked
    if (experts is not None) != linked or (apart is not None and bool(apart.hardware)) != linked:
        raise DataError("plan.experts", "says another pool of GPUs than the IR")
    if experts is not None and apart is not None:
        given = check_object(experts, ("hardware", "link"), "plan.experts")
        other: Hardware = hardware_of(given["hardware"], "plan.experts.hardware")
        check_ranges(other, "plan.experts.hardware")
        _check_calibration(other, reach)
        link = check_object(given["link"], ("bandwidth_Bps", "latency_s"), "plan.experts.link")
        pair = phase.hardware, apart.hardware
        between = PoolLink(pair, _positive(link, "bandwidth_Bps"), _positive(link, "latency_s"))
        spec = replace(spec, others=(replace(other, name=apart.hardware),), pool_links=(between,))
    return Unit(spec, phase, Collector())


def _positive(link: Mapping[str, Any], name: str) -> float:
    """A number of a link. Raises DataError."""
    value = link[name]
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= 1e15
        or (name == "bandwidth_Bps" and value < 1)
    ):
        raise DataError(f"plan.experts.link.{name}", "is not a number")
    return float(value)


def _check_calibration(hardware: Hardware, reach: Reach) -> None:
    """One of the library, or a file that may be read and is well formed."""
    from ..calib import CalibrationError, load

    if hardware.calibration is None:
        return
    try:
        if hardware.calibration.endswith(".json"):
            reach.find(hardware.calibration)
        load(hardware.calibration)
    except Unreadable as error:
        raise DataError("plan.hardware.calibration", "; ".join((str(error), *error.help))) from None
    except CalibrationError as error:
        raise DataError("plan.hardware.calibration", str(error)) from None


def costed(graph: Graph, unit: Unit) -> PhaseResult:
    from ..pipeline.analyse import cost_graph

    try:
        return cost_graph(graph, unit)
    except SpecError:
        raise
    except (ArithmeticError, ValueError, KeyError, IndexError, AssertionError, AttributeError, TypeError) as error:
        raise DataError("plan", f"cannot be costed: {type(error).__name__} {error}") from None


RESULTS = ("start_s", "time_s")
"""Fields of a node that follow from costs: any time will do."""


def same_graph(
    result: PhaseResult, given: list[dict[str, Any]], edges: list[tuple[str, str, str]], ranks: str, version: int
) -> None:
    """Nodes and edges are those of the IR, but for times. Raises DataError."""
    items = unroll(result) if version > 2 else _version_2(result.graph, unroll(result))
    nodes = [node["id"] for node in given]
    want_nodes: dict[str, Node] = {}
    want_edges: set[tuple[str, str, str]] = set()
    for item in expand_ranks(result, items) if ranks == "all" else items:
        if isinstance(item, Node):
            want_nodes[item.id] = item
        else:
            want_edges.add((item.src, item.dst, item.kind))
    for i, name in enumerate(nodes):
        if name not in want_nodes:
            raise DataError(f"nodes[{i}].id", f"{name!r} is not in the IR")
        for field in Node.__slots__:
            value = given[i][field]
            if field in RESULTS:
                least = -inf if (field, given[i]["kind"]) == ("start_s", SCATTER.name) else 0.0
                if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
                    raise DataError(f"nodes[{i}].{field}", f"is {value!r}, not a time")
            elif not _same(value, getattr(want_nodes[name], field)):
                raise DataError(f"nodes[{i}].{field}", f"is {value!r}, which does not follow from ir and plan")
    for name in sorted(want_nodes.keys() - set(nodes)):
        raise DataError("nodes", f"{name!r} of the IR is missing")
    for i, edge in enumerate(edges):
        if edge not in want_edges:
            raise DataError(f"edges[{i}]", f"{edge[0]} -> {edge[1]} ({edge[2]}) is not in the IR")
    for edge in sorted(want_edges - set(edges)):
        raise DataError("edges", f"{edge[0]} -> {edge[1]} ({edge[2]}) of the IR is missing")


def _version_2(graph: Graph, items: Iterable[Node | Edge]) -> Iterator[Node | Edge]:
    """As version 2 had them: without requests, and with layers numbered within their stage, the embedding and the head too."""
    old: dict[str, str] = {}
    for stage in graph.stages:
        names = (name for name, count in stage.layers for _ in range(count))
        for place, name in enumerate(names):
            layer = graph.layer_name(name, graph.first_layer(stage.index) + place)
            old[layer] = f"{name}.{place}"
    ids: dict[str, str] = {}
    for item in items:
        if item.kind in (*REQUESTS, "request"):
            continue
        if isinstance(item, Edge):
            yield replace(item, src=ids[item.src], dst=ids[item.dst])
            continue
        ids[item.id] = item.id
        if item.layer:
            cell, _, op = item.id.partition("/")
            before = cell.removesuffix(f".{item.layer}")
            ids[item.id] = f"{before}.{old[item.layer]}/{op}"
            lane = before.split(".")[2:]  # which version 2 had in the layer's name too
            item = replace(item, layer=".".join((*lane, old[item.layer])))
        yield replace(item, id=ids[item.id])


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        return isinstance(found, int | float) and isclose(found, wanted, rel_tol=1e-9)
    return bool(found == (list(wanted) if isinstance(wanted, tuple) else wanted))


def finished(unit: Unit, result: PhaseResult) -> CompiledPlan:
    from ..pipeline import overflow, pools
    from ..pipeline.parameters import count_parameters

    if unit.phase.drafter != "none":
        unit.out.add(
            "W06",
            f"what drafts the tokens of `{unit.phase.name}` is not counted: the file has the step that checks them",
        )
    overflow.check(result.memory, unit)
    unit.out.check()
    name = unit.phase.name
    found = pools.run({name: result})
    return CompiledPlan(
        unit.spec, {name: result}, {name: unit}, (), count_parameters(result.graph), found, tuple(unit.out.items)
    )
