"""host_copies: what copies between the memories of a GPU and its host take.

Both ways at once, over the link of each GPU to its host; the memory of either is faster than that link, and is not counted.
"""

from __future__ import annotations

import numpy as np

from ..base.traced import called
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.op_set import OPS
from ..ir.segment import Segment
from ..spec.hardware import Link
from .records import Array, Costs, OpCost

HOST_LINK = "host_link"
"""Names the links to hosts among what bounds a time."""


def copied_bytes(segment: Segment, op: Op, mesh: Mesh) -> tuple[float, float]:
    """Bytes of one rank that come from its host's memory, and that go there."""
    rule = OPS[op.kind].copies
    return (0.0, 0.0) if rule is None else rule(segment, op, mesh)


def copy_cost(segment: Segment, op: Op, mesh: Mesh, link: Link, share: Array | None = None) -> OpCost:
    """The larger of both ways, behind the link's latency. `share`: of these bytes that each rank moves; None: all."""
    comes_B, goes_B = copied_bytes(segment, op, mesh)
    if share is not None:
        return _shared(comes_B + goes_B, link, share)
    moved_B = max(comes_B, goes_B)
    floor_s = moved_B / link.bandwidth_Bps
    time_s = floor_s + link.latency_s
    return OpCost(_alike(time_s, mesh), _alike(floor_s, mesh), HOST_LINK, bytes=comes_B + goes_B)


@called
def _alike(found: float, mesh: Mesh) -> Array:
    return np.full((1,) * len(mesh.atoms), found)


@called
def _shared(comes_B: float, link: Link, share: Array) -> OpCost:
    floor_s = comes_B * share / link.bandwidth_Bps
    return OpCost(
        floor_s + np.where(floor_s > 0, link.latency_s, 0.0), floor_s, HOST_LINK, bytes=comes_B * float(share.max())
    )


def copy_buffers(segment: Segment, costs: Costs, lanes: int) -> float:
    """Bytes on a GPU for what comes from the host for a layer and goes there: of the one that runs, and where it is prefetched of
    the next."""
    found = 0.0
    for op in segment.ops:
        if op.is_copy:
            found += costs.ops[segment.name, op.name].bytes * (2 if op.is_ahead else 1)
    return found * lanes
