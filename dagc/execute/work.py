"""FLOPs by the shapes of the arrays that ran, and by the pairs that masks let through, against what the compiler says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ..ir.op import Op
from ..ir.ops.attention_operands import attend_operands
from ..ir.ops.attributes.attention import AttendAttrs
from ..ir.ops.attributes.recurrent import DeltaAttrs
from ..ir.ops.elementwise import ACTIVATIONS
from ..ir.ops.gradients import differentiated
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, flops, local_flops, rank_share
from ..ir.routed_dims import kept_choices, routed, rows_of
from ..ir.segment import Segment
from .record import Record, kept_of
from .shards import Shards
from .values import Floats, Ragged

CLOSE = 1e-9

Count = Callable[[Segment, Op, Sequence[Any], Any, float], float]
"""(segment, op, a rank's operands, its result, pairs of queries and keys that its mask let through) -> FLOPs."""


def executed(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float | None:
    """FLOPs of one execution on one rank; None where nothing is computed. `pairs`: of all sequences."""
    count = WORK[op.kind]
    return None if count is None else count(segment, op, inputs, value, pairs)


def _attend(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    queries, _, _ = attend_operands(op)
    rows = dict(zip(op.dims, _array(value).shape, strict=True))
    heads = prod(n for d, n in rows.items() if d not in ("batch", "seq", op.dims[-1]))
    width = rows[op.dims[-1]] + sum(x.shape[-1] for x in inputs[: len(queries)])
    return float(2.0 * heads * width * pairs)


def _select(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    heads, width = inputs[0].shape[-2:]
    return float(heads * (2.0 * width + 3.0) * pairs)


def _delta(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    return float((7.0 if op.of(DeltaAttrs).correct else 5.0) * value.size * inputs[1].shape[-1])


def _contraction(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    """Two for each element of the iteration space where something is summed, else one."""
    sizes: dict[str, int] = {}
    for dims, x in ((op.dims, value), *zip(map(segment.dims_of, op.inputs), inputs, strict=True)):
        sizes |= _sizes(dims, x)
    if any(isinstance(x, Ragged) for x in inputs) and not isinstance(value, Ragged):
        for rows in filter(None, map(rows_of, map(segment.dims_of, op.inputs))):
            sizes.pop(rows.expert, None)  # each row is of one expert
        return prod(sizes.values()) * 2.0
    result = len(op.dims) - isinstance(value, Ragged)  # rows of experts: their number is one loop
    return prod(sizes.values()) * (2.0 if len(sizes) > result else 1.0)


def _sizes(dims: tuple[str, ...], value: Any) -> dict[str, int]:
    """Of rows of experts their number in all, and the dims of one; of a weight of experts those of one matrix."""
    if isinstance(value, Ragged):
        return dict(zip(("rows", *dims[2:]), value.data.shape, strict=True))
    array = next(iter(value.values())) if isinstance(value, Mapping) else _array(value)
    return dict(zip(dims[len(dims) - array.ndim :], array.shape, strict=True))


def _each(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    """What the compiler says of an element, times the elements of the result."""
    return flops(segment, op) / segment.count(op.dims, op.scope) * _elements(value)


def _upstream(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    """What the compiler says of an element of the upstream gradient, times its elements."""
    name = op.inputs[0]
    return flops(segment, op) / segment.count(segment.dims_of(name), segment.scope_of(name)) * _elements(inputs[0])


def _attend_grad(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    rows = dict(zip(segment.dims_of(op.inputs[0]), _array(inputs[0]).shape, strict=True))
    place, queries = differentiated(op), op.of(AttendAttrs).pairs
    width = _array(inputs[0]).shape[-1]
    heads = prod(n for d, n in rows.items() if d not in ("batch", "seq")) / width
    if place > 2 * queries:
        return float(2.0 * prod(rows.values()) / width)
    return float(2.0 * heads * pairs * (2.0 * width if place == 2 * queries else inputs[1 + place].shape[-1]))


def _conv_grad(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    return float(2.0 * _elements(inputs[0]) * _array(inputs[2]).shape[-1])


def _choice_dot(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    return 2.0 * _elements(inputs[0])


def _row_exp_sum(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    return 3.0 * _elements(inputs[0])


def _row_dot(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    return 2.0 * _elements(inputs[0])


def _combine(segment: Segment, op: Op, inputs: Sequence[Any], value: Any, pairs: float) -> float:
    """Of the rows of a token, those that came to this rank."""
    each = flops(segment, op) / segment.count(op.dims, op.scope)
    rows = routed(segment, op)
    assert rows is not None
    return float(each * _elements(inputs[0]) / kept_choices(segment, rows))


def _array(value: Any) -> Floats:
    assert isinstance(value, np.ndarray)
    return value


def _elements(value: Any) -> float:
    return float((value.data if isinstance(value, Ragged) else _array(value)).size)


WORK: Mapping[str, Count | None] = {
    **dict.fromkeys(("contract", "row_sum", "row_square_sum", "conv"), _contraction),
    "attend": _attend,
    "select": _select,
    "delta": _delta,
    "pool": _each,
    "combine": _combine,
    **dict.fromkeys(ACTIVATIONS, _each),
    **dict.fromkeys(
        ("multiply", "add", "scale", "shift", "clamp", "rsqrt", "rms_norm", "layer_norm", "dropout", "dropout_grad"),
        _each,
    ),
    **dict.fromkeys(
        (
            "repeat",
            "part",
            "sinkhorn",
            "rope",
            "temper",
            "cache",
            "rename",
            "lookup",
            "last",
            "argmax",
            "route",
            "dispatch",
            "empty_weight",
        ),
        _each,
    ),
    **dict.fromkeys(
        (f"{name}_grad" for name in (*ACTIVATIONS, "clamp", "rsqrt", "rms_norm", "layer_norm", "part", "sinkhorn")),
        _each,
    ),
    **dict.fromkeys(
        ("rms_norm_gain_grad", "layer_norm_gain_grad", "delta_grad", "route_grad", "empty_weight_grad", "lookup_grad"),
        _upstream,
    ),
    "conv_grad": _conv_grad,
    "attend_grad": _attend_grad,
    "choice_dot": _choice_dot,
    "row_exp_sum": _row_exp_sum,
    "row_dot": _row_dot,
    "sum_dims": _contraction,
    **dict.fromkeys(
        (
            "uncache",
            "labels",
            "row_max",
            "pick",
            "cross_entropy",
            "cross_entropy_grad",
            "expert_share",
            "expert_probs",
            "expert_probs_grad",
            "router_z",
            "router_z_grad",
            "router_loss",
            "router_loss_grad",
            "accumulate",
            "choice_rows",
            "choice_back",
            "adamw",
            "sgd",
            "store",
            "quantise",
        ),
        _each,
    ),
    **dict.fromkeys(("slice", "unpack", "pack", "stay", "rejoin", "fetch", "host_cache", "expert_copy"), None),
}
"""Of every kind that is not a collective; None: it computes nothing, and is not counted."""


def wrong_work(shards: Shards, record: Record) -> list[str]:
    """Ops whose FLOPs on any rank, at any call, are not `local_flops` times the rank's share; of routed rows, which differ
    in number from rank to rank, and of a split context, of which a mask leaves ranks unequal parts, the mean of ranks is."""
    mesh, wrong = shards.mesh, []
    for (name, op_name), calls in record.work.items():
        segment = shards.graph.segment(name)
        op = segment.by_name[op_name]
        stated = local_flops(segment, op, mesh)
        each = np.broadcast_to(stated * rank_share(segment, op, mesh), mesh.side_shape(op.on)).ravel()
        for call, more in zip(calls, kept_of(segment, op, record, len(calls)), strict=True):
            flops = np.asarray(call) * more
            if op.scope == "experts" or OPS[op.kind].tokens is Tokens.AT_HOME or op.loop("context"):
                flops, each = flops.mean(), np.asarray(stated)
            if not (np.abs(flops - each) <= CLOSE * (max(stated, 1.0) + np.abs(each))).all():
                wrong.append(f"{name}/{op_name}")
                break
    return wrong
