"""pp: give each pipeline stage its layers, in order."""

from __future__ import annotations

from dataclasses import replace

from dagc.ir.graph import Graph, Stage
from dagc.ir.unit import Unit

ABOUT = "split the stack of layers over pipeline stages"


def run(graph: Graph, unit: Unit) -> Graph:
    strategy = unit.phase.strategy
    body = [name for s in graph.segments[1:-1] for name in [s.name] * s.repeat]
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
        stages.append(Stage(index, _fold(names)))
        start += size
    return replace(graph, stages=tuple(stages), level="annotated", _index={})


def _fold(names: list[str]) -> tuple[tuple[str, int], ...]:
    """Runs of alike layers: [a, a, b] -> ((a, 2), (b, 1))."""
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return tuple(runs)
