"""step_pieces: what bounds learn from the layout of a training phase: the cells of its layers, their states, and sums of what one rank computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...base.diagnostics import SpecError
from ...base.frozen import record
from ...cost.training.cell_costs import CELL_GROUPS, CellCost
from ...ir.op import COMPUTE, RECOMPUTE, Op
from ...ir.ops.attributes.training import AccumulateAttrs
from ...ir.segment import Segment
from ...ir.verify.violation import VerifyError
from ...pipeline.train import CostedCells
from ...spec.phase import Phase
from .objectives import Floats
from .step_judge import StepJudge

CELLS = ("forward", "backward", "input", "weight")
"""Cells of a micro-batch, by their names in CELL_GROUPS."""
WEIGHTS, KEPT, WORKING, STAGED, GATHERED = HELD = range(5)
"""Rows of what a layer holds."""
GRADIENTS, OPTIMIZER = range(2)


@record(slots=False)
class StepLearnt:
    """Of one layout. `names`: its kinds of layer; `layers`: all layers in order, by place in `names`; the last dimension of arrays is that of `names`.
    `cells` [2, 4]: seconds of CELLS but for what moves weights, without and with overlap, `moves` [2, 4] seconds of that. `update` [2]: seconds of the
    update, and of its collectives. `held` [5], `states` [2]: bytes. `computed` [2, 2, 4, 4]:
    what one rank computes, without what is done anew and with it, seconds and their floors, most and least of attention, then of experts, by cell;
    sums of gradients are in `summed` [4] instead. `flops`: of a step."""

    names: tuple[str, ...]
    layers: tuple[int, ...]
    cells: Floats
    moves: Floats
    update: Floats
    held: Floats
    states: Floats
    computed: Floats
    summed: Floats
    flops: float


def step_pieces(judge: StepJudge, phase: Phase) -> StepLearnt | None:
    """None where the layout is not legal, which costing it says."""
    try:
        own = judge.cells(phase)
    except (SpecError, VerifyError):
        return None
    graph = own.graph
    names = tuple(s.name for s in graph.segments)
    layers = [names.index(name) for stage in graph.stages for name, count in stage.layers for _ in range(count)]
    both = [own.cells(overlap=overlap) for overlap in (False, True)]
    kinds: tuple[Callable[[CellCost], float], ...] = (
        lambda c: c.own_s, lambda c: c.computed_s, lambda c: max(0.0, c.own_s - c.exchange_s), lambda c: c.gather_s + c.scatter_s,
    )  # fmt: skip
    found = np.asarray(
        [[[[kind(c[n, k]) if (n, k) in c else 0.0 for n in names] for k in CELLS] for kind in kinds] for c in both]
    )
    update = [both[0].get((n, "update")) for n in names]
    states = [own.layers.states_of(n, has_table=True) for n in names]
    held = [
        [state.weights_B for state in states],
        [own.kept[n].whole_B * graph.lanes for n in names],
        [own.layers.working[n] for n in names],
        [own.layers.staged[n] for n in names],
        [own.layers.gathered[n] for n in names],
    ]
    return StepLearnt(
        names, tuple(layers), found[:, :3], found[:, 3],
        np.asarray([[0.0 if u is None else u.time_s for u in update], [0.0 if u is None else u.moved_s for u in update]]),
        np.asarray(held), np.asarray([[s.gradients_B for s in states], [s.optimizer_B for s in states]]),
        np.asarray([[[_computed(s, own, cell, anew) for s in graph.segments] for cell in CELLS] for anew in (False, True)]).transpose(0, 3, 4, 1, 2),
        np.asarray([[_summed(s, own, cell) for s in graph.segments] for cell in CELLS]),
        own.flops * phase.batching.filled,
    )  # fmt: skip


def _summed(segment: Segment, own: CostedCells, cell: str) -> float:
    """Seconds of sums of gradients, of which ranks may have a share each."""
    ops = (op for op in segment.ops if op.cell in CELL_GROUPS[cell] and isinstance(op.attrs, AccumulateAttrs))
    return sum(float(own.costs.ops[segment.name, op.name].time_s.max()) for op in ops)


def _computed(segment: Segment, own: CostedCells, cell: str, anew: bool) -> list[list[float]]:
    """Seconds and floors: the most and the least that a rank computes of attention, and of experts."""
    sides: tuple[list[Op], list[Op]] = ([], [])
    for op in segment.ops:
        here = op.cell in CELL_GROUPS[cell] and (anew or op.cell != RECOMPUTE) and op.stream == COMPUTE
        if here and not isinstance(op.attrs, AccumulateAttrs):
            sides[op.scope == "experts"].append(op)
    out = []
    for floor in (False, True):
        row: list[float] = []
        for ops in sides:
            costs = [own.costs.ops[segment.name, op.name] for op in ops]
            arrays = [c.floor_s if floor and c.family else c.time_s for c in costs]
            total = np.sum(np.broadcast_arrays(*arrays), axis=0) if arrays else np.zeros(1)
            row += [float(total.max()), float(total.min())]
        out.append(row)
    return out
