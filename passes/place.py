"""place: write GPU ids onto the stages; from here on the graph is the same op for all its ranks."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass


@record
class Place(GraphPass):
    """GPU ids of the mesh on every stage."""

    name: ClassVar[str] = "place"
    levels: ClassVar[tuple[str, ...]] = ("sharded",)

    def run(self, graph: Graph) -> Graph:
        ids = graph.the_mesh.ids
        stages = tuple(replace(s, gpus=tuple(ids[s.index].ravel().tolist())) for s in graph.stages)
        return replace(graph, stages=stages, level="placed")
