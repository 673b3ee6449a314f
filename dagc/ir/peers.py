"""The peers of a rank in a permute, by mesh position."""

from __future__ import annotations

import numpy as np

from ..base.frozen import record
from .mesh import Mesh
from .op import Op
from .ops.attributes.moves import RingTurnAttrs
from .segment import Segment
from .sharding import Axes, Sharding

Position = tuple[int, ...]


@record
class Peers:
    """Where a rank's block goes, and where it gets its own from; a rank that already has it gets nothing."""

    targets: dict[Position, list[Position]]
    source: dict[Position, Position]


def peers(segment: Segment, op: Op, mesh: Mesh) -> Peers:
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    return _ring(op, got, mesh) if isinstance(op.attrs, RingTurnAttrs) else _moved(op, have, got, mesh)


def _ring(op: Op, layout: Sharding, mesh: Mesh) -> Peers:
    """Blocks of the context go round: each rank sends to the one with the next block."""
    split = next(axes for axes in layout.dims if set(op.axes) <= set(axes))
    axes = tuple(a for a in split if a in op.axes)
    size = mesh.size(axes)
    peers = Peers({}, {})
    for at in np.ndindex(mesh.shape):
        target = _with(at, axes, (_block(at, axes, mesh) + 1) % size, mesh)
        peers.targets[at] = [target]
        peers.source[target] = at
    return peers


def _moved(op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> Peers:
    """Each rank gets its block of the result from a rank of its group that has it."""
    owners: dict[tuple[Position, Position], list[Position]] = {}
    for at in np.ndindex(mesh.shape):
        owners.setdefault((_outside(at, op.axes, mesh), _blocks(at, have, mesh)), []).append(at)
    peers = Peers({at: [] for at in np.ndindex(mesh.shape)}, {})
    for at in np.ndindex(mesh.shape):
        holders = owners[_outside(at, op.axes, mesh), _blocks(at, got, mesh)]
        if at not in holders:
            peers.targets[holders[0]].append(at)
            peers.source[at] = holders[0]
    return peers


def _block(at: Position, axes: Axes, mesh: Mesh) -> int:
    index = 0
    for axis in axes:
        index = index * mesh.sizes[axis] + at[mesh.index[axis]]
    return index


def _blocks(at: Position, layout: Sharding, mesh: Mesh) -> Position:
    return tuple(_block(at, axes, mesh) for axes in layout.dims)


def _outside(at: Position, axes: Axes, mesh: Mesh) -> Position:
    return tuple(i for i, (name, _) in zip(at, mesh.atoms, strict=True) if name not in axes)


def _with(at: Position, axes: Axes, block: int, mesh: Mesh) -> Position:
    out = list(at)
    for axis in reversed(axes):
        block, out[mesh.index[axis]] = divmod(block, mesh.sizes[axis])
    return tuple(out)
