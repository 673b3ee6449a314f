"""pp: give each pipeline stage its layers, in order."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph, Stage, runs
from dagc.ir.graph_pass import GraphPass, PassError


@record
class PipelineParallel(GraphPass):
    """The stack of layers cut into the stages of the mesh. `layers`: how many transformer layers each has; none: equally many."""

    name: ClassVar[str] = "pp"
    layers: tuple[int, ...] = ()

    def run(self, graph: Graph) -> Graph:
        stages = graph.the_mesh.stages
        if len(graph.stages) != 1:
            raise PassError(f"the layers are on {len(graph.stages)} stages already", at="pp")
        (whole,) = graph.stages
        body = [name for name, count in whole.layers for _ in range(count)][1:-1]
        sizes = self.layers or (len(body) // stages,) * stages
        if sum(sizes) != len(body) or len(sizes) != stages:
            raise PassError(f"{len(body)} layers do not divide over {stages} stages", at="pp")
        cut = []
        start = 0
        for index, size in enumerate(sizes):
            names = body[start : start + size]
            if index == 0:
                names = [graph.embedding.name, *names]
            if index == stages - 1:
                names = [*names, graph.head.name]
            cut.append(Stage(index, runs(names)))
            start += size
        self.complete(graph, cut)
        return replace(graph, stages=tuple(cut), level="annotated")

    def complete(self, graph: Graph, stages: list[Stage]) -> None:
        """Raises PassError where a layer takes what one of another stage hands on: between stages goes the residual stream alone."""
        if not any(segment.taken for segment in graph.segments):
            return
        for stage in stages:
            there: set[str] = set()
            for name, _ in stage.layers:
                segment = graph.segment(name)
                if missing := [one.name for one in segment.taken if one.name not in there]:
                    raise PassError(
                        f"stage {stage.index} has layers `{name}` that take `{missing[0]}` from a layer of the stage before", at="pp",
                        help=(f"cut the stack before a layer that computes `{missing[0]}`: `layers_per_stage = [...]`",),
                    )  # fmt: skip
                there |= {given for given, _ in segment.handed}
