"""A measured run beside a plan's phase: per class of kernels measured against planned, and what drifted."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.collectives import SEND, TRANSFERS
from ..base.frozen import record
from ..base.phase_kinds import DECODE
from ..plan.result import PhaseResult
from .busy import Activity
from .measured_rank import MeasuredRank
from .planned_rank import PlannedRank, members, planned
from .rank_rows import RankRow, rank_rows
from .stragglers import Waits, waits

LEAST_SHARE = 0.01
"""Of the time in which a GPU is busy, the longer of both: rows below it are no drift, whatever their ratio."""


SAME_BATCH = 0.05
"""By which steps may have more or fewer sequences than the plan's."""
NEITHER = (None, None)


@record
class Row:
    """Mean over ranks, of one pass. `name`: a class of the plan; `of`: classes of kernels that it has. None: not planned, or not measured."""

    name: str
    of: tuple[str, ...]
    calls: float | None
    measured_s: float | None
    planned_calls: float | None
    planned_s: float | None
    drifts: bool

    @property
    def ratio(self) -> float | None:
        return self.measured_s / self.planned_s if self.measured_s is not None and self.planned_s else None


@record
class Compared:
    """`measured`, `planned`: mean activity of a rank in one pass; `pass_s`, `planned_pass_s`: from one pass to the next; of a
    prompt, or where passes cannot be told apart, from the first kernel of a pass to its last. `rows`: the largest
    first. `gpus`: of the phase."""

    phase: str
    gpus: int
    tolerance: float
    ranks: tuple[MeasuredRank, ...]
    passes: float
    measured: Activity
    planned: Activity
    pass_s: float
    planned_pass_s: float
    pass_drifts: bool
    rows: tuple[Row, ...]
    waits: Waits
    by_rank: tuple[RankRow, ...]
    notes: tuple[str, ...]

    @property
    def in_plan(self) -> float:
        """Share of the GPU time that is of classes which the plan has."""
        total = sum(row.measured_s or 0.0 for row in self.rows)
        return sum(row.measured_s or 0.0 for row in self.rows if row.planned_s is not None) / total if total else 0.0

    @property
    def drifts(self) -> bool:
        return self.pass_drifts or any(row.drifts for row in self.rows)


def planned_calls(result: PhaseResult) -> dict[str, float]:
    """Row -> how often one pass calls it, mean over ranks."""
    found: dict[str, float] = {}
    every = members(result)
    for stage in {member.stage: member for member in every}.values():
        share = sum(member.stage == stage.stage for member in every) / len(every)
        for name, row in planned(result, stage).rows.items():
            found[name] = found.get(name, 0.0) + share * row.calls
    return found


def compared(result: PhaseResult, ranks: Sequence[MeasuredRank], tolerance: float) -> Compared:
    """`tolerance`: a share by which the measured may be above or below the planned."""
    every = members(result)
    notes: list[str] = []
    named = all(one.rank is not None and one.rank < len(every) for one in ranks)
    sized = all(one.world in (0, len(every)) for one in ranks)
    if not sized:
        worlds = sorted({one.world for one in ranks})
        notes.append(
            f"the run had {', '.join(map(str, worlds))} ranks, the phase has {len(every)} GPUs: another layout"
        )
    own = named and sized
    chosen = [every[one.rank] for one in ranks if one.rank is not None] if own else every
    if not own and sized:
        notes.append("ranks of the traces are not known: compared with the mean of all GPUs of the phase")
    notes += _other_batch(result, ranks)
    if any(one.passes > 1 and one.between_s is None for one in ranks):
        notes.append("passes are counted, not marked: what is between them counts as theirs")
    kept: dict[tuple[int, int], PlannedRank] = {}
    expected = []
    for member in chosen:
        key = member.stage, member.group
        if key not in kept:
            kept[key] = planned(result, member)
        expected.append(kept[key])
    passes = sum(one.passes for one in ranks) / len(ranks)
    measured, plan = (
        _mean([(one.activity, one.passes) for one in ranks]),
        _mean([(one.activity, 1) for one in expected]),
    )
    rows = _rows(ranks, expected, tolerance, max(measured.busy_s, plan.busy_s))
    pass_s, planned_pass_s = _pass_s(result, ranks, expected, measured, plan)
    drifts = _beyond(pass_s, planned_pass_s, tolerance)
    waiting = waits(ranks)
    by_rank = rank_rows(ranks, expected if own else None, waiting)
    return Compared(
        result.name, len(every), tolerance, tuple(ranks), passes, measured, plan, pass_s, planned_pass_s, drifts,
        rows, waiting, by_rank, tuple(notes),
    )  # fmt: skip


def _pass_s(
    result: PhaseResult,
    ranks: Sequence[MeasuredRank],
    expected: Sequence[PlannedRank],
    measured: Activity,
    plan: Activity,
) -> tuple[float, float]:
    """(measured, planned). Steps that generate follow each other: from one to the next. A prompt's own time, since nothing may follow;
    that of a rank, which in a pipeline begins after other ranks."""
    if not result.phase_kind.generates or any(one.passes == 1 for one in ranks):
        return measured.span_s, plan.span_s
    between = [one.between_s if one.between_s is not None else one.activity.span_s / one.passes for one in ranks]
    return sum(between) / len(between), sum(one.period_s for one in expected) / len(expected)


def _other_batch(result: PhaseResult, ranks: Sequence[MeasuredRank]) -> list[str]:
    """Whether steps decode more or fewer sequences than the plan's. In a pipeline a step may be one of several micro-batches."""
    seen = [one.decodes for one in ranks if one.decodes is not None]
    graph = result.graph
    if not seen or result.phase_kind is not DECODE or len(graph.stages) > 1:
        return []
    mine = sum(seen) / len(seen)
    planned_here = graph.body[0].sizes["batch"] * graph.microbatches * graph.lanes / result.batch_ways
    if abs(mine - planned_here) <= SAME_BATCH * planned_here:
        return []
    return [
        f"steps decode {mine:g} sequences per rank, those of the plan {planned_here:g}: their times are of other batches"
    ]


def _mean(found: Sequence[tuple[Activity, int]]) -> Activity:
    total = found[0][0].plus(found[0][0], -1.0)
    for one, passes in found:
        total = total.plus(one, 1 / (passes * len(found)))
    return total


def _beyond(measured: float, plan: float, tolerance: float) -> bool:
    return abs(measured - plan) > tolerance * plan


def _rows(
    ranks: Sequence[MeasuredRank], expected: Sequence[PlannedRank], tolerance: float, busy_s: float
) -> tuple[Row, ...]:
    of: dict[str, dict[str, None]] = {}
    measured: dict[str, tuple[float, float]] = {}
    sends = {name for rank in expected for name in rank.rows}
    renamed = {SEND.name: "all_to_all"} if SEND.name not in sends and "all_to_all" in sends else {}
    kinds = [kind for kind in TRANSFERS if kind in sends]
    renamed |= {"exchange": kinds[0]} if len(kinds) == 1 else {}  # of a kind that nothing tells, where the plan has one
    for one in ranks:
        for row in one.classes:
            name = row.row or row.name
            name = renamed.get(name, name)  # NCCL's kernel of an exchange is that of a send, where no metadata tell
            of.setdefault(name, {})[row.name] = None
            calls, time_s = measured.get(name, (0.0, 0.0))
            each = one.passes * len(ranks)
            measured[name] = calls + row.calls / each, time_s + row.time_s / each
    plan: dict[str, tuple[float, float]] = {}
    for rank in expected:
        for name, found in rank.rows.items():
            calls, time_s = plan.get(name, (0.0, 0.0))
            plan[name] = calls + found.calls / len(expected), time_s + found.time_s / len(expected)
    rows = []
    for name in dict.fromkeys((*measured, *plan)):
        (_, time_s), (_, planned_s) = measured.get(name, (0, 0.0)), plan.get(name, (0, 0.0))
        large = max(time_s, planned_s) >= LEAST_SHARE * busy_s
        drifts = large and _beyond(time_s, planned_s, tolerance)
        seen, expects = measured.get(name, NEITHER), plan.get(name, NEITHER)
        rows.append(Row(name, tuple(of.get(name, ())), seen[0], seen[1], expects[0], expects[1], drifts))
    return tuple(sorted(rows, key=lambda row: -max(row.measured_s or 0.0, row.planned_s or 0.0)))
