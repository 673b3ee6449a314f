"""attention_kernels: attention of a training step and its gradient: one kernel each, of the tables of prefill.

The gradient has five products where attention has two: its scores are done anew (Dao et al., FlashAttention, arXiv 2205.14135, algorithm
4). Queries and keys in parts are put together before the kernel, and their gradients cut after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...base.dtypes import DTYPE_BYTES
from ...calib.training_constants import Kernels
from ...ir.op import Op
from ...ir.ops.attention_operands import attend_operands
from ...ir.ops.attributes.attention import AttendAttrs
from ...ir.ops.gradients import forward_op
from ..attention import alone
from ..measured import Match, Measured

PRODUCTS = 5 / 2
"""Of the gradient over those of attention."""


def match(found: Match, known: Kernels) -> None:
    """Attention ahead and its gradients, which share the time of one kernel by their FLOPs."""
    ahead: dict[Shape, tuple[Measured, float]] = {}
    for op in found.shapes.of_kind("attend"):
        if op.of(AttendAttrs).chosen or op.of(AttendAttrs).kernel != "flash":
            continue  # no kernel that reads selected tokens was measured, or that stores scores
        measured = alone(found, op)
        if measured is not None:
            kernel, joined_s = measured.times(1 / known.sustained), _joined_s(found, op)
            ahead[_shape(found, op.inputs)] = kernel, joined_s
            found.times[op.name] = kernel.at(kernel.time_s + joined_s)
    groups: dict[tuple[str, ...], list[Op]] = {}
    for op in found.shapes.of_kind("attend_grad"):
        own, value = forward_op(found.segment, op).inputs, 2 * op.of(AttendAttrs).pairs
        groups.setdefault((op.inputs[0], *own[:value], *own[value + 1 :]), []).append(op)
    for group in groups.values():
        forward = ahead.get(_shape(found, forward_op(found.segment, group[0]).inputs))
        if forward is not None:
            kernel, joined_s = forward
            found.share(group, kernel.at(kernel.time_s * (PRODUCTS / known.backward) + joined_s))


def _joined_s(found: Match, op: Op) -> float:
    """Parts of queries and keys are read, and the whole is written, as often as there are heads."""
    queries, keys, _ = attend_operands(op)
    if len(queries) == 1:
        return 0.0
    segment = found.segment
    heads = [d for d in op.dims[:-1] if d not in ("batch", "seq")]
    width = sum(segment.size(segment.dims_of(name)[-1]) for name in queries)
    seq, context, _ = found.shapes.lengths(op)
    rows = found.shapes.size(op, ["batch", *heads]) * (seq + context)
    moved_B = 2 * rows * width * DTYPE_BYTES[segment.dtype_of(keys[0])]
    return moved_B / (found.hardware.hbm_Bps * found.hardware.mbu)


Shape = tuple[tuple[str, ...], ...]


def _shape(found: Match, operands: Sequence[str]) -> Shape:
    """Dims of the operands: attentions of a layer that have the same ones take as long."""
    return tuple(tuple(found.segment.dims_of(name)) for name in operands)
