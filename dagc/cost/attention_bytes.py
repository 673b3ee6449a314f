"""attention_bytes: what attention moves to and from the memory of a GPU, by either kernel; and what copies bring from its host."""

from __future__ import annotations

from ..base.frozen import record, replace
from ..base.traced import number
from ..ir.graph import Graph
from ..ir.op import Op
from ..ir.ops.attention_work import unfused_kernels
from ..ir.ops.attributes.attention import AttendAttrs
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, traffic
from ..ir.segment import Segment
from .host_copies import copied_bytes


@record
class AttentionBytes:
    """Of a pass on one GPU of the stage that moves most: by flash attention, which keeps scores on the chip, and by kernels that write and
    read them; `moved_B` by those that the phase has; `copied_B` from the host and to it."""

    flash_B: float
    unfused_B: float
    moved_B: float
    copied_B: float = 0.0

    @property
    def saving(self) -> float:
        """How many times as much kernels move that store scores."""
        return self.unfused_B / self.flash_B if self.flash_B else 1.0


def attention_bytes(graph: Graph) -> AttentionBytes | None:
    """None: nothing attends."""
    passes = graph.microbatches * graph.lanes
    of_layer = {s.name: _of_layer(graph, s) for s in graph.segments}
    stages = []
    for stage in graph.stages:
        parts = [[passes * count * each for each in of_layer[name]] for name, count in stage.layers]
        stages.append([sum(column) for column in zip(*parts, strict=True)])
    most = max(stages, key=lambda found: found[2])
    return AttentionBytes(*most) if most[0] else None


def _of_layer(graph: Graph, segment: Segment) -> tuple[float, float, float, float]:
    flash = unfused = moved = copied = 0.0
    for op in segment.ops:
        if op.is_copy and not segment.is_weight(op.name):
            copied += number(sum(copied_bytes(segment, op, graph.the_mesh)))
        if OPS[op.kind].tokens is Tokens.ATTEND:
            own = _flash_bytes(graph, segment, op)
            stored = number(sum(size for _, size in unfused_kernels(segment.within(op.scope), op, graph.the_mesh)))
            flash, unfused = flash + own, unfused + stored
            moved += stored if op.of(AttendAttrs).kernel == "unfused" else own
    return flash, unfused, moved, copied


def _flash_bytes(graph: Graph, segment: Segment, op: Op) -> float:
    found = traffic(segment, replace(op, attrs=op.of(AttendAttrs).but(kernel="flash")), graph.the_mesh)
    moved_B: float = number(found.activations_B)
    return moved_B
