"""zero_bubble: 1F1B whose gradients of weights wait, to run where the pipeline would be idle (ZB-H1, ZB-H2).

Qi et al., "Zero Bubble Pipeline Parallelism", 2023, figures 2 and 3. H1 holds as much as 1F1B: the i-th GPU takes the gradient of
its weights i micro-batches late. H2 starts with nearly twice as many forward cells, so that no GPU waits at all.
"""

from __future__ import annotations

from .cell_orders import Order, PipelineSchedule, loop_route
from .order_writer import OrderWriter, forward, inputs, weights


def zb_h1(gpus: int, microbatches: int, chunks: int = 1) -> PipelineSchedule:
    orders = tuple(_order(gpus - 1 - i, i, microbatches) for i in range(gpus))
    return PipelineSchedule("zb_h1", gpus, microbatches, chunks, loop_route(gpus, chunks, microbatches), orders)


def zb_h2(gpus: int, microbatches: int, chunks: int = 1) -> PipelineSchedule:
    orders = tuple(_order(2 * (gpus - 1 - i), 2 * i, microbatches) for i in range(gpus))
    return PipelineSchedule("zb_h2", gpus, microbatches, chunks, loop_route(gpus, chunks, microbatches), orders)


def _order(ahead: int, late: int, microbatches: int) -> Order:
    """`ahead` forward cells, then in turn: one more, the gradient of an input, and that of the weights `late` micro-batches
    before."""
    ahead, late = min(ahead, microbatches), min(late, microbatches)
    order = OrderWriter()
    order.repeat(ahead, forward())
    done = 0
    for end in (*sorted((late, microbatches - ahead)), microbatches):
        kinds = [forward()] * (done < microbatches - ahead) + [inputs()] + [weights()] * (done >= late)
        order.repeat(end - done, *kinds)
        done = end
    order.repeat(late, weights())
    return order.order()
