"""step_memory: what a GPU holds at the fullest moment of a training step, by kind."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import record
from ...base.low_precision import copies
from ...ir.graph import Graph
from ...ir.ops.attributes.training import AccumulateAttrs, AdamAttrs, QuantiseAttrs
from ...ir.ops.sizes import local_count
from ...ir.ops.training import STATES
from ...ir.segment import Segment
from ...spec.training import Training
from ..memory import weight_bytes

NO_UNITS: Mapping[str, float] = {}


@record
class TrainingMemory:
    """Bytes on one GPU of a pipeline, at its fullest moment. `activations_B`: kept for gradients, `in_flight` micro-batches of a stage
    at once; `gathered_B`: copies of shared out weights, of the layers that use them; `working_B`: of the cell that runs. `host_B`: in the
    memory of its host, at most."""

    gpu: int
    weights_B: float
    gradients_B: float
    optimizer_B: float
    activations_B: float
    working_B: float
    buffers_B: float
    reserve_B: float
    capacity_B: float
    in_flight: float
    gathered_B: float = 0.0
    host_B: float = 0.0

    @property
    def peak_B(self) -> float:
        return (
            self.weights_B + self.gradients_B + self.optimizer_B + self.activations_B + self.gathered_B + self.working_B
            + self.buffers_B + self.reserve_B
        )  # fmt: skip

    @property
    def fits(self) -> bool:
        return self.peak_B <= self.capacity_B


@record
class StateBytes:
    """Of one layer on one rank: its weights, the sums of their gradients, and what the optimizer keeps."""

    weights_B: float
    gradients_B: float
    optimizer_B: float


def state_bytes(
    segment: Segment, graph: Graph, training: Training, *, has_table: bool, units: Mapping[str, float] = NO_UNITS
) -> StateBytes:
    """`has_table`: the first layer is on the same GPU, so that a head that is tied to it stores nothing. `units`: dtypes that the GPU has peaks of."""
    mesh, tables = graph.the_mesh, graph.embedding.weight if has_table else {}
    tied = {w.name.removeprefix("@") for w in segment.weights if w.tied in tables}
    weights_B = weight_bytes(segment, mesh, tables) + beside_bytes(segment, graph, training, units)
    gradients_B = optimizer_B = 0.0
    each = (0.0 if training.master_dtype == "none" else DTYPE_BYTES[training.master_dtype]) + STATES[
        training.optimizer
    ] * DTYPE_BYTES[training.moment_dtype]
    for op in segment.ops:
        if not isinstance(op.attrs, (AccumulateAttrs, AdamAttrs)) or op.attrs.weight in tied or op.sharding is None:
            continue
        count = local_count(segment, op.dims, op.sharding.dims, mesh, op.scope)
        if isinstance(op.attrs, AccumulateAttrs):
            gradients_B += count * DTYPE_BYTES[op.dtype]
        else:
            optimizer_B += count * each
    return StateBytes(weights_B, gradients_B, optimizer_B)


def beside_bytes(segment: Segment, graph: Graph, training: Training, units: Mapping[str, float]) -> float:
    """What is kept of weights that products read quantised beside one copy of them: a second one by columns, where rows and columns are not the same
    numbers, and unless they are stored quantised those in 16 bits of which they were made."""
    total = 0.0
    for op in segment.ops:
        if not isinstance(op.attrs, QuantiseAttrs) or not op.attrs.weight:
            continue
        weight = segment.weight[f"@{op.attrs.weight}"]
        assert weight.sharding is not None
        count = local_count(segment, weight.dims, weight.sharding.dims, graph.the_mesh, weight.scope)
        whole_B = 0.0 if training.quantised_weights else DTYPE_BYTES[segment.dtype_of(op.inputs[0])]
        total += count * ((copies(weight.dtype, units) - 1) * DTYPE_BYTES[weight.dtype] + whole_B)
    return total
