"""Two compiled training steps side by side: where the busiest GPU of a pipeline spends its time, so that all differences add up."""

from __future__ import annotations

from ...ir.op import BACKWARD, FORWARD, RECOMPUTE, WEIGHT
from ...plan.searched import Part
from ...plan.step_totals import busiest, cell_name, shares, step_ops
from ...plan.trained import TrainingResult
from .compared import REST

COMPUTED = {
    cell_name(FORWARD): "computes forward",
    cell_name(RECOMPUTE): "computes anew",
    cell_name(BACKWARD): "computes gradients of inputs",
    cell_name(WEIGHT): "computes gradients of weights",
}
"""What is computed in a cell, in words."""
MOVED, WAITS, UPDATED = "moves data and computes nothing", "waits for other stages", "makes new weights"


def step_parts(own: TrainingResult, other: TrainingResult, units: tuple[float, float]) -> tuple[Part, ...]:
    """The largest difference first; `units`: what each step is in the unit of the comparison."""
    before, after = (_scaled(result, unit) for result, unit in zip((own, other), units, strict=True))
    found = [
        Part(name, before.get(name, 0.0), after.get(name, 0.0))
        for name in dict.fromkeys((*before, *after))
        if name != REST
    ]
    found.sort(key=lambda one: -abs(one.other - one.own))
    return (*(one for one in found if one.own or one.other), Part(REST, before[REST], after[REST]))


def _scaled(result: TrainingResult, unit: float) -> dict[str, float]:
    stage = busiest(result)
    split = shares(result, stage)
    out: dict[str, float] = {}
    for op in step_ops(result, stage):
        if op.cell in COMPUTED and not op.is_collective:
            out[COMPUTED[op.cell]] = out.get(COMPUTED[op.cell], 0.0) + op.time_s
    out |= {MOVED: split.exposed_s, WAITS: split.bubble_s, UPDATED: split.update_s}
    out[REST] = result.time_s - sum(out.values())
    return {name: time_s / result.time_s * unit for name, time_s in out.items()}
