"""Products of experts told from dense ones by their shapes: engines and models that run an expert as plain products use the kernels of any GEMM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.frozen import replace
from ..cost.local_shapes import LocalShapes
from ..plan.result import PhaseResult
from ..spec.unit import Unit
from .by_place import EXPERTS
from .kernel_classes import classes
from .rank_trace import RankTrace

PRODUCTS = re.compile(r"^aten::(?:mm|bmm|addmm|baddbmm|matmul|linear|_scaled_mm|_int_mm)$")
GEMM = "gemm"
_SHAPE = re.compile(r" \[(\d{1,12})x(\d{1,12})\]$")

Shapes = frozenset[tuple[int, int]]
"""Sizes of a weight's two sides, the smaller one first: frameworks store either way."""


def named(name: str, args: Mapping[str, Any]) -> str:
    """The name of an op, with the sizes of its weight if it is a product whose shapes were recorded: `aten::mm [4096x14336]`."""
    if not PRODUCTS.match(name):
        return name
    dims = args.get("Input Dims")
    matrices = [one for one in dims if isinstance(one, list) and len(one) >= 2] if isinstance(dims, list) else []
    if len(matrices) < 2 or not all(isinstance(size, int) and 0 <= size < 10**12 for size in matrices[1][-2:]):
        return name
    return f"{name} [{matrices[1][-2]}x{matrices[1][-1]}]"


def expert_products(result: PhaseResult, unit: Unit) -> Shapes:
    """Those of the weights of one expert on a rank, gate and up by themselves or as one, that no dense product has."""
    experts, dense = set[tuple[int, int]](), set[tuple[int, int]]()
    for segment in result.graph.segments:
        shapes = LocalShapes(segment, result.graph.the_mesh, unit.spec.model, unit.phase)
        for one in shapes.experts():
            experts |= {_sides(one.hidden, one.inter), _sides(one.hidden, 2 * one.inter)}
        for gemm in shapes.gemms():
            dense.add(_sides(gemm.k, gemm.n))
            dense |= {_sides(gemm.k, shapes.gemm([op], gemm.dtype).n) for op in gemm.ops}
    return frozenset(experts - dense)


def _sides(a: float, b: float) -> tuple[int, int]:
    return round(min(a, b)), round(max(a, b))


def by_shape(trace: RankTrace, experts: Shapes) -> RankTrace:
    """With products of such weights counted as experts."""
    of_expert = []
    for at, name in enumerate(trace.names):
        found = _SHAPE.search(name)
        if found is not None and _sides(int(found[1]), int(found[2])) in experts:
            of_expert.append(at)
    found_classes = list(trace.classes)
    names = [one.name for one in found_classes]
    if not of_expert or GEMM not in names:
        return trace
    if EXPERTS not in names:
        found_classes.append(classes().by_name[EXPERTS])
    number = [one.name for one in found_classes].index(EXPERTS)
    chosen = (trace.kernels.of == names.index(GEMM)) & np.isin(trace.kernels.op, np.array(of_expert))
    of = np.where(chosen, number, trace.kernels.of).astype(np.int32)
    return replace(trace, classes=tuple(found_classes), kernels=replace(trace.kernels, of=of))
