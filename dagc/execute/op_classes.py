"""Classes of ops in tables of measured times: by what they do, collectives by kind."""

from __future__ import annotations

from ..plan.result import PhaseResult

CLASSES = {"contract": "matmul", "attend": "attention", "route": "routing", "dispatch": "routing", "combine": "routing"}
MEMORY = ("rms_norm", "layer_norm", "row_sum", "row_square_sum", "lookup", "argmax", "cache")


def class_of(result: PhaseResult, segment: str, name: str) -> str:
    """Of an op of a segment; outside of layers, where `segment` is empty, the name itself: `send`."""
    if not segment:
        return name
    op = result.graph.segment(segment).by_name[name]
    if op.is_collective:
        return op.runtime_kind
    return CLASSES.get(op.kind, "norm, lookup" if op.kind in MEMORY else "element-wise")
