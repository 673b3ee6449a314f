"""layers_in_turn: the layers of a stage one after another in a cell, with the collectives that move their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...base.frozen import record
from ...ir.graph import Stage
from .cell_costs import CellCost


class LayerTimes(NamedTuple):
    """Of one layer, seconds from the begin of the cell on: its weights are gathered, it runs, their gradients are reduced."""

    gather_s: float
    start_s: float
    end_s: float
    scatter_s: float


@record
class StageCost:
    """Seconds of a cell of a stage, of that in which a collective runs and nothing is computed, and in which tokens travel to experts and
    back."""

    time_s: float = 0.0
    exposed_s: float = 0.0
    exchange_s: float = 0.0

    def __add__(self, other: StageCost) -> StageCost:
        """One after the other."""
        return StageCost(
            self.time_s + other.time_s, self.exposed_s + other.exposed_s, self.exchange_s + other.exchange_s
        )


def pair_s(one: StageCost, other: StageCost) -> float:
    """Two cells of different micro-batches at once, each of which computes while tokens of the other travel: at least what both compute, at
    least how long tokens of both travel, and at least each by itself."""
    exchanged_s = sum(min(cell.exposed_s, cell.exchange_s) for cell in (one, other))
    computed_s = one.time_s + other.time_s - exchanged_s
    return max(computed_s, one.exchange_s + other.exchange_s, one.time_s, other.time_s)


def in_turn(cells: Sequence[CellCost], *, overlap: bool) -> list[LayerTimes]:
    """When each layer runs. `overlap`: what moves weights has a stream of its own. From when a layer begins the weights of the next one are
    gathered, so that those of two are there at most; from when it ends, and behind that, its gradients are reduced
    (torch.distributed.fsdp: implicit prefetch). Else nothing runs beside it. Nothing of a cell begins before the cell."""
    found: list[LayerTimes] = []
    moved_s = scattered_s = 0.0
    before = LayerTimes(0.0, 0.0, 0.0, 0.0)
    beside = 1.0
    for k, cost in enumerate(cells):
        gather_s = max(moved_s, before.start_s if overlap else before.end_s)
        moved_s = gathered_s = moved_until(gather_s, cost.gather_s, before, beside)
        own = LayerTimes(gather_s, max(gathered_s, before.end_s), 0.0, 0.0)
        own = own._replace(end_s=own.start_s + cost.own_s)
        beside = max(0.0, 1.0 - cost.shared_s / cost.own_s) if cost.own_s else 1.0
        if k:
            found[-1] = before._replace(scatter_s=max(moved_s, before.end_s))
            moved_s = moved_until(found[-1].scatter_s, scattered_s, own, beside)
        before, scattered_s = own._replace(scatter_s=max(moved_s, own.end_s)), cost.scatter_s
        found.append(before)
    return found


def moved_until(begin_s: float, alone_s: float, layer: LayerTimes, beside: float) -> float:
    """The end of a move that takes `alone_s` alone, and goes at the speed `beside` while a layer runs: what its own collectives leave of
    the links."""
    ahead_s = max(0.0, layer.start_s - begin_s)
    if alone_s <= ahead_s or begin_s >= layer.end_s:
        return begin_s + alone_s
    left_s, from_s = alone_s - ahead_s, max(begin_s, layer.start_s)
    if left_s <= (layer.end_s - from_s) * beside:
        return from_s + left_s / beside
    return layer.end_s + left_s - (layer.end_s - from_s) * beside


def stage_cost(cells: Sequence[CellCost], *, overlap: bool) -> StageCost:
    """Of a cell of a stage whose layers have these costs, in the order in which they run."""
    if not cells:
        return StageCost()
    if not any(cost.gather_s or cost.scatter_s for cost in cells):
        time_s = sum(cost.own_s for cost in cells)
    else:
        last = in_turn(cells, overlap=overlap)[-1]
        time_s = max(last.end_s, last.scatter_s + cells[-1].scatter_s)
    exposed_s = max(0.0, time_s - sum(cost.computed_s for cost in cells))
    return StageCost(time_s, exposed_s, sum(cost.exchange_s for cost in cells))


def cells_in_order(stage: Stage, cells: Mapping[tuple[str, str], CellCost], cell: str) -> list[CellCost]:
    """Of the layers of a stage that have such a cell, gradients from the last to the first."""
    found = [cells[name, cell] for name, count in stage.layers for _ in range(count) if (name, cell) in cells]
    return found if cell == "forward" else found[::-1]


def stage_costs(
    stages: Sequence[Stage], cells: Mapping[tuple[str, str], CellCost], *, overlap: bool
) -> Mapping[tuple[int, str], StageCost]:
    """(stage, name of CELL_GROUPS) -> cost, of all that are of a micro-batch."""
    names = dict.fromkeys(name for _, name in cells if name != "update")
    return {
        (k, name): stage_cost(cells_in_order(stage, cells, name), overlap=overlap)
        for k, stage in enumerate(stages)
        for name in names
    }
