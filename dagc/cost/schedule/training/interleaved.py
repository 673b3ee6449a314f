"""interleaved: 1F1B with several chunks per GPU, which makes the bubble as many times smaller.

Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", 2021. Micro-batches go through
a chunk in groups of as many as there are GPUs, then the same group goes through the next chunk; gradients likewise, the last
chunk first. As in Megatron-LM, a GPU runs two more forward cells before its first gradient for each GPU behind it.
"""

from __future__ import annotations

from itertools import chain

from .cell_orders import Kind, Order, PipelineSchedule, loop_route
from .order_writer import OrderWriter, Step, backward, forward


def interleaved(gpus: int, microbatches: int, chunks: int, *, paired: bool = False) -> PipelineSchedule:
    """`paired`: a forward and a backward cell run at once, after one forward cell more."""
    orders = tuple(_order(gpus, gpus - 1 - i, microbatches, chunks, paired) for i in range(gpus))
    route = loop_route(gpus, chunks, microbatches)
    return PipelineSchedule("interleaved", gpus, microbatches, chunks, route, orders)


def _order(gpus: int, behind: int, microbatches: int, chunks: int, paired: bool) -> Order:
    total, group = microbatches * chunks, gpus * chunks
    warm = min(total, 2 * behind + (chunks - 1) * gpus + paired)
    groups, rest = divmod(total - warm, group)
    ahead = [forward(chunk) for chunk in range(chunks)]
    back = [backward(chunk) for chunk in reversed(range(chunks))]
    order = OrderWriter()

    def together(*kinds: Kind) -> tuple[Step, ...]:
        return ((kinds[0], kinds[1]),) if paired and len(kinds) == 2 else kinds

    def write(cells: int, at: int | None, back_at: int | None) -> None:
        """So many forward cells from the `at`-th on, gradients from the `back_at`-th on, or both in turn: a loop for as long as the
        chunks stay."""
        while cells:
            ways = [(kinds, k) for kinds, k in ((ahead, at), (back, back_at)) if k is not None]
            times = min([cells, *[gpus - k % gpus for _, k in ways]])
            kinds_now = [kinds[k // gpus % chunks] for kinds, k in ways]
            order.repeat(times, *together(*kinds_now))
            cells -= times
            at, back_at = (None if k is None else k + times for k in (at, back_at))

    write(warm, 0, None)
    if groups < gpus:
        write(total - warm, warm, 0)
    else:
        turns = [together(ahead[(warm + k) // gpus % chunks], back[k // gpus]) for k in range(group)]
        order.repeat(groups, *chain.from_iterable(turns))
        write(rest, warm, 0)
    write(warm, None, total - warm)
    return order.order()
