"""step_products: matrix products of a training step as the GEMMs that engines run them as, forward and backward.

Products of one input are one GEMM; so are gradients of that input, whose sum it makes, and gradients of their weights. Routed experts
are as many GEMMs, launched together.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from ...base.dtypes import dtype as dtype_named
from ...base.frozen import record
from ...base.low_precision import RECIPES
from ...calib import gemm
from ...calib.constants import Entry
from ...calib.training_constants import Kernels
from ...ir.op import BACKWARD, Op
from ...ir.ops.op_set import OPS
from ...ir.routed_dims import routed
from ..measured import RIDING, Match, Measured, estimate_s
from ..products import GEMM_VARIANT, quantised_before


@record
class Shape:
    """`count` products [m, k] x [k, n] on one rank."""

    count: float
    m: float
    n: float
    k: float


def match(found: Match, known: Kernels) -> None:
    summed = _sums(found)
    groups: dict[tuple[str, ...], list[Op]] = {}
    for op in found.shapes.of_kind("contract"):
        if shape_of(found, op) is not None:
            groups.setdefault(_key(found, op, summed), []).append(op)
    for (how, *_), group in groups.items():
        _gemm(found, group, adds_up=how == "summed", speed=known.sustained)
    for name, root in summed.items():
        if found.segment.by_name[name].kind == "add" and len(groups[_summed(root)]) > 1:
            found.times[name] = RIDING


def shape_of(found: Match, op: Op) -> Shape | None:
    """Of a product with rows, columns and a sum; None of others, which matrix units do not help."""
    if len(op.inputs) != 2:
        return None
    first, second = (set(found.segment.dims_of(name)) for name in op.inputs)
    result = set(op.dims)

    def size(dims: Iterable[str]) -> float:
        return prod(found.segment.size(d, op.scope) / found.mesh.size(op.loop(d)) for d in dims)

    m, n, k = (first & result) - second, (second & result) - first, (first & second) - result
    return Shape(size(first & second & result), size(m), size(n), size(k)) if m and n and k else None


def _key(found: Match, op: Op, summed: dict[str, str]) -> tuple[str, ...]:
    if op.name in summed:
        return _summed(summed[op.name])
    weight = found.segment.is_weight(op.inputs[1])
    shared = op.inputs[0] if weight else op.inputs[1]
    return "shared", op.cell, shared, found.segment.dtype_of(op.inputs[1])


def _summed(root: str) -> tuple[str, ...]:
    return "summed", root


def _sums(found: Match) -> dict[str, str]:
    """Gradients of inputs that nothing but sums reads, and these sums -> the first of each sum."""
    readers: dict[str, int] = {}
    for op in found.segment.ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    root: dict[str, str] = {}
    for op in found.segment.ops:
        if op.cell != BACKWARD:
            continue
        if OPS[op.kind].product and found.segment.is_weight(op.inputs[-1]) and shape_of(found, op) is not None:
            root[op.name] = op.name
        elif op.kind == "add" and all(name in root and readers[name] == 1 for name in op.inputs):
            first, second = (root[name] for name in op.inputs)
            root.update({name: first for name, old in root.items() if old == second})
            root[op.name] = first
    return root


def entry_of(found: Match, dtype: str) -> Entry[gemm.GemmConstants] | None:
    """The table of products of a dtype. What quantises their operands is an op of its own in training, and no part of theirs."""
    if dtype not in RECIPES:
        return found.find(gemm.FAMILY, GEMM_VARIANT.get(dtype_named(dtype).kernel, ""))
    entry = found.find(gemm.FAMILY, RECIPES[dtype].table)
    return None if entry is None else quantised_before(entry, found.find(gemm.FAMILY, "bf16"))


def _gemm(found: Match, group: list[Op], *, adds_up: bool, speed: float) -> None:
    """`adds_up`: the products of the group make one sum. `speed`: over that of the tables."""
    weights = [name for op in group for name in op.inputs if found.segment.is_weight(name)]
    dtype = found.segment.dtype_of(weights[0] if weights else group[0].inputs[0])
    entry = entry_of(found, dtype)
    if entry is None:
        return
    shapes = [shape for op in group if (shape := shape_of(found, op)) is not None]
    m, n, k = shapes[0].m, shapes[0].n, shapes[0].k
    if adds_up:
        k = sum(shape.k for shape in shapes)
    elif weights:
        n = sum(shape.n for shape in shapes)
    else:  # gradients of weights: rows are those of the upstream gradients
        m = sum(shape.m for shape in shapes)
    rows = routed(found.segment, group[0]) if group[0].scope == "experts" else None
    work = np.ones(1) if rows is None else found.loads[rows].work
    busy = work.ravel()
    sizes = (busy * m, n, k) if weights else (m, n, busy * k)
    launch_s = entry.constants.launch_s
    each = np.maximum(estimate_s(gemm.FAMILY, entry, *sizes) - launch_s, 0.0).reshape(work.shape)
    outside = entry.outside(m=m, n=n, k=k)
    found.share(group, Measured.of(launch_s + shapes[0].count * each / speed, gemm.FAMILY.name, entry, outside))
