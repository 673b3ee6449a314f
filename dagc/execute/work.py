"""FLOPs by the shapes of the arrays that ran, and by the pairs that masks let through, against what the compiler says."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Op, Segment
from ..ir.ops.ops import attend_operands, flops, local_flops, rank_share
from .numpy import ops as k

if TYPE_CHECKING:
    from .execute import Machine

Floats = NDArray[np.float64]
CONTRACTIONS = ("contract", "row_sum", "row_square_sum", "conv")
CLOSE = 1e-9


def executed(segment: Segment, op: Op, inputs: list[object], value: object, pairs: float) -> float:
    """FLOPs of one execution on one rank. `pairs`: of queries and keys that its mask let through, all sequences."""
    dims = [segment.dims_of(name) for name in op.inputs]
    if op.kind == "attend":
        queries, _, _ = attend_operands(op)
        rows = _sizes(op.dims, value)
        heads = prod(n for d, n in rows.items() if d not in ("batch", "seq", op.dims[-1]))
        width = rows[op.dims[-1]] + sum(_array(x).shape[-1] for x in inputs[: len(queries)])
        return float(2.0 * heads * width * pairs)
    if op.kind == "select":
        heads, width = _array(inputs[0]).shape[-2:]
        return float(heads * (2.0 * width + 3.0) * pairs)
    if op.kind == "delta":
        return float(7.0 * _array(value).size * _array(inputs[1]).shape[-1])
    if isinstance(value, k.Ragged) and op.kind in CONTRACTIONS:
        return sum(_rows(op, dims, inputs, value, p) for p in value.rows)
    if op.kind in CONTRACTIONS:
        sizes = _sizes(op.dims, value)
        for own, x in zip(dims, inputs, strict=True):
            sizes |= _sizes(own, x)
        return prod(sizes.values()) * (2.0 if len(sizes) > len(op.dims) else 1.0)
    each = flops(segment, op) / segment.count(op.dims, op.scope)
    if op.kind == "combine":  # of the rows of a token, those that came to this rank
        return each * _elements(inputs[0]) / segment.sizes[segment.dims_of(op.inputs[1])[-1]]
    return each * _elements(value)


def _rows(op: Op, dims: list[tuple[str, ...]], inputs: list[object], value: k.Ragged, expert: int) -> float:
    """Of the rows of one expert."""
    sizes: dict[str, int] = {}
    for own, x in ((op.dims, value), *zip(dims, inputs, strict=True)):
        if isinstance(x, k.Ragged):
            array = x.rows[expert][1]
            sizes |= dict(zip(("rows", *own[2:]), array.shape, strict=True))
        else:
            array = _array(x[expert] if isinstance(x, dict) else x)
            sizes |= dict(zip(own[len(own) - array.ndim :], array.shape, strict=True))
    kept = len(op.dims) - 1  # the expert's own dim is no loop here
    return prod(sizes.values()) * (2.0 if len(sizes) > kept else 1.0)


def _sizes(dims: tuple[str, ...], value: object) -> dict[str, int]:
    return dict(zip(dims, _array(value).shape, strict=True))


def _array(value: object) -> Floats:
    value = value.output if isinstance(value, k.Softmax) else value
    assert isinstance(value, np.ndarray)
    return value


def _elements(value: object) -> float:
    if isinstance(value, k.Ragged):
        return float(sum(data.size for _, data in value.rows.values()))
    if isinstance(value, (k.Best, k.Routed)):
        return 0.0  # choices cost nothing
    return float(_array(value).size)


def wrong_work(machine: Machine) -> list[str]:
    """Ops whose FLOPs on any rank, at any call, are not `local_flops` times the rank's share; of routed rows, which differ
    in number from rank to rank, and of a split context, of which a mask leaves ranks unequal parts, the mean of ranks is."""
    mesh, wrong = machine.mesh, []
    for (name, op_name), calls in machine.work.items():
        segment = machine.graph.segment(name)
        op = segment.by_name[op_name]
        stated = local_flops(segment, op, mesh)
        each = np.broadcast_to(stated * rank_share(segment, op, mesh), mesh.shape).ravel()
        for call in calls:
            found = np.asarray(call)
            if op.scope == "experts" or op.kind == "combine" or op.loop("context"):
                found, each = found.mean(), np.asarray(stated)
            if not np.allclose(found, each, rtol=CLOSE, atol=CLOSE * max(stated, 1.0)):
                wrong.append(f"{name}/{op_name}")
                break
    return wrong
