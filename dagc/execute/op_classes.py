"""Classes of ops in tables of measured times: by what they do, collectives by kind."""

from __future__ import annotations

from ..ir.op import UPDATE
from ..ir.ops.op_set import OPS
from ..plan.result import PhaseResult
from ..plan.trained import TrainingResult

CLASSES = {
    "contract": "matmul",
    "attend": "attention",
    "route": "routing",
    "dispatch": "routing",
    "combine": "routing",
    "empty_weight": "routing",
}
MEMORY = ("rms_norm", "layer_norm", "row_sum", "row_square_sum", "lookup", "argmax", "cache")


def class_of(result: PhaseResult | TrainingResult, segment: str, name: str) -> str:
    """Of an op of a segment, a gradient's that of its op; outside of layers, where `segment` is empty, the name itself: `send`."""
    if not segment:
        return name
    op = result.graph.segment(segment).by_name[name]
    if op.is_collective:
        return op.runtime_kind
    if op.cell == UPDATE:
        return "new weights"
    kind = OPS[op.kind].gradient_of or op.kind
    return CLASSES.get(kind, "norm, lookup" if kind in MEMORY else "element-wise")
