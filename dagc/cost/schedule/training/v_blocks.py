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


def _pulled(blocks: Sequence[Slots], end: int) -> list[list[int]]:
    """What GPUs run in the slots before `end`, empty ones filled with cells from later ones."""
    gpus, most = len(blocks), max(map(_peak, blocks))
    slots = [[list(range(first, end, DISTANCE)) for first in block] for block in blocks]
    lanes = [[-1] * end for _ in blocks]
    held = []
    for own, lane in zip(slots, lanes, strict=True):
        for kind, mine in enumerate(own):
            for slot in mine:
                lane[slot] = kind
        held.append(_held(lane))
    done = [[0] * DISTANCE for _ in blocks]

    def movable(gpu: int, kind: int, slot: int) -> bool:
        """Whether the next cell of a kind, which is later, can run in this slot."""
        number, mine = done[gpu][kind], slots[gpu][kind]
        if number >= len(mine):
            return False
        source = _source(kind, gpu, gpus)
        if source is not None and slots[source[1]][source[0]][number] >= slot:
            return False
        return HELD[kind] <= 0 or max(held[gpu][slot : mine[number]]) < most

    for slot in range(end):
        for gpu, lane in enumerate(lanes):
            kind = lane[slot]
            if kind < 0:
                found = [k for k in range(DISTANCE) if movable(gpu, k, slot)]
                if not found:
                    continue
                kind = min(found, key=lambda k: slots[gpu][k][done[gpu][k]])
                mine, number = slots[gpu][kind], done[gpu][kind]
                lane[slot], lane[mine[number]] = kind, -1
                _move(held[gpu], HELD[kind], mine[number], slot)
                mine[number] = slot
            done[gpu][kind] += 1
    return [[kind for kind in lane if kind >= 0] for lane in lanes]


def _held(lane: Sequence[int]) -> list[int]:
    """Chunks held during each slot: a cell's own from its begin, those that it frees until its end."""
    found, now = [], 0
    for kind in lane:
        change = HELD[kind] if kind >= 0 else 0
        found.append(now + max(0, change))
        now += change
    return found


def _move(held: list[int], change: int, slot: int, to: int) -> None:
    """A cell moves from a slot to an earlier one."""
    late = change < 0  # what it frees is held during its own slot
    for at in range(to + late, slot + late):
        if at < len(held):
            held[at] += change


def _drained(blocks: Sequence[Slots], before: Sequence[Sequence[int]], microbatches: int) -> list[list[int]]:
    """What GPUs run after `before`, so that all micro-batches are done: slot by slot, what its block has first."""
    gpus, most = len(blocks), max(map(_peak, blocks))
    done = [[list(own).count(kind) for kind in range(DISTANCE)] for own in before]
    held = [sum(HELD[kind] for kind in own) for own in before]
    found: list[list[int]] = [[] for _ in blocks]
    left = gpus * DISTANCE * microbatches - sum(map(len, before))

    def ready(gpu: int, kind: int) -> bool:
        number = done[gpu][kind]
        if number >= microbatches or (HELD[kind] > 0 and held[gpu] >= most):
            return False
        source = _source(kind, gpu, gpus)
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
