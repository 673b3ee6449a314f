"""Which tokens of a sequence a rank has, and what that means for causal attention.

A layout says into how many blocks the axes cut a dimension; here is which positions the blocks have. In order (contiguous)
the last rank's queries see the most: (2 n - 1) / n times the mean over n ranks. Dealt out in zigzag the sequence is cut
into 2 n pieces, of which rank r takes r and 2 n - 1 - r: all ranks see equally many. The mesh names the axes that deal
(`Mesh.zigzag`); every tensor of such a phase has its tokens in that order, whether it is split or not.
"""

from __future__ import annotations

import numpy as np

from ...base.arrays import NDArray
from ...base.traced import called, is_traced, number
from ..mesh import Mesh
from ..op import Op
from ..segment import Segment
from ..sharding import Axes

Array = NDArray[np.float64]
SEQUENCE_DIMS = ("seq", "context")
"""Dimensions whose entries are positions in a sequence."""

Run = tuple[float, float]
"""Positions from the first to before the second."""


def pieces(size: float, mesh: Mesh) -> list[Run]:
    """The runs of positions that a sequence of `size` tokens consists of, in the order in which they are stored."""
    ranks = mesh.size(mesh.zigzag)
    if ranks == 1:
        return [(0.0, number(size))]
    step = size / (2 * ranks)
    order = [k for rank in range(ranks) for k in (rank, 2 * ranks - 1 - rank)]
    return [(k * step, (k + 1) * step) for k in order]


def order(size: int, mesh: Mesh) -> NDArray[np.int64]:
    """Position of each entry of a sequence dimension. ValueError where zigzag does not divide it."""
    ranks = mesh.size(mesh.zigzag)
    if ranks > 1 and size % (2 * ranks):
        raise ValueError(f"{size} tokens do not divide into {2 * ranks} pieces of zigzag")
    parts = [np.arange(round(a), round(b), dtype=np.int64) for a, b in pieces(size, mesh)]
    return np.concatenate(parts)


def runs(size: float, axes: Axes, mesh: Mesh) -> list[list[Run]]:
    """Positions of each block over `axes` (major axis first), as runs in order that do not touch."""
    blocks = mesh.size(axes)
    runs_of_block: list[list[Run]] = [[] for _ in range(blocks)]
    start = 0.0
    for first, end in pieces(size, mesh):
        length = end - first
        for block, held in enumerate(runs_of_block):
            low = max(start, block * size / blocks)
            high = min(start + length, (block + 1) * size / blocks)
            if high - low > 1e-9 * size:
                held.append((first + low - start, first + high - start))
        start += length
    return [_joined(held) for held in runs_of_block]


def _joined(held: list[Run]) -> list[Run]:
    out: list[Run] = []
    for first, end in sorted(held):
        if out and abs(out[-1][1] - first) < 1e-6:
            out[-1] = (out[-1][0], end)
        else:
            out.append((first, end))
    return out


def over_blocks(values: NDArray[np.float64], axes: Axes, mesh: Mesh) -> Array:
    """A value for each block over `axes`, laid over the mesh; of length one where all are equal."""
    return values.reshape([1] * len(mesh.atoms)) if is_traced(values) else _laid(values, axes, mesh)


@called
def _laid(values: NDArray[np.float64], axes: Axes, mesh: Mesh) -> Array:
    alike = [1] * len(mesh.atoms)
    if np.ptp(values) <= 1e-12 * float(np.abs(values).max(initial=0.0)):
        return values.ravel()[:1].reshape(alike)
    shape = [size if name in axes else 1 for name, size in mesh.atoms]
    ordered = values.reshape([mesh.sizes[a] for a in axes]).transpose(np.argsort([mesh.index[a] for a in axes]))
    return ordered.reshape(shape)


def query_runs(segment: Segment, op: Op, mesh: Mesh) -> list[list[Run]]:
    """Positions of each rank's queries, by block of the op's `seq` loop: the last ones of the context."""
    queries, context = segment.size("seq"), segment.size("context")
    before = context - queries
    return [[(a + before, b + before) for a, b in held] for held in runs(queries, op.loop("seq"), mesh)]
