"""whole_sides: sides of products whose operands are quantised, which kernels take in multiples of their blocks alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ...base.frozen import record
from ...base.low_precision import RECIPES, Recipe
from ...ir.graph import Graph
from ...ir.mesh import Mesh
from ...ir.op import FORWARD, Op
from ...ir.ops.op_set import OPS
from ...ir.segment import Segment
from ...ir.sharding import Axes
from ...spec.unit import Unit
from ..scale_blocks import axis


@record
class Side:
    """Of a product with a weight: its dims, entries in all, and the axes that split them into parts. `rows`: not its columns, nor what it sums."""

    weight: str
    scope: str
    dims: tuple[str, ...]
    entries: int
    axes: Axes
    parts: int
    rows: bool

    def multiple(self, recipe: Recipe) -> int:
        return recipe.rows if self.rows else recipe.multiple

    def whole(self, parts: int, recipe: Recipe) -> bool:
        """Over so many ranks, does each have what a kernel takes?"""
        return self.entries % parts == 0 and self.entries // parts % self.multiple(recipe) == 0


def checked(graph: Graph, unit: Unit) -> Graph:
    """The graph. Raises SpecError with E03 where ranks have parts that no kernel takes, with degrees or dtypes of which all are whole."""
    training = unit.phase.training
    if training is None or not training.quantises:
        return graph
    recipe = RECIPES[training.matmul_dtype]
    found = [side for segment in graph.segments for op in segment.ops for side in sides(segment, op, graph.the_mesh)]
    cut = [side for side in found if not side.whole(side.parts, recipe)]
    if cut:
        because = dict.fromkeys(
            f"{' x '.join(side.dims)} {side.entries}{f' / {side.parts}' if side.parts > 1 else ''} of {side.weight} is not a multiple of "
            f"{side.multiple(recipe)}"
            for side in cut
        )
        message = f"`matmul_dtype = {training.matmul_dtype}` does not take all products of `{unit.phase.name}`"
        span = unit.phase.spans.get("matmul_dtype", unit.phase.span)
        help = (*degrees(cut[0], found, recipe, graph.the_mesh), dtypes(found, recipe))
        unit.out.add("E03", message, span, because=tuple(because)[:4], help=help)
        unit.out.check()
    return graph


def sides(segment: Segment, op: Op, mesh: Mesh) -> Iterator[Side]:
    """Of a forward product whose weight is quantised: what it sums, its columns, and its rows but for those of routed experts, which engines fill up."""
    name = next((n for n in op.inputs if segment.is_weight(n)), "")
    if op.cell != FORWARD or not OPS[op.kind].product or not name or segment.dtype_of(name) not in RECIPES:
        return
    weight = segment.weight_of(name)
    other = segment.dims_of(next(n for n in op.inputs if n != name))
    summed = [d for d in weight.dims if d in other and d not in op.dims]
    columns = [d for d in weight.dims if d in op.dims and d not in other]
    rows = [d for d in other if d in op.dims and d not in weight.dims] if op.scope != "experts" else []
    for dims in (summed, columns, rows):
        if dims:
            axes = mesh.sort(tuple(a for d in dims for a in op.loop(d)))
            entries = int(prod(segment.size(d, op.scope) for d in dims))
            yield Side(weight.name[1:], op.scope, tuple(dims), entries, axes, mesh.size(axes), dims is rows)


def degrees(worst: Side, found: list[Side], recipe: Recipe, mesh: Mesh) -> Iterator[str]:
    """Smaller ones of the axis that cuts it."""
    if worst.parts == 1:
        return
    label, degree = axis(mesh, worst.axes, worst.scope)
    alike = [side for side in found if side.axes == worst.axes]
    able = [d for d in range(degree - 1, 0, -1) if degree % d == 0 and all(side.whole(d, recipe) for side in alike)]
    if able:
        yield f"{label} = {', '.join(map(str, able))} gives ranks whole ones"


def dtypes(found: list[Side], recipe: Recipe) -> str:
    """Another dtype of the same GPU whose kernels take all of them."""
    for name, other in RECIPES.items():
        if other.units in ("fp8", recipe.units) and all(side.whole(side.parts, other) for side in found):
            return f"`matmul_dtype = {name}` needs multiples of {other.multiple} alone"
    return "`matmul_dtype = bf16` takes any"
