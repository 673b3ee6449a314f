"""The placed graph for other programs: a networkx graph, node-link JSON (of networkx and of rustworkx) and GraphML, and back.

Nodes and edges carry the fields of `dagc.view.facts.unroll`; an edge's key is its kind, as a value and the order of a stream may
join the same two nodes. Lists (`gpus`, `group`) are JSON text in GraphML, which has none.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..plan.graph_file import GRAPH_SCHEMA
from ..plan.plan import CompiledPlan
from ..view.facts.every_rank import expand_ranks, expanded
from ..view.facts.size import check_size
from ..view.facts.step_graph import check_cells, step_graph
from ..view.facts.unroll import Edge, Node, unroll
from .json import dumps

if TYPE_CHECKING:
    import networkx as nx

LISTS = ("gpus", "group")


def to_networkx(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> nx.MultiDiGraph[str]:
    """`ranks="all"` has a node for each rank. Of a phase that trains the cells of a step."""
    import networkx as nx

    graph = nx.MultiDiGraph(schema=GRAPH_SCHEMA, phase=phase, ranks=ranks)
    for item in _items(plan, phase, ranks):
        fields = {name: getattr(item, name) for name in item.__slots__}
        if isinstance(item, Node):
            del fields["id"]
            graph.add_node(item.id, **fields | {name: list(fields[name]) for name in LISTS})
        else:
            graph.add_edge(item.src, item.dst, key=item.kind, bytes=item.bytes)
    return graph


def _items(plan: CompiledPlan, phase: str, ranks: str) -> Iterator[Node | Edge]:
    if phase in plan.trainings:
        check_cells(plan.trainings[phase], ranks)
        cells = step_graph(plan.trainings[phase])
        return expanded(cells, {}) if ranks == "all" else cells
    check_size(plan.phases[phase], "the graph")
    items = unroll(plan.phases[phase])
    return expand_ranks(plan.phases[phase], items) if ranks == "all" else items


def node_link_file(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, bytes]:
    return {"nodelink.json": node_link(to_networkx(plan, phase, ranks=ranks))}


def rustworkx_file(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, bytes]:
    return {"rustworkx.json": rustworkx(to_networkx(plan, phase, ranks=ranks))}


def graphml_file(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, bytes]:
    return {"graphml": graphml(to_networkx(plan, phase, ranks=ranks))}


def node_link(graph: nx.MultiDiGraph[str]) -> bytes:
    """The JSON that `networkx.node_link_graph(data, edges="edges")` reads."""
    nodes = [{"id": name, **fields} for name, fields in graph.nodes(data=True)]
    edges = [
        {"source": a, "target": b, "key": key, **fields} for a, b, key, fields in graph.edges(keys=True, data=True)
    ]
    return dumps({"directed": True, "multigraph": True, "graph": graph.graph, "nodes": nodes, "edges": edges})


def rustworkx(graph: nx.MultiDiGraph[str]) -> bytes:
    """The JSON that `rustworkx.parse_node_link_json` reads: ends by number, and all values as text, lists as JSON."""
    index = {name: i for i, name in enumerate(graph)}
    nodes = [{"id": index[name], "data": _texts({"name": name, **fields})} for name, fields in graph.nodes(data=True)]
    links = [
        {"source": index[a], "target": index[b], "id": i, "data": _texts({"kind": key, **fields})}
        for i, (a, b, key, fields) in enumerate(graph.edges(keys=True, data=True))
    ]
    about = {"directed": True, "multigraph": True, "attrs": _texts(graph.graph)}
    return dumps({**about, "nodes": nodes, "links": links})


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else dumps(value).decode().strip() for key, value in fields.items()}


def from_node_link(data: bytes) -> nx.MultiDiGraph[str]:
    import networkx as nx
    import orjson

    found: dict[str, Any] = orjson.loads(data)
    graph = nx.MultiDiGraph(**found["graph"])
    for node in found["nodes"]:
        graph.add_node(node.pop("id"), **node)
    for edge in found["edges"]:
        graph.add_edge(edge.pop("source"), edge.pop("target"), key=edge.pop("key"), **edge)
    return graph


def graphml(graph: nx.MultiDiGraph[str]) -> bytes:
    import networkx as nx

    flat = nx.MultiDiGraph(**graph.graph)
    for name, fields in graph.nodes(data=True):
        lists = {key: dumps(fields[key]).decode().strip() for key in LISTS}
        # viewers show what is called `label`, libraries find by `name`
        flat.add_node(name, name=name, label=fields["op"], **fields | lists)
    flat.add_edges_from(graph.edges(keys=True, data=True))
    out = io.BytesIO()
    nx.write_graphml_xml(flat, out)
    return out.getvalue().rstrip() + b"\n"


def from_graphml(data: bytes) -> nx.MultiDiGraph[str]:
    import networkx as nx
    import orjson

    graph = nx.read_graphml(io.BytesIO(data), force_multigraph=True)
    for default in ("node_default", "edge_default"):
        graph.graph.pop(default, None)
    for _, fields in graph.nodes(data=True):
        fields |= {key: orjson.loads(fields[key]) for key in LISTS}
        del fields["label"], fields["name"]
    for _, _, fields in graph.edges(data=True):
        fields.pop("id", None)  # GraphML's own name of the edge, which is its key too
    return graph
