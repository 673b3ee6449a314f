"""pp: give each pipeline stage its layers, in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph, Stage, runs
from dagc.ir.graph_pass import Doubt, GraphPass, PassError
from dagc.ir.handed_on import crossing


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
        return replace(graph, stages=tuple(cut), level="annotated")

    def doubts(self, graph: Graph) -> Iterator[Doubt]:
        """Caches that go from stage to stage anew with every pass."""
        for stage in graph.stages[1:]:
            caches = {name: made for name, made in crossing(graph, stage.index).items() if made.is_cache}
            for name, made in islice(caches.items(), 1):
                given = " and ".join(f"`{name}`" for name in caches)
                yield Doubt(
                    made.segment.name, made.segment.by_name[made.value].name,
                    f"stage {stage.index} takes {given} of the stage before: what caches hold goes there whole, anew in every pass",
                    help=(f"cut the stack before a layer that computes `{name}`: `layers_per_stage = [...]`",),
                )  # fmt: skip
