"""memory_passes: kernels of a training step that only read and write: how many bytes each moves, and whose it is.

Element-wise ops next to each other are one kernel (`pointwise_passes.py`). Others belong to the kernel beside them: biases and their gradients
to the product, a norm's gain to its input's gradient. The optimizer reads and writes its states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import record
from ...base.low_precision import Recipe, copies, recipe_of
from ...ir.mesh import Mesh
from ...ir.op import Op
from ...ir.ops.attributes.experts import ExchangeAttrs
from ...ir.ops.attributes.training import AccumulateAttrs, WeightAttrs
from ...ir.ops.kind import Tokens
from ...ir.ops.norms import gain_grad
from ...ir.ops.op_set import OPS, input_layout, result_layout, traffic
from ...ir.ops.sizes import local_bytes, local_count
from ...ir.ops.training import STATES
from ...ir.routed_dims import Rows, routed, rows_of
from ...ir.segment import Segment
from ...spec.hardware import Hardware
from ...spec.phase import Phase
from ...spec.training import Training
from ..expert_load import ExpertLoad
from ..measured import RIDING, Measured
from ..records import Array
from .pointwise_passes import Passes, is_pointwise, result_bytes

FREE = frozenset({"cache", "uncache", "store"})
"""Views in training: no cache is kept, and new weights are gathered where the old ones were."""
CLIPPED = 3
"""Passes over the gradients before the optimizer's own: one reads them for their norm, one reads and writes them to clip them, as
Megatron-LM does by default."""


@record
class MemoryPasses:
    """What their times follow from. `rows`: share of the memory's bandwidth of what puts rows in another order."""

    segment: Segment
    mesh: Mesh
    phase: Phase
    hardware: Hardware
    loads: Mapping[Rows, ExpertLoad]
    rows: float


def match(found: MemoryPasses, times: dict[str, Measured]) -> None:
    """Adds every op that has no time yet and that moves other bytes than its operands and result."""
    segment, hardware, training = found.segment, found.hardware, found.phase.training
    assert training is not None
    for op in segment.ops:
        if op.name not in times and (op.kind in FREE or _rides(segment, op)):
            times[op.name] = RIDING
    passes = Passes(segment, found.mesh, {op.name for op in segment.ops if op.name in times})
    for op in segment.ops:
        if op.name in times or op.is_collective:
            continue
        Bps, begins = hardware.hbm_Bps * hardware.mbu, 1
        if op.kind == "quantise":
            recipe = recipe_of(op.dtype, training.fp8_scaling)
            moved, begins = quantised_bytes(segment, op, found.mesh, hardware, recipe), recipe.launches
        elif op.kind in UPDATES:
            moved = UPDATES[op.kind](segment, op, found.mesh, training)
        elif is_pointwise(op):
            moved, begins = passes.bytes_of(op), int(passes.begins(op))
        elif OPS[op.kind].tokens is Tokens.AT_HOME:
            by_token = found.phase.exchange is not None
            moved, Bps = _reordered(segment, op, found.mesh, by_token=by_token), hardware.hbm_Bps * found.rows
        else:
            continue
        time_s = moved * _work(found, op) / Bps + (begins * hardware.launch_s if moved else 0.0)
        times[op.name] = Measured(np.asarray(time_s), "", 0.0)


def _rides(segment: Segment, op: Op) -> bool:
    """Whether the kernel beside it does an op, too."""
    by_name, readers = segment.by_name, [other for other in segment.ops if op.inputs and op.inputs[0] in other.inputs]
    if op.kind == "add":  # a bias, by the product's epilogue
        made = by_name.get(op.inputs[0])
        return made is not None and OPS[made.kind].product and segment.is_weight(op.inputs[1]) and readers == [op]
    if op.kind == "sum_dims":  # its gradient, by that of the weights
        return any(OPS[reader.kind].product for reader in readers)
    if op.kind == gain_grad(OPS[op.kind].gradient_of):
        beside = OPS[op.kind].gradient_of + "_grad"
        return any(reader.kind == beside and reader.inputs == op.inputs for reader in readers)
    return False


def _work(found: MemoryPasses, op: Op) -> Array:
    rows = routed(found.segment, op) if op.scope == "experts" else None
    return np.ones(1) if rows is None else found.loads[rows].work


def _reordered(segment: Segment, op: Op, mesh: Mesh, *, by_token: bool) -> float:
    """Rows are put in the order of ranks, and where they come from several ranks in that of the rank's experts, or both back. `by_token`:
    kernels of the exchange take tokens as they are, and only what comes to a rank is put in order."""
    moved = traffic(segment, op, mesh).activations_B
    if not isinstance(op.attrs, ExchangeAttrs) or not op.attrs.exchange:
        return moved
    moved = 0.0 if by_token else moved
    rows_B = result_bytes(segment, op, mesh) if rows_of(op.dims) is not None else 0.0
    return moved + 2 * (rows_B or local_bytes(segment, op.inputs[0], input_layout(segment, op, op.inputs[0]), mesh))


def quantised_bytes(segment: Segment, op: Op, mesh: Mesh, hardware: Hardware, recipe: Recipe) -> float:
    """What is quantised is read as often as its recipe says, and written by rows and by columns."""
    read_B = local_bytes(segment, op.inputs[0], input_layout(segment, op, op.inputs[0]), mesh)
    return recipe.reads * read_B + copies(op.dtype, hardware.compute_flops) * result_bytes(segment, op, mesh)


def _accumulated(segment: Segment, op: Op, mesh: Mesh, training: Training) -> float:
    """The sum is read and written. A product adds to it where it would write its result."""
    made = segment.by_name.get(op.inputs[0])
    gradient_B = local_bytes(segment, op.inputs[0], input_layout(segment, op, op.inputs[0]), mesh)
    sum_B = 2 * result_bytes(segment, op, mesh)
    return sum_B + (-gradient_B if made is not None and OPS[made.kind].product else gradient_B)


def _updated(segment: Segment, op: Op, mesh: Mesh, training: Training) -> float:
    """Gradients are normed, clipped and read, states and the optimizer's own weights read and written, new weights written; then the
    sums of gradients begin at zero."""
    count = local_count(segment, op.dims, result_layout(segment, op).dims, mesh, op.scope)
    master_B = 0.0 if training.master_dtype == "none" else DTYPE_BYTES[training.master_dtype]
    states_B = STATES[training.optimizer] * DTYPE_BYTES[training.moment_dtype]
    each = (CLIPPED + 1) * DTYPE_BYTES[training.gradient_dtype] + 2 * (master_B + states_B) + DTYPE_BYTES[op.dtype]
    weight = op.of(WeightAttrs).weight
    sums = (one for one in segment.ops if isinstance(one.attrs, AccumulateAttrs) and one.attrs.weight == weight)
    return count * each + sum(result_bytes(segment, one, mesh) for one in sums)


UPDATES: Mapping[str, Callable[[Segment, Op, Mesh, Training], float]] = {
    "accumulate": _accumulated, "adamw": _updated, "sgd": _updated,
}  # fmt: skip
