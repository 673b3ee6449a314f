"""pp: give each pipeline stage its layers, in order."""

from __future__ import annotations

from dataclasses import replace

from dagc.ir.graph import Graph, Stage, runs
from dagc.spec.unit import Unit

ABOUT = "split the stack of layers over pipeline stages"


def run(graph: Graph, unit: Unit) -> Graph:
    strategy = unit.phase.strategy
    (whole,) = graph.stages
    body = [name for name, count in whole.layers for _ in range(count)][1:-1]
    sizes = strategy.layers_per_stage or (len(body) // strategy.pp,) * strategy.pp
    if sum(sizes) != len(body) or len(sizes) != strategy.pp:
        unit.stop("E03", f"{len(body)} layers do not divide over {strategy.pp} stages", at="pp")
    stages = []
    start = 0
    for index, size in enumerate(sizes):
        names = body[start : start + size]
        if index == 0:
            names = [graph.segments[0].name, *names]
        if index == strategy.pp - 1:
            names = [*names, graph.segments[-1].name]
        stages.append(Stage(index, runs(names)))
        start += size
    return replace(graph, stages=tuple(stages), level="annotated", _index={})
