"""place: write GPU ids onto the stages; from here on the graph is the same op for all its ranks."""

from __future__ import annotations

from dataclasses import replace

from dagc.ir.graph import Graph
from dagc.spec.unit import Unit

ABOUT = "place every stage on its GPU ids"


def run(graph: Graph, unit: Unit) -> Graph:
    ids = graph.the_mesh.ids
    stages = tuple(replace(s, gpus=tuple(ids[s.index].ravel().tolist())) for s in graph.stages)
    return replace(graph, stages=stages, level="placed", _index={})
