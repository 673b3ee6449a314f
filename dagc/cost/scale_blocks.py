"""scale_blocks: a rank has whole blocks of quantised weights, or no engine loads them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ..base.axes import DATA, EXPERT_REPLICA, EXPERT_SIDE, EXPERT_TENSOR, TENSOR
from ..base.dtypes import dtype
from ..base.frozen import record
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.op import Op, Weight
from ..ir.ops.op_set import OPS
from ..ir.segment import Segment
from ..ir.sharding import Axes
from ..spec.unit import Unit


@record
class Side:
    """One side of a weight's matrix that is split into `parts`: its dims, entries in all, and those of a block of scales.
    Fewer parts than the axis has ranks: ranks share a part (heads of keys that are fewer than ranks)."""

    weight: Weight
    dims: tuple[str, ...]
    entries: int
    block: int
    parts: int

    def whole(self, degree: int) -> bool:
        """Over so many ranks, does each part have whole blocks?"""
        parts = min(degree, self.parts)
        return parts == 1 or (self.entries % parts == 0 and self.entries // parts % self.block == 0)


def check(graph: Graph, unit: Unit) -> None:
    """E03 for each axis of the mesh that cuts a block of scales: engines refuse such weights when they load them (vLLM:
    validate_fp8_block_shape; group sizes of GPTQ, AWQ and NVFP4 too). Blocks of MXFP4 are filled up instead, and so is
    the vocabulary of the head."""
    mesh = graph.the_mesh
    split: dict[tuple[str, str, int], dict[tuple[object, ...], Side]] = {}
    for segment in graph.segments[:-1]:
        for axes, side in split_sides(segment, mesh):
            label, degree = axis(mesh, axes, side.weight.scope)
            same = split.setdefault((label, side.weight.dtype, degree), {})
            same.setdefault((segment.name, side.weight.name, side.dims), side)
    for (label, name, degree), sides in split.items():
        cut = [side for side in sides.values() if not side.whole(degree)]
        if cut:
            _refuse(unit, label, name, degree, cut, list(sides.values()))


WORDS = {EXPERT_TENSOR: f"{TENSOR} of the experts", EXPERT_REPLICA: f"{DATA} of the experts"}


def axis(mesh: Mesh, axes: Axes, scope: str) -> tuple[str, int]:
    """The axis of the strategy that splits, in words, and its ranks; of the experts' own first where they are split."""
    names = sorted(mesh.axes, key=lambda n: ((n in EXPERT_SIDE) != (scope == "experts"), len(mesh.axes[n])))
    for name in names:
        if set(axes) <= set(mesh.axes[name]):
            return WORDS.get(name, name), mesh.size(mesh.axes[name])
    return " x ".join(WORDS.get(name, name) for name in mesh.label(axes, scope)), mesh.size(axes)


def split_sides(segment: Segment, mesh: Mesh) -> Iterator[tuple[Axes, Side]]:
    """The sides of quantised matrices that are split over ranks, and by which axes."""
    for op in segment.ops:
        if not OPS[op.kind].product:
            continue
        for name in op.inputs:
            if segment.is_weight(name):
                yield from _sides(segment, mesh, op, segment.weight_of(name))


def _sides(segment: Segment, mesh: Mesh, op: Op, weight: Weight) -> Iterator[tuple[Axes, Side]]:
    held = dtype(weight.dtype)
    if held.padded or weight.sharding is None or max(held.block) <= 1:
        return
    others = {d for n in op.inputs if n != weight.name for d in segment.dims_of(n)}
    summed = tuple(d for d in weight.dims if d not in op.dims)
    result = tuple(d for d in weight.dims if d in op.dims and d not in others)
    layout = dict(zip(weight.dims, weight.sharding.dims, strict=True))
    for dims, block in ((summed, held.block[0]), (result, held.block[1])):
        axes = mesh.sort(tuple(a for d in dims for a in layout[d]))
        if axes and block > 1:
            entries = int(prod(segment.size(d, weight.scope) for d in dims))
            yield axes, Side(weight, dims, entries, block, mesh.size(axes))


def _refuse(unit: Unit, shown: str, name: str, degree: int, cut: list[Side], sides: list[Side]) -> None:
    """Say what is cut, and which degrees keep blocks whole in all weights that the axis splits."""
    sums = dict.fromkeys(
        f"{' x '.join(side.dims)} {side.entries} / {min(degree, side.parts)} = {side.entries / min(degree, side.parts):g} is not a multiple of {side.block} "
        f"({', '.join(dict.fromkeys(s.weight.name[1:] for s in cut if (s.dims, s.entries) == (side.dims, side.entries)))})"
        for side in cut
    )
    fits = [d for d in range(degree - 1, 0, -1) if degree % d == 0 and all(side.whole(d) for side in sides)]
    known = f"{shown} = {', '.join(map(str, fits))} keep{'s' if len(fits) == 1 else ''} blocks whole"
    other = ("`ep` gives ranks whole experts instead",) if any(s.weight.scope == "experts" for s in cut) else ()
    spans = unit.phase.spans
    at = next((spans[a] for a in (TENSOR, "experts", "attention") if a in spans), unit.phase.span)
    unit.out.add(
        "E03",
        f"{shown} {degree} of `{unit.phase.name}` cuts blocks of {cut[0].block} in which {name} weights share a scale",
        at,
        because=tuple(sums),
        help=(*((known,) if fits else ()), *other),
    )
