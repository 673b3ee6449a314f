"""Token ids on their way to the ranks, and what these chose on its way back: the two ends of a placed graph.

Both follow from layouts: ranks that have different sequences (replicas, data-parallel ranks) are given different ids. Where every
rank has the whole batch there is nothing to scatter, and no node.
"""

from __future__ import annotations

from ..base.collectives import GATHER, SCATTER
from ..base.frozen import record, replace
from .graph import Graph
from .groups import GroupShape
from .mesh import Mesh
from .ops.sizes import local_bytes
from .segment import Segment
from .sharding import Axes, Sharding

IDS = "tokens"
"""What the first layer of a model takes: ids from the front end. Other values are a test's."""


@record
class RequestMove:
    """`kind`: scatter or gather; `value` of `segment`, whose sequences are split over `axes`, in the layout that ranks have of
    it. One rank of each group over `axes`, the first, is where the front end is: what it holds is `whole` in the batch, and split
    in other dimensions as on the ranks."""

    kind: str
    segment: str
    value: str
    stage: int
    axes: Axes
    layout: Sharding
    whole: Sharding

    def payload_B(self, graph: Graph) -> float:
        """Local input of one call: of a scatter all ids of the group, of a gather one rank's."""
        held = self.whole if self.kind == SCATTER.name else self.layout
        return local_bytes(graph.segment(self.segment), self.value, held.dims, graph.the_mesh)

    @property
    def cut(self) -> tuple[Axes, ...]:
        """How what the root holds is cut into what ranks have."""
        return tuple(() if own == held else own for own, held in zip(self.layout.dims, self.whole.dims, strict=True))

    def group(self, mesh: Mesh) -> GroupShape:
        """Where its GPUs are; of groups that differ the widest spread one."""
        groups = mesh.groups(self.axes)
        return mesh.shape_of(groups.reshape(mesh.stages, -1, groups.shape[1])[self.stage])


def request_moves(graph: Graph) -> tuple[RequestMove, ...]:
    """Those of a sharded graph: the scatter, then the gather, once each for a lane of a micro-batch."""
    first, last = graph.embedding, graph.head
    found = (
        _move(graph, SCATTER.name, first, first.input, 0) if first.input == IDS else None,
        _move(graph, GATHER.name, last, last.output, len(graph.stages) - 1),
    )
    return tuple(move for move in found if move is not None)


def _move(graph: Graph, kind: str, segment: Segment, value: str, stage: int) -> RequestMove | None:
    """Over the axes that split the value's batch; none where no axis does."""
    layout, dims = segment.sharding_of(value), segment.dims_of(value)
    if layout is None or "batch" not in dims:
        return None
    at = dims.index("batch")
    axes = layout.dims[at]
    if graph.the_mesh.size(axes) < 2:
        return None
    whole = replace(layout, dims=(*layout.dims[:at], (), *layout.dims[at + 1 :]))
    return RequestMove(kind, segment.name, value, stage, graph.the_mesh.sort(axes), layout, whole)
