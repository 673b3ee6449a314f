"""dualpipe: micro-batches from both ends of the pipeline, whose forward and backward cells hide each other's communication.

DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, section 3.2.1, and github.com/deepseek-ai/DualPipe, which has DualPipeV too: the
same cut in half, so that the two ends of a pipeline are on one GPU. The order has the eight phases of that implementation.
"""

from __future__ import annotations

from collections.abc import Mapping

from .cell_orders import Order, PipelineSchedule, both_routes, vee_route
from .order_writer import OrderWriter, backward, forward, inputs, weights


def dualpipe(gpus: int, microbatches: int, chunks: int = 2) -> PipelineSchedule:
    half, each = gpus // 2, microbatches // 2
    down = [_order(half, i, each, (0, 1), {1: each}) for i in range(half)]
    up = [_order(half, i, each, (1, 0), {1: each}) for i in reversed(range(half))]
    return PipelineSchedule("dualpipe", gpus, microbatches, chunks, both_routes(gpus, microbatches), (*down, *up))


def dualpipe_v(gpus: int, microbatches: int, chunks: int = 2) -> PipelineSchedule:
    orders = tuple(_order(gpus, i, microbatches, (0, 1), {}) for i in range(gpus))
    return PipelineSchedule("dualpipe_v", gpus, microbatches, chunks, vee_route(gpus, microbatches), orders)


def _order(gpus: int, gpu: int, microbatches: int, chunks: tuple[int, int], first: Mapping[int, int]) -> Order:
    """Of a GPU with so many others between it and the end where its near chunk begins. `chunks`: the near and the far one;
    `microbatches`: of each; `first`: as the writer's."""
    near, far = chunks
    behind = gpus - 1 - gpu
    one, other = (forward(near), backward(far)), (forward(far), backward(near))
    order = OrderWriter(first)
    order.repeat(2 * behind, forward(near))
    order.repeat(gpu + 1, forward(near), forward(far))
    order.repeat(behind, inputs(far), weights(far), forward(far))
    both = microbatches - gpus - behind
    if not behind:  # in the middle of the pipeline nothing has to be waited for: one after the other is sooner done
        order.repeat(1, *one, other)
        both -= 1
    order.repeat(both, one, other)
    order.repeat(behind, backward(far), other)
    # Whole gradients, and from the middle on those of inputs alone; weights' gradients fill the waits, first in, first out.
    whole = gpu + 1
    order.repeat(whole // 2, backward(far), backward(near))
    order.each([backward(far)] * (whole % 2))
    last = [far, near] * (whole // 2) + [near] * behind
    last = [near, *last] if whole % 2 else last
    filled = [kind for k in range(behind) for kind in (weights(last[k]), inputs(last[whole + k]))]
    order.each([*map(inputs, last[:whole]), *filled, *map(weights, last[behind:])])
    return order.order()
