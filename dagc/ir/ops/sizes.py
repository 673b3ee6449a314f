"""The iteration space of an op, and how much of a tensor one rank has in a layout."""

from __future__ import annotations

from ...base.dtypes import DTYPE_BYTES
from ..mesh import Mesh
from ..op import Op
from ..segment import Segment
from ..sharding import Axes


def loop_dims(segment: Segment, op: Op) -> tuple[str, ...]:
    """The iteration space: result dims first, then the dims that only inputs have."""
    key = loop_dims, op.dims, op.inputs
    found: tuple[str, ...] | None = segment.asked.get(key)
    if found is None:
        dims = list(op.dims)
        for name in op.inputs:
            dims.extend(d for d in segment.dims_of(name) if d not in dims)
        found = segment.asked[key] = tuple(dims)
    return found


def loop_axes(op: Op) -> Axes:
    """Every axis that splits the iteration space."""
    return tuple(a for _, axes in op.loops for a in axes)


def by_loops(op: Op, dims: tuple[str, ...]) -> tuple[Axes, ...]:
    """The layout that the op's loops give a tensor of these dims."""
    if not op.loops:
        return ((),) * len(dims)
    split = dict(reversed(op.loops))  # the first that a dim has
    return tuple([split.get(d, ()) for d in dims])


def local_count(segment: Segment, dims: tuple[str, ...], layout: tuple[Axes, ...], mesh: Mesh, scope: str) -> float:
    """Elements on one rank."""
    total = 1.0
    for dim, axes in zip(dims, layout, strict=True):
        total *= segment.size(dim, scope) / mesh.size(axes)
    return total


def local_bytes(segment: Segment, name: str, layout: tuple[Axes, ...], mesh: Mesh) -> float:
    """Bytes of a value or weight on one rank, in the given layout."""
    count = local_count(segment, segment.dims_of(name), layout, mesh, segment.scope_of(name))
    return count * DTYPE_BYTES[segment.dtype_of(name)]
