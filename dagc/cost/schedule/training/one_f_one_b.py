"""one_f_one_b: a forward and a backward cell in turn, so that few micro-batches are held (1F1B).

Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN Training" (PipeDream-Flush), 2021. Before the first gradient arrives, a
GPU runs as many forward cells as there are GPUs behind it.
"""

from __future__ import annotations

from .cell_orders import Order, PipelineSchedule, loop_route
from .order_writer import OrderWriter, backward, forward


def one_f_one_b(gpus: int, microbatches: int, chunks: int = 1, *, paired: bool = False) -> PipelineSchedule:
    """`paired`: a forward and a backward cell run at once. A GPU begins with a forward cell more for itself and for each behind it, so
    that no pair waits for a part of another."""
    order = _pairs if paired else _order
    orders = tuple(order(gpus - 1 - i, microbatches) for i in range(gpus))
    return PipelineSchedule("one_f_one_b", gpus, microbatches, chunks, loop_route(gpus, chunks, microbatches), orders)


def _order(behind: int, microbatches: int) -> Order:
    warm = min(behind, microbatches)
    order = OrderWriter()
    order.repeat(warm, forward())
    order.repeat(microbatches - warm, forward(), backward())
    order.repeat(warm, backward())
    return order.order()


def _pairs(behind: int, microbatches: int) -> Order:
    warm = min(2 * behind + 1, microbatches)
    order = OrderWriter()
    order.repeat(warm, forward())
    order.repeat(microbatches - warm, (forward(), backward()))
    order.repeat(warm, backward())
    return order.order()
