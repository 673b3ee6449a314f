"""Running passes on a graph, with observers looking on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass, PassError
from ..passes import GRAPH_PASSES
from .observers import Observer


class LevelError(PassError):
    """A pass is asked to take a graph at a level that it does not take."""


def run(passes: Sequence[GraphPass], graph: Graph, observers: Sequence[Observer] = ()) -> Iterator[tuple[str, Graph]]:
    """Each pass in turn, yielding its name and the graph after it. Raises PassError where a pass cannot go on, or does not
    take graphs of this level."""
    for one in passes:
        if one.levels and graph.level not in one.levels:
            levels = " or ".join(one.levels)
            raise LevelError(f"the pass `{one.name}` takes a graph at level {levels}, this one is at {graph.level}")
        for observer in observers:
            observer.before(one, graph)
        graph = one.run(graph) if type(one) in GRAPH_PASSES else _foreign(one, graph)
        for observer in observers:
            observer.after(one, graph)
        yield one.name, graph


def _foreign(one: GraphPass, graph: Graph) -> Graph:
    from .plugins import guarded  # which reads entry points

    return guarded(one, graph)
