"""gpipe: all forward cells, then all backward cells.

Huang et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", 2019. The gradients are taken in
the order of the micro-batches, as Megatron-LM and PyTorch do; the paper's figure has them from the last to the first, which
takes as long.
"""

from __future__ import annotations

from .cell_orders import PipelineSchedule, loop_route
from .order_writer import OrderWriter, backward, forward


def gpipe(gpus: int, microbatches: int, chunks: int = 1) -> PipelineSchedule:
    order = OrderWriter()
    order.repeat(microbatches, forward())
    order.repeat(microbatches, backward())
    route = loop_route(gpus, chunks, microbatches)
    return PipelineSchedule("gpipe", gpus, microbatches, chunks, route, (order.order(),) * gpus)
