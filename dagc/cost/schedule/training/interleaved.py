"""interleaved: 1F1B with several chunks per GPU, which makes the bubble as many times smaller.

Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", 2021. Micro-batches go through
a chunk in groups of as many as there are GPUs, then the same group goes through the next chunk; gradients likewise, the last
chunk first. As in Megatron-LM, a GPU runs two more forward cells before its first gradient for each GPU behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby

from .cell_orders import Kind, Order, PipelineSchedule, loop_route
from .order_writer import OrderWriter, backward, forward


def interleaved(gpus: int, microbatches: int, chunks: int) -> PipelineSchedule:
    orders = tuple(_order(gpus, gpus - 1 - i, microbatches, chunks) for i in range(gpus))
    route = loop_route(gpus, chunks, microbatches)
    return PipelineSchedule("interleaved", gpus, microbatches, chunks, route, orders)


def _order(gpus: int, behind: int, microbatches: int, chunks: int) -> Order:
    total, group = microbatches * chunks, gpus * chunks
    warm = min(total, 2 * behind + (chunks - 1) * gpus)

    def ahead(k: int) -> Kind:
        return forward(k % group // gpus)

    def back(k: int) -> Kind:
        return backward(chunks - 1 - k % group // gpus)

    order = OrderWriter()
    _write_runs(order, [(ahead(k),) for k in range(warm)])
    turns = [(ahead(warm + k), back(k)) for k in range(min(group, total - warm))]
    groups, rest = divmod(total - warm, group)
    if groups * 2 * chunks < len(turns):
        _write_runs(order, turns * groups)
    else:
        order.repeat(groups, *chain.from_iterable(turns))
    _write_runs(order, turns[:rest])
    _write_runs(order, [(back(k),) for k in range(total - warm, total)])
    return order.order()


def _write_runs(order: OrderWriter, steps: Sequence[tuple[Kind, ...]]) -> None:
    """Equal steps in a row as one loop."""
    for step, run in groupby(steps):
        order.repeat(len(list(run)), *step)
