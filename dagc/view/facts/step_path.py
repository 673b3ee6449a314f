"""The longest path of a training step: the cells, sends and new weights that its time is made of, by stage."""

from __future__ import annotations

from graphlib import TopologicalSorter

from ...base.frozen import record
from ...plan.trained import TrainingResult
from .step_graph import check_cells, step_graph
from .unroll import Node


@record
class PathPart:
    """All nodes of one kind that the path has on a stage: a cell, `send` or `update`."""

    stage: int
    kind: str
    count: int
    time_s: float


def longest_path(result: TrainingResult) -> list[Node]:
    """From the first cell to new weights, or to the last cell where nothing is made anew. Raises SpecError with E05."""
    check_cells(result, "folded")
    nodes: dict[str, Node] = {}
    before: dict[str, list[str]] = {}
    for item in step_graph(result):
        if isinstance(item, Node):
            nodes[item.id], before[item.id] = item, []
        else:
            before[item.dst].append(item.src)
    ends: dict[str, float] = {}
    for name in TopologicalSorter(before).static_order():
        ends[name] = nodes[name].time_s + max((ends[one] for one in before[name]), default=0.0)
    path = [max(ends, key=ends.__getitem__)]
    while before[path[-1]]:
        path.append(max(before[path[-1]], key=ends.__getitem__))
    return [nodes[name] for name in reversed(path)]


def path_parts(result: TrainingResult) -> tuple[PathPart, ...]:
    """The path, all of a kind on a stage added up, in the order in which they first come."""
    found: dict[tuple[int, str], tuple[int, float]] = {}
    for node in longest_path(result):
        count, time_s = found.get((node.stage, node.kind), (0, 0.0))
        found[node.stage, node.kind] = count + 1, time_s + node.time_s
    return tuple(PathPart(*key, *value) for key, value in found.items())
