"""v_blocks: zero-bubble schedules in the shape of a V that hold a half or a third of what 1F1B holds (V-Half, V-Min).

Qi et al., "Pipeline Parallelism with Controllable Memory", 2024. One micro-batch is a building block: when each of its cells runs on
each GPU, in cells' time. Blocks follow each other at a distance of six, the cells of a micro-batch on a GPU, without collisions;
how long a block holds activations is what the schedule holds. Weights' gradients take the slots that are left.

Before blocks are at all GPUs, and when no more of them begin, there are empty slots. At the beginning a cell moves to an empty slot
as soon as it can run there, if the peak of the blocks is kept on the way to its own slot; at the end each GPU runs what its block
has first, and weights' gradients where nothing else can run. The paper does this by a search over whole orders. All of it depends
on the number of GPUs alone: more micro-batches are more runs of the loop between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ....base.frozen import mutable
from ...records import Array
from .cell_orders import Order, PipelineSchedule, vee_route
from .order_writer import OrderWriter, forward, inputs, weights

KINDS = (forward(0), forward(1), inputs(1), inputs(0), weights(1), weights(0))
"""In the order in which a micro-batch passes them; weights' gradients last."""
DISTANCE = len(KINDS)
"""Slots from a block to the next."""
HELD = (1, 1, 0, 0, -1, -1)
"""What each kind adds to the chunks whose activations are held."""

Slots = tuple[int, ...]
"""Of a block on a GPU, by kind."""


class Ends(NamedTuple):
    """Kinds (as indices of KINDS) that each GPU runs before the loop and after it, and how many blocks begin in them."""

    blocks: int
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]


def v_half(gpus: int, microbatches: int, chunks: int = 2) -> PipelineSchedule:
    return _made("v_half", gpus, microbatches, chunks)


def v_min(gpus: int, microbatches: int, chunks: int = 2) -> PipelineSchedule:
    return _made("v_min", gpus, microbatches, chunks)


def _half(gpus: int, gpu: int) -> Slots:
    """Forward cells down the first chunks and input gradients down the second ones take two slots a GPU, the others one."""
    wait = 0 if gpus % 2 else 3
    return 2 * gpu, 3 * gpus - gpu - 2, 3 * gpus + wait + 2 * gpu - 1, 6 * gpus + wait - gpu - 2


def _least(gpus: int, gpu: int) -> Slots:
    """Everything takes one slot a GPU, so that no block is shorter."""
    wait = 0 if gpus % 3 else 2
    return gpu, 2 * gpus - gpu - 1, 2 * gpus + wait + gpu, 4 * gpus + wait - gpu - 1


BLOCKS: dict[str, Callable[[int, int], Slots]] = {"v_half": _half, "v_min": _least}
"""Name of a schedule -> slots of forward cells and input gradients by (GPUs, GPU)."""


def _made(name: str, gpus: int, microbatches: int, chunks: int) -> PipelineSchedule:
    blocks = _blocks(name, gpus)
    fill = max(max(slots) for slots in blocks) // DISTANCE + 1
    ends = _ends(name, gpus, min(fill, microbatches))
    orders = tuple(_order(blocks[i], fill, ends, i, microbatches) for i in range(gpus))
    return PipelineSchedule(name, gpus, microbatches, chunks, vee_route(gpus, microbatches), orders)


def _order(slots: Slots, fill: int, ends: Ends, gpu: int, microbatches: int) -> Order:
    """The loop has the kinds in the order of their slots."""
    body = sorted(range(DISTANCE), key=lambda kind: slots[kind] % DISTANCE)
    order = OrderWriter()
    order.each([KINDS[kind] for kind in ends.before[gpu]])
    order.repeat(microbatches - fill, *(KINDS[kind] for kind in body))
    order.each([KINDS[kind] for kind in ends.after[gpu]])
    return order.order()


@lru_cache(maxsize=64)
def _blocks(name: str, gpus: int) -> tuple[Slots, ...]:
    """Slots of all kinds: weights' gradients have the two that are left, in the order in which they wait the least."""
    found = []
    for gpu in range(gpus):
        slots = BLOCKS[name](gpus, gpu)
        one, other = sorted(set(range(DISTANCE)) - {slot % DISTANCE for slot in slots})
        choices = [
            tuple(slot + 1 + (left - slot - 1) % DISTANCE for slot, left in zip(slots[2:], lefts, strict=True))
            for lefts in ((one, other), (other, one))
        ]
        found.append((*slots, *min(choices, key=sum)))
    return tuple(found)


@lru_cache(maxsize=64)
def _ends(name: str, gpus: int, microbatches: int) -> Ends:
    """Of no more micro-batches than begin before blocks are at all GPUs."""
    blocks = _blocks(name, gpus)
    before = _pulled(blocks, DISTANCE * microbatches)
    return Ends(microbatches, tuple(map(tuple, before)), tuple(map(tuple, _drained(blocks, before, microbatches))))


def _source(kind: int, gpu: int, gpus: int) -> tuple[int, int] | None:
    """(kind, GPU) of the cell whose result a cell takes."""
    if kind >= 4:
        return kind - 2, gpu
    at = gpu + (1 if kind % 2 else -1)  # the first kind and the third go down the row, the others up
    if 0 <= at < gpus:
        return kind, at
    return (kind - 1, gpu) if kind else None


def _peak(slots: Slots) -> int:
    """Chunks that are held at most where blocks follow each other: each as often as it overlaps with its own next ones."""
    held = ((slots[0], slots[5]), (slots[1], slots[4]))
    return max(
        sum((at - begin) // DISTANCE - (at - end - 1) // DISTANCE for begin, end in held)
        for at in range(slots[5], slots[5] + DISTANCE)
    )


@mutable
class _Lane:
    """A GPU before its blocks are all there. `kinds`: what it runs by slot, -1 where that is nothing; `slots`: of each kind, by
    micro-batch; `held`: chunks whose activations are held during each slot; `full`: the next slot with the most that may be."""

    kinds: list[int]
    slots: list[list[int]]
    held: Array
    done: list[int]
    most: int
    full: int = 0

    @staticmethod
    def of(block: Slots, end: int, most: int) -> _Lane:
        slots = [list(range(first, end, DISTANCE)) for first in block]
        kinds = [-1] * end
        change = np.zeros(end + 1, dtype=int)
        for kind, mine in enumerate(slots):
            for slot in mine:
                kinds[slot] = kind
            change[np.array(mine, dtype=int) + (HELD[kind] < 0)] += HELD[
                kind
            ]  # what it frees is held during its own slot
        lane = _Lane(kinds, slots, np.cumsum(change), [0] * DISTANCE, most)
        lane.look(0)
        return lane

    def look(self, slot: int) -> None:
        """Find the next full slot anew."""
        full = self.held[slot:] >= self.most
        at = int(full.argmax())
        self.full = slot + at if full[at] else len(self.held)

    def move(self, kind: int, slot: int) -> None:
        """The next cell of a kind to an earlier slot."""
        mine, number = self.slots[kind], self.done[kind]
        self.kinds[slot], self.kinds[mine[number]] = kind, -1
        late = HELD[kind] < 0
        if HELD[kind]:
            self.held[slot + late : mine[number] + late] += HELD[kind]
            self.look(slot)
        mine[number] = slot


def _pulled(blocks: Sequence[Slots], end: int) -> list[list[int]]:
    """What GPUs run in the slots before `end`, empty ones filled with cells from later ones."""
    gpus, most = len(blocks), max(map(_peak, blocks))
    lanes = [_Lane.of(block, end, most) for block in blocks]
    sources = [[_source(kind, gpu, gpus) for kind in range(DISTANCE)] for gpu in range(gpus)]

    def movable(gpu: int, slot: int) -> int | None:
        """The kind whose next cell is the first that can run in this slot."""
        lane, found, first = lanes[gpu], None, end
        for kind in range(DISTANCE):
            number, mine = lane.done[kind], lane.slots[kind]
            if number >= len(mine) or mine[number] >= first or (HELD[kind] > 0 and lane.full < mine[number]):
                continue
            source = sources[gpu][kind]
            if source is None or lanes[source[1]].slots[source[0]][number] < slot:
                found, first = kind, mine[number]
        return found

    for slot in range(end):
        for gpu, lane in enumerate(lanes):
            if lane.full < slot:
                lane.look(slot)
            kind: int | None = lane.kinds[slot]
            if kind is not None and kind < 0:
                kind = movable(gpu, slot)
                if kind is None:
                    continue
                lane.move(kind, slot)
            if kind is not None:
                lane.done[kind] += 1
    return [[kind for kind in lane.kinds if kind >= 0] for lane in lanes]


def _drained(blocks: Sequence[Slots], before: Sequence[Sequence[int]], microbatches: int) -> list[list[int]]:
    """What GPUs run after `before`, so that all micro-batches are done: slot by slot, what its block has first."""
    gpus, most = len(blocks), max(map(_peak, blocks))
    done = [[list(own).count(kind) for kind in range(DISTANCE)] for own in before]
    held = [sum(HELD[kind] for kind in own) for own in before]
    found: list[list[int]] = [[] for _ in blocks]
    left = gpus * DISTANCE * microbatches - sum(map(len, before))
    sources = [[_source(kind, gpu, gpus) for kind in range(DISTANCE)] for gpu in range(gpus)]

    def ready(gpu: int, kind: int) -> bool:
        number = done[gpu][kind]
        if number >= microbatches or (HELD[kind] > 0 and held[gpu] >= most):
            return False
        source = sources[gpu][kind]
        return source is None or done[source[1]][source[0]] > number

    while left:
        chosen = []
        for gpu, slots in enumerate(blocks):
            kinds = [k for k in range(4) if ready(gpu, k)] or [k for k in (4, 5) if ready(gpu, k)]
            if kinds:
                chosen.append((gpu, min(kinds, key=lambda k: slots[k] + DISTANCE * done[gpu][k])))
        for gpu, kind in chosen:
            done[gpu][kind] += 1
            held[gpu] += HELD[kind]
            found[gpu].append(kind)
        left -= len(chosen)
    return found
