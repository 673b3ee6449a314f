"""The `lanes` view: a column a GPU, a row a step, for one layer. Collectives show their groups."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Op, Segment
from ..ir.ops import OPS
from ..ir.result import PhaseResult, Run
from ..lang.units import BYTES, TIME, show
from ..plan import Plan
from .dot import COLORS, COMPUTE, SOFT, Html, digraph, edge, html, identifier, legend, node

MAX_COLUMNS = 16
MIN_COLUMNS = 4
MAX_BOXES = 300
MAX_NAMES = 6
SAME_S = 1e-12
"""Moments closer than this are one."""
HEAD = "#e5e7eb"


@dataclass(frozen=True, slots=True)
class Row:
    """One collective, or a run of compute ops without a pause; of one lane of a two-batch overlap."""

    ops: tuple[Op, ...]
    lane: int
    start_s: float

    @property
    def collective(self) -> Op | None:
        return self.ops[0] if len(self.ops) == 1 and self.ops[0].is_collective else None


@dataclass(frozen=True, slots=True)
class Table:
    """What the cells are made from: the GPUs shown, the mesh position of each, the ops of the critical path."""

    result: PhaseResult
    segment: Segment
    gpus: tuple[int, ...]
    ids: NDArray[np.int64]
    critical: frozenset[str]

    def seconds(self, op: Op, gpu: int) -> float:
        """An op's time on one GPU: ranks differ where routing is skewed."""
        time = self.result.costs.ops[self.segment.name, op.name].time_s
        where = np.unravel_index(self.ids.ravel().tolist().index(gpu), self.ids.shape)
        return float(time[tuple(min(int(w), n - 1) for w, n in zip(where, time.shape, strict=True))])


def draw(plan: Plan, phase: str) -> str:
    """DOT of the layer that takes most of the time, on the first GPUs of the first stage that holds it."""
    result = plan.phases[phase]
    segment = heaviest(result)
    stage = next(s for s in result.graph.stages if any(name == segment.name for name, _ in s.layers))
    run = next(r for r in result.schedule.cells[stage.index][0] if r.segment == segment.name)
    rows, said = _fitted(_rows(result, segment, run))
    columns = min(MAX_COLUMNS, len(stage.gpus), max(1, MAX_BOXES // max(1, len(rows))))
    critical = frozenset(s.op for s in result.schedule.path if s.segment == segment.name)
    ids = np.asarray(stage.gpus).reshape(result.graph.the_mesh.shape)
    table = Table(result, segment, stage.gpus[:columns], ids, critical)
    kinds = [k for k in COLORS if any(op.kind == k for op in segment.ops)]
    body = [
        node("lanes", label=_table(table, rows), shape="plaintext", tooltip=f"one {segment.name} layer"),
        node("legend", label=legend(kinds, across=True), shape="plaintext", tooltip="legend"),
        edge("lanes", "legend", style="invis"),
    ]
    shown = f"the first {columns} of {len(stage.gpus)} GPUs" if columns < len(stage.gpus) else f"all {columns} GPUs"
    title = (
        f"{plan.spec.model.name}, {phase}: one {segment.name} layer (of {segment.repeat} alike), stage {stage.index}, {shown}\n"
        f"time runs down; {said}; equal letters in a row exchange with each other"
    )
    return digraph(f"{phase} lanes", title, body, rankdir="TB", ranksep=0.15)


def heaviest(result: PhaseResult) -> Segment:
    """The layer that takes most of the phase's time, all its repeats together."""

    def weight(s: Segment) -> float:
        return s.repeat * sum(float(result.costs.ops[s.name, op.name].time_s.max()) for op in s.ops)

    return max(result.graph.segments[1:-1], key=weight)


def _rows(result: PhaseResult, segment: Segment, run: Run) -> list[Row]:
    """Steps in order of start; compute ops that follow each other without a pause are one."""
    order = {op.name: k for k, op in enumerate(segment.ops)}
    steps = [(op, lane) for op in segment.ops for lane in range(result.graph.lanes)]
    steps.sort(key=lambda s: (float(run.starts[s[0].name, s[1]].min()), s[1], order[s[0].name]))
    zero = min(float(run.starts[op.name, lane].min()) for op, lane in steps)
    rows: list[Row] = []
    open_row, end = -1, 0.0
    for op, lane in steps:
        start = float(run.starts[op.name, lane].min()) - zero
        if not op.is_collective and open_row >= 0 and rows[open_row].lane == lane and start <= end + SAME_S:
            rows[open_row] = Row((*rows[open_row].ops, op), lane, rows[open_row].start_s)
        else:
            rows.append(Row((op,), lane, start))
            open_row = open_row if op.is_collective else len(rows) - 1
        if not op.is_collective:
            end = float(run.finishes[op.name, lane].max()) - zero
    return rows


def _fitted(rows: list[Row]) -> tuple[list[Row], str]:
    """The rows, merged block by block when there are too many for a few columns, and what was folded."""
    if len(rows) * MIN_COLUMNS <= MAX_BOXES:
        return rows, "compute without a pause is one row"
    merged: list[Row] = []
    for _, group in itertools.groupby(rows, key=lambda r: (r.ops[0].block, r.lane)):
        part = list(group)
        merged.append(Row(tuple(op for r in part for op in r.ops), part[0].lane, part[0].start_s))
    cut = f", the first {MAX_BOXES} of {len(merged)}" if len(merged) > MAX_BOXES else ""
    return merged[:MAX_BOXES], f"{len(rows)} steps folded to one row a block{cut}"


def _table(table: Table, rows: list[Row]) -> Html:
    lines = [_nodes(table), _header(table)]
    for k, row in enumerate(rows):
        bold = any(op.name in table.critical for op in row.ops)
        op = row.collective
        cells = _collective(table, op, k, bold) if op is not None else _compute(table, row, k, bold)
        what = _strong(_describe(table, row), bold)
        start = f'<td align="right"><font color="{SOFT}" point-size="9">{html(show(row.start_s, TIME, 3))}</font></td>'
        lines.append(f'<tr>{start}<td align="left" balign="left">{what}</td>{cells}</tr>')
    return Html(
        f'<<table border="0" cellborder="1" cellspacing="2" cellpadding="3" color="{SOFT}">{"".join(lines)}</table>>'
    )


def _nodes(table: Table) -> str:
    """The nodes that the GPUs stand in."""
    cells = "".join(
        f'<td colspan="{len(list(group))}" bgcolor="{HEAD}">node {number}</td>'
        for number, group in itertools.groupby(table.gpus, key=lambda g: g // table.result.per_node)
    )
    return f'<tr><td border="0"></td><td border="0"></td>{cells}</tr>'


def _header(table: Table) -> str:
    cells = "".join(f'<td bgcolor="{HEAD}"><b>{gpu}</b></td>' for gpu in table.gpus)
    return f'<tr><td align="right">start</td><td align="right">GPU</td>{cells}</tr>'


def _strong(text: str, bold: bool) -> str:
    return f"<b>{text}</b>" if bold else text


def _describe(table: Table, row: Row) -> str:
    """A step in words: `all_gather of k over sp`, or the ops that are folded into it."""
    lane = f"batch {'AB'[row.lane]}: " if table.result.graph.lanes == 2 else ""
    op = row.collective
    if op is not None:
        over = "+".join(table.result.graph.the_mesh.label(op.axes, op.scope))
        size = show(table.result.costs.ops[table.segment.name, op.name].payload_B, BYTES, 3)
        return html(f"{lane}{op.kind} of {_short(op.inputs[0])} over {over}, {size}")
    parts = []
    for block, ops in itertools.groupby(row.ops, key=lambda o: o.block):
        parts.append(f"{block + ': ' if block else ''}{_names(list(ops))}")
    return html(f"{lane}{'; '.join(parts)}")


def _names(ops: list[Op]) -> str:
    """The ops that have kernels of their own by name, what is fused into them left out."""
    own = [op for op in ops if op.is_collective or not OPS[op.kind].fused] or ops
    names = [op.kind if op.is_collective else _short(op.name) for op in own]
    if len(names) > MAX_NAMES:
        return f"{', '.join(names[: MAX_NAMES - 2])}, {len(names) - MAX_NAMES + 1} more, {names[-1]}"
    return ", ".join(names)


def _short(name: str) -> str:
    return name.split(".", 1)[-1]


def _compute(table: Table, row: Row, k: int, bold: bool) -> str:
    cells = []
    for gpu in table.gpus:
        text = html(show(sum(table.seconds(op, gpu) for op in row.ops), TIME, 3))
        key = identifier("row", k, gpu)
        cells.append(f'<td bgcolor="{COMPUTE}" id="{key}">{_strong(text, bold)}</td>')
    return "".join(cells)


def _collective(table: Table, op: Op, k: int, bold: bool) -> str:
    """Neighbours of one group share a cell; every cell bears its group's letter."""
    mesh = table.result.graph.the_mesh
    position = [mesh.index[a] for a in op.axes]
    ids = table.ids
    groups = np.moveaxis(ids, position, range(ids.ndim - len(position), ids.ndim)).reshape(-1, mesh.size(op.axes))
    owner = {int(g): n for n, members in enumerate(groups) for g in members}
    time = show(table.seconds(op, table.gpus[0]), TIME, 3)
    cells = []
    for group, members in itertools.groupby(table.gpus, key=lambda g: owner[g]):
        held = list(members)
        part = "" if len(held) in (1, groups.shape[1]) else f" ({len(held)} of its {groups.shape[1]} GPUs)"
        text = _strong(html(f"{_letter(group)} {time}{part}"), bold)
        key = identifier("row", k, held[0])
        cells.append(f'<td colspan="{len(held)}" bgcolor="{COLORS.get(op.kind, COMPUTE)}" id="{key}">{text}</td>')
    return "".join(cells)


def _letter(index: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        text = chr(ord("A") + digit) + text
    return text
