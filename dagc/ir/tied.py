"""A head that uses the embedding's table: which weight that is."""

from __future__ import annotations

from .graph import Graph, Segment, Weight


def tied_head(graph: Graph) -> tuple[Segment, Weight] | None:
    """The head's weight that is the table the first segment looks tokens up in."""
    table = next((op.inputs[1] for op in graph.segments[0].ops if op.kind == "lookup"), None)
    if table is None:
        return None
    dims = set(graph.segments[0].dims_of(table))
    head = graph.segments[-1]
    return next(((head, w) for w in head.weights if set(w.dims) == dims), None)
