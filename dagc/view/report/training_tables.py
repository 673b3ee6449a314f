"""Tables of a training phase, for every report: the head of each, and its rows in words."""

from __future__ import annotations

from ...base.units import BYTES, TIME, TOKEN_RATE, show
from ...plan.plan import CompiledPlan
from ...plan.result import CollectiveTotal
from ...plan.step_totals import step_collectives, step_ops
from ...plan.trained import TrainingResult
from ...spec.metrics.metric import percent
from ..facts import training_words as said

Row = list[str]
MOST = 8
"""Ops that are listed."""
SUMMARY_HEAD = ["training", "GPUs", "step", "throughput", "per GPU", "MFU", "bubble", "exposed", "memory, fullest GPU"]
MEMORY_HEAD = ["stage", *said.PARTS, "peak", "of capacity", "in flight"]
BRIEF_HEAD = ["stage", *said.PARTS[:4], "other", "peak", "full"]
CELLS_HEAD = ["layer", "layers", "cell", "time", "exposed", "collectives"]
COLLECTIVES_HEAD = ["collective", "cell", "over", "ranks", "calls", "on the wire", "time"]
OPS_HEAD = ["op", "kind", "cell", "times", "time", "share"]


def summary(plan: CompiledPlan) -> tuple[Row, list[Row]]:
    """The table that has a row per training phase: its head and rows."""
    rows = []
    for name, result in plan.trainings.items():
        worst = result.worst
        rows.append(
            [
                name, str(len(result.gpus)), show(result.time_s, TIME), show(result.throughput_tok_s, TOKEN_RATE),
                show(result.throughput_tok_s / len(result.gpus), TOKEN_RATE), percent(result.mfu), percent(result.bubble),
                percent(result.exposed), f"{show(worst.peak_B, BYTES)} ({result.fraction:.1%})",
            ]
        )  # fmt: skip
    return SUMMARY_HEAD, rows


def memory_rows(result: TrainingResult) -> list[Row]:
    """A row per stage, alike neighbours together."""
    return [
        [
            said.stages_text(stages), *(_size(said.part_B(need, part)) for part in said.PARTS), _size(need.peak_B),
            f"{need.peak_B / need.capacity_B:.1%}", f"{need.in_flight:.3g}",
        ]
        for stages, need in said.stages_alike(result)
    ]  # fmt: skip


def brief_memory_rows(result: TrainingResult) -> list[Row]:
    """The same in fewer columns."""
    return [
        [
            said.stages_text(stages), *(_size(said.part_B(need, part)) for part in said.PARTS[:4]),
            _size(sum(said.part_B(need, part) for part in said.PARTS[4:])), _size(need.peak_B),
            f"{need.peak_B / need.capacity_B:.1%}",
        ]
        for stages, need in said.stages_alike(result)
    ]  # fmt: skip


def cell_rows(result: TrainingResult) -> list[Row]:
    """Cells of each kind of layer, those that the schedule runs."""
    apart = result.steps.times.backward_s is None
    unused = ("backward",) if apart else ("input", "weight")
    order = {segment.name: k for k, segment in enumerate(result.graph.segments)}
    found = [(layer, cell, cost) for (layer, cell), cost in result.cells.items() if cell not in unused]
    found.sort(key=lambda one: order[one[0]])
    return [
        [layer, str(result.graph.segment(layer).repeat), cell, _time(cost.time_s), _time(cost.exposed_s), _time(cost.moved_s)]
        for layer, cell, cost in found
    ]  # fmt: skip


def collective_rows(result: TrainingResult, stage: int) -> list[Row]:
    """Of one GPU of the pipeline by cell, kind and group, the longest first; what is received is what another one sends."""
    totals: dict[tuple[str, str, str], tuple[CollectiveTotal, int, float, float]] = {}
    for one in step_collectives(result, stage):
        c = one.total
        if c.kind != "recv":
            key = (one.cell, c.kind, "+".join(c.axes))
            _, count, wire_B, time_s = totals.get(key, (c, 0, 0.0, 0.0))
            totals[key] = (c, count + c.count, wire_B + c.wire_B, time_s + c.time_s)
    found = sorted(totals.items(), key=lambda item: -item[1][3])
    return [
        [kind, cell, over, str(c.group_size), str(count), _size(wire_B), _time(time_s)]
        for (cell, kind, over), (c, count, wire_B, time_s) in found
    ]


def op_rows(result: TrainingResult, stage: int, most: int = MOST) -> list[Row]:
    """The longest; shares are of the step."""
    return [
        [
            f"{one.layer}/{one.op}", one.kind, one.cell, str(one.count), _time(one.time_s),
            f"{one.time_s / result.time_s:.1%}",
        ]
        for one in step_ops(result, stage)[:most]
    ]  # fmt: skip


def _size(size_B: float) -> str:
    return show(size_B, BYTES, 3) if size_B else ""


def _time(time_s: float) -> str:
    return show(time_s, TIME, 3) if time_s else ""
