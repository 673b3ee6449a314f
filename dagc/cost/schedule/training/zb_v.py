"""zb_v: two chunks per GPU in the shape of a V, and no bubble where forward, input and weight cells take as long.

Qi et al., "Zero Bubble Pipeline Parallelism", 2023, section 6 and figure 6. The first GPU has both ends of the model, so the first
gradient is there as soon as the last forward cell, and all GPUs hold alike.
"""

from __future__ import annotations

from .cell_orders import Order, PipelineSchedule, first_microbatches, vee_route
from .order_writer import OrderWriter, forward, inputs, weights


def zb_v(gpus: int, microbatches: int, chunks: int = 2) -> PipelineSchedule:
    """Of fewer micro-batches than fill the pipeline, the first ones of those that do."""
    whole = max(microbatches, 2 * gpus - 1)
    orders = tuple(_order(gpus, i, whole) for i in range(gpus))
    made = PipelineSchedule("zb_v", gpus, whole, chunks, vee_route(gpus, whole), orders)
    return first_microbatches(made, microbatches)


def _order(gpus: int, gpu: int, microbatches: int) -> Order:
    first = (forward(0), inputs(0), weights(0))
    second = (forward(1), inputs(1), weights(1))
    behind = gpus - 1 - gpu
    order = OrderWriter()
    order.repeat(2 * behind + 1, forward(0))
    order.repeat(gpu, forward(1), forward(0))
    order.repeat(behind + 1, *second)
    order.repeat(microbatches - gpus - behind, *first, *second)
    order.repeat(behind, *first[1:], *second)
    order.repeat(gpu, inputs(0), inputs(1))
    order.repeat(behind + 1, *first[1:])
    order.repeat(gpu, weights(1))
    order.repeat(gpu, weights(0))
    return order.order()
