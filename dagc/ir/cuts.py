"""Axes cut in two where a part of one trades places with another: then only a part of a tensor moves twice.

A reshard from [a, b] to [b, a] where a has 2 ranks and b 4: whole axes take three exchanges; with b = b.1 (2) x b.0 (2) one
permute swaps a and b.1, and one exchange takes b.0 after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import gcd

from ..base.frozen import replace
from .graph import Graph
from .mesh import Mesh
from .op import Op
from .segment import Segment
from .sharding import Axes, Sharding

Cuts = Mapping[str, int]
"""Axis -> ranks of its outer part."""


def trades(source: Sharding, target: Sharding, mesh: Mesh) -> Iterator[tuple[str, str]]:
    """Axes that split two dims and trade them, in whatever places there."""
    if source.partial != target.partial:
        return
    for i, (own, want) in enumerate(zip(source.dims, target.dims, strict=True)):
        for x in own:
            if x in want:
                continue
            for j in range(i + 1, len(source.dims)):
                if x in target.dims[j]:
                    yield from ((x, y) for y in source.dims[j] if y in want)


def useful(source: Sharding, target: Sharding, mesh: Mesh) -> dict[str, int]:
    """Cuts after which axes of unequal size have a part of one size to trade."""
    found: dict[str, int] = {}
    for x, y in trades(source, target, mesh):
        common = gcd(mesh.sizes[x], mesh.sizes[y])
        if common > 1:
            found |= {axis: common for axis in (x, y) if axis not in found and mesh.sizes[axis] > common}
    return found


def parts(axis: str, cuts: Cuts) -> Axes:
    """Outer part first."""
    return (f"{axis}.1", f"{axis}.0") if axis in cuts else (axis,)


def cut_axes(axes: Axes, cuts: Cuts) -> Axes:
    return tuple(part for axis in axes for part in parts(axis, cuts))


def cut_layout(layout: Sharding, cuts: Cuts) -> Sharding:
    dims = tuple(cut_axes(axes, cuts) for axes in layout.dims)
    return replace(layout, dims=dims, partial=cut_axes(layout.partial, cuts))


def cut_mesh(mesh: Mesh, cuts: Cuts) -> Mesh:
    """The same ranks in the same order, with finer atoms."""
    atoms: list[tuple[str, int]] = []
    for name, size in mesh.atoms:
        outer = cuts.get(name)
        sizes = (size,) if outer is None else (outer, size // outer)
        atoms += zip(parts(name, cuts), sizes, strict=True)
    axes = {name: cut_axes(own, cuts) for name, own in mesh.axes.items()}
    return replace(mesh, atoms=tuple(atoms), axes=axes, zigzag=cut_axes(mesh.zigzag, cuts))


def cut_graph(graph: Graph, cuts: Cuts) -> Graph:
    """An annotated graph on the mesh with finer atoms."""

    def own(segment: Segment, op: Op) -> Op:
        loops = tuple((dim, cut_axes(axes, cuts)) for dim, axes in op.loops)
        named = {f.name: getattr(op.attrs, f.name) for f in type(op.attrs).fields if f.attribute.kind == "axes"}
        changed = {name: cut_axes(axes, cuts) for name, axes in named.items() if axes}
        return replace(op, loops=loops, attrs=op.attrs.but(**changed) if changed else op.attrs)

    return replace(graph.map_ops(own, graph.level), mesh=cut_mesh(graph.the_mesh, cuts))
