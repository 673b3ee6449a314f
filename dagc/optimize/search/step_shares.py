"""step_shares: which layers each GPU of a pipeline has under a schedule, as matrices, and how many micro-batches it holds at least."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...base.frozen import record
from ...cost.schedule.training.cell_orders import PipelineSchedule
from ...cost.schedule.training.in_flight import peaks
from ...cost.schedule.training.schedule_table import make
from ...pipeline.train import WHOLE, chunks_of
from .objectives import Floats
from .space import Ints


@record(slots=False)
class Shares:
    """Rows are GPUs of a pipeline, columns kinds of layer. `layers`: that it stores; `run`: those that a micro-batch passes there, on the mean;
    `before`: those that a micro-batch has passed before it is there, at least; `chunk`: of one of its chunks, at least. `whole`: gradients of inputs
    and weights come together."""

    layers: Floats
    run: Floats
    before: Floats
    chunk: Floats
    whole: bool


@lru_cache(maxsize=4096)
def order(schedule: str, gpus: int, microbatches: int, chunks: int, overlapped: bool) -> PipelineSchedule:
    """Raises Unmet."""
    return make(schedule, gpus, microbatches, chunks, overlapped=overlapped)


@lru_cache(maxsize=16384)
def held(schedule: str, gpus: int, microbatches: int, chunks: int, overlapped: bool) -> tuple[float, ...]:
    """By GPU: micro-batches of its chunks that it holds at once at least, whose gradient of the input is not there yet."""
    own = order(schedule, gpus, microbatches, chunks, overlapped)
    return tuple(peak.held for peak in peaks(own, [1.0] * own.stages, [0.0] * own.stages))


def shares(own: PipelineSchedule, layers: Sequence[int], kinds: int, cut: Sequence[int] | None) -> Shares:
    """`layers`: all of them in order, by kind; `cut`: of each stage, where they are uneven."""
    names = [str(kind) for kind in layers]
    parts = chunks_of(names, own.stages, cut)
    counts = np.zeros((own.stages, kinds))
    for stage, names_of in enumerate(parts):
        for name in names_of:
            counts[stage, int(name)] += 1
    ahead = np.cumsum(counts, axis=0) - counts
    of: list[list[int]] = [[] for _ in range(own.gpus)]
    for (gpu, _), (_, stage) in own.stage_at.items():
        of[gpu].append(stage)
    total = np.asarray([counts[stages].sum(axis=0) for stages in of])
    return Shares(
        total,
        total / len(own.routes),
        np.asarray([ahead[stages].min(axis=0) for stages in of]),
        np.asarray([counts[stages].min(axis=0) for stages in of]),
        own.name in WHOLE,
    )


def least_step_s(cells: Floats, own: Shares, micro: Ints) -> Floats:
    """Seconds of a step at least, without its update, of some rows. `cells` [4, kinds, rows]: forward, backward, input, weight.

    A GPU begins when a micro-batch has come to it and then has to run all its cells; after its last gradient of an input, that goes on through
    the stages before. Gradients of weights alone may come after that."""
    forward_s, backward_s, input_s, weight_s = cells
    first_s = own.before @ forward_s
    ahead_s = own.run @ forward_s
    if own.whole:
        most: Floats = (first_s + micro * (ahead_s + own.run @ backward_s) + own.before @ backward_s).max(axis=0)
        return most
    back_s = own.run @ input_s
    busy_s = first_s + micro * (ahead_s + back_s + own.run @ weight_s)
    chain_s = first_s + micro * (ahead_s + back_s) + own.before @ input_s
    split: Floats = np.maximum(busy_s, chain_s).max(axis=0)
    return split


def update_s(
    update: Floats, cells: Floats, own: Shares, hides: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> Floats:
    """Seconds of the update. `update` [2, kinds, rows]: all of it, and its collectives, which hide under a micro-batch's cells where `hides`."""
    time_s, moved_s = own.layers @ update[0], own.layers @ update[1]
    under_s = own.layers @ (cells[0] + cells[2] + cells[3])
    found: Floats = (time_s - np.where(hides, np.minimum(moved_s, under_s), 0.0)).max(axis=0)
    return found
