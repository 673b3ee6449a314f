"""What a plan expects of one rank in one pass: calls and seconds by class, and how busy it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..base.collectives import ACROSS, SEND
from ..base.frozen import record, replace
from ..ir.op import Op
from ..ir.ops.op_set import OPS
from ..plan.result import PhaseResult
from ..view.facts.timeline import Member, Slice, everyone, slices
from .busy import NOTHING, Activity, activity
from .kernel_classes import COMPUTE, COPY, EXCHANGE

ROWS: Mapping[str, str] = {
    "attend": "attention", "select": "attention", "rope": "attention", "cache": "attention", "pool": "attention", "temper": "attention",
    "delta": "linear_attention", "conv": "linear_attention", "route": "experts", "dispatch": "experts", "combine": "experts", "empty_weight": "experts",
    "lookup": "embedding", "argmax": "sampling", "last": "sampling",
    "permute": SEND.name, "ring_turn": SEND.name, **dict.fromkeys(ACROSS, SEND.name), SEND.name: SEND.name,
    "softmax_merge": "all_reduce", "softmax_scatter": "reduce_scatter",
}  # fmt: skip
"""Kinds of op -> the row of a comparison, which kernel_classes.json names too. NCCL has one kernel for all that goes from rank to rank."""
PARTS: Mapping[str, str] = {"compute": COMPUTE, "copy": COPY}
"""Of a GPU's time, by the stream; on others it exchanges."""
OTHER = "elementwise"
"""Norms too: engines fuse them with additions, activations and casts, each in its own way, so that only their sum compares."""


@record
class PlannedRow:
    calls: float
    time_s: float


@record
class PlannedRank:
    """Of the mean pass. `period_s`: from one pass to the next."""

    rows: Mapping[str, PlannedRow]
    activity: Activity
    period_s: float


def row_of(op: Op) -> str:
    """The row in which the time of an op is."""
    if op.is_collective:
        return ROWS.get(op.runtime_kind, op.runtime_kind)
    if OPS[op.kind].product:
        return "experts" if op.scope == "experts" else "gemm"
    return ROWS.get(op.kind, "experts" if op.scope == "experts" else OTHER)


def members(result: PhaseResult) -> list[Member]:
    """Of each rank of a job, by its number: GPU ids in order, as `dagc run` and the launch commands number them."""
    return sorted(everyone(result), key=lambda member: member.gpu)


def planned(result: PhaseResult, member: Member) -> PlannedRank:
    """Of a rank; of a prompt that takes several passes their mean, with the passes that draft in every decode step."""
    rows: dict[str, PlannedRow] = {}
    whole, period_s = NOTHING, 0.0
    stages = len(result.graph.stages)
    for one, weight in _passes(result):
        start, end, part = [], [], []
        kinds = {(s.name, op.name): row_of(op) for s in one.graph.segments for op in s.ops}
        for piece in _pieces(one, member, stages):
            row = kinds.get((piece.segment, piece.op), ROWS.get(piece.kind, ""))
            if not row:
                continue  # the host's time
            before = rows.get(row, PlannedRow(0.0, 0.0))
            rows[row] = PlannedRow(before.calls + weight, before.time_s + weight * (piece.end_s - piece.start_s))
            start.append(piece.start_s)
            end.append(piece.end_s)
            part.append(PARTS.get(piece.stream, EXCHANGE))
        found = activity(np.array(start), np.array(end), np.array(part, dtype=np.str_))
        whole = whole.plus(found, weight)
        period_s += weight * one.schedule.period_s
    return PlannedRank(rows, whole, period_s)


def _passes(result: PhaseResult) -> Iterator[tuple[PhaseResult, float]]:
    """Each sort of pass, and how many of it there are for one pass of the model."""
    total = sum(chunk.count for chunk in result.chunks) or 1.0
    for chunk in result.chunks:
        yield replace(result, costs=chunk.costs, schedule=chunk.schedule, at_peak=chunk.at_peak), chunk.count / total
    for draft in result.drafter.passes if result.drafter is not None else ():
        chunk = draft.chunk
        drafting = replace(result, graph=draft.graph, costs=chunk.costs, schedule=chunk.schedule, at_peak=chunk.at_peak)
        yield drafting, chunk.count / total


def _pieces(one: PhaseResult, member: Member, stages: int) -> Iterator[Slice]:
    """What a rank does in a pass of a plan of so many stages. Passes that draft have one, the last of them."""
    drafts = len(one.graph.stages) < stages
    if not drafts:
        yield from slices(one, member)
    elif member.stage == stages - 1:
        yield from slices(one, replace(member, stage=0))
