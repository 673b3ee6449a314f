"""The `lanes` view: a column a GPU, a row a step, for one layer. Collectives show their groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.graph import Op, Segment
from ..ir.result import PhaseResult
from ..lang.units import BYTES, TIME, show
from ..plan import Plan
from .dot import COLORS, COMPUTE, SOFT, Html, digraph, edge, html, identifier, legend, node

MAX_COLUMNS = 16
MAX_BOXES = 300


@dataclass(frozen=True, slots=True)
class Row:
    """One collective, or a run of compute ops between two."""

    ops: tuple[Op, ...]
    start_s: float
    time_s: float

    @property
    def collective(self) -> Op | None:
        return self.ops[0] if self.ops[0].is_collective else None


def draw(plan: Plan, phase: str) -> str:
    """DOT of the layer that takes most of the time, on the first GPUs of the first stage that holds it."""
    result = plan.phases[phase]
    segment = _heaviest(result)
    stage = next(s for s in result.graph.stages if any(name == segment.name for name, _ in s.layers))
    rows = _rows(result, segment, stage.index)
    columns = min(MAX_COLUMNS, len(stage.gpus), max(1, MAX_BOXES // max(1, len(rows))))
    body = [
        node(
            "lanes",
            label=_table(result, segment, rows, list(stage.gpus[:columns]), stage.index),
            shape="plaintext",
        )
    ]
    kinds = [k for k in COLORS if any(op.kind == k for op in segment.ops)]
    body += [node("legend", label=legend(kinds), shape="plaintext"), edge("lanes", "legend", style="invis")]
    shown = f"the first {columns} of {len(stage.gpus)} GPUs" if columns < len(stage.gpus) else f"all {columns} GPUs"
    title = f"{plan.spec.model.name}, {phase}: one {segment.name} layer (of {segment.repeat} alike), stage {stage.index}, {shown}\ntime runs down; a run of compute ops is one box"
    return digraph(f"{phase} lanes", title, body, rankdir="TB")


def _heaviest(result: PhaseResult) -> Segment:
    def weight(s: Segment) -> float:
        return s.repeat * sum(float(result.costs.ops[s.name, op.name].time_s.max()) for op in s.ops)

    return max(result.graph.segments[1:-1], key=weight)


def _rows(result: PhaseResult, segment: Segment, stage: int) -> list[Row]:
    """Steps in order of start, compute between two collectives folded into one."""
    run = next(r for r in result.schedule.cells[stage][0] if r.segment == segment.name)
    ordered = sorted(segment.ops, key=lambda op: (float(run.starts[op.name, 0].min()), segment.ops.index(op)))
    groups: list[list[Op]] = []
    for op in ordered:
        if op.is_collective or not groups or groups[-1][0].is_collective:
            groups.append([op])
        else:
            groups[-1].append(op)
    rows = []
    for ops in groups:
        start = min(float(run.starts[op.name, 0].min()) for op in ops)
        time = sum(float(result.costs.ops[segment.name, op.name].time_s.max()) for op in ops)
        rows.append(Row(tuple(ops), start, time))
    return rows


def _table(result: PhaseResult, segment: Segment, rows: list[Row], gpus: list[int], stage: int) -> str:
    head = "".join(f'<td bgcolor="{PAPER_HEAD}"><b>{gpu}</b></td>' for gpu in gpus)
    lines = [f'<tr><td align="right">GPU</td>{head}</tr>']
    critical = {s.op for s in result.schedule.path if s.segment == segment.name}
    for k, row in enumerate(rows):
        bold = bool({op.name for op in row.ops} & critical)
        stamp = f'<td align="right"><font color="{SOFT}" point-size="9">{html(show(row.start_s, TIME, 3))}</font></td>'
        cells = _collective(result, row, gpus, stage, k, bold) if row.collective else _compute(row, gpus, k, bold)
        lines.append(f"<tr>{stamp}{cells}</tr>")
    return Html(
        f'<<table border="0" cellborder="1" cellspacing="2" cellpadding="3" color="{SOFT}">{"".join(lines)}</table>>'
    )


PAPER_HEAD = "#e5e7eb"


def _text(head: str, tail: str, bold: bool) -> str:
    title = f"<b>{html(head)}</b>" if bold else html(head)
    return f'{title}<br/><font point-size="8">{html(tail)}</font>'


def _compute(row: Row, gpus: list[int], k: int, bold: bool) -> str:
    names = [op.name.split(".", 1)[-1] for op in row.ops]
    head = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
    tail = f"{len(names)} op{'s' if len(names) > 1 else ''}, {show(row.time_s, TIME, 3)}"
    hint = html(", ".join(names))
    return "".join(
        f'<td bgcolor="{COMPUTE}" id="{identifier("row", k, gpu)}" title="{hint}" href="#">{_text(head, tail, bold)}</td>'
        for gpu in gpus
    ).replace(' href="#"', "")


def _collective(result: PhaseResult, row: Row, gpus: list[int], stage: int, k: int, bold: bool) -> str:
    """Neighbours of one group share a cell; a group that is spread out repeats its letter."""
    op = row.collective
    assert op is not None
    mesh = result.graph.the_mesh
    ids = np.asarray(result.graph.stages[stage].gpus).reshape(mesh.shape)
    position = [mesh.index[a] for a in op.axes]
    groups = np.moveaxis(ids, position, range(ids.ndim - len(position), ids.ndim)).reshape(-1, mesh.size(op.axes))
    owner = {int(g): n for n, members in enumerate(groups) for g in members}
    color = COLORS.get(op.kind, COMPUTE)
    over = "+".join(mesh.label(op.axes, op.scope))
    tail = f"{over}, {show(row.time_s, TIME, 3)}"
    size = show(result.costs.ops[_segment_of(result, op), op.name].payload_B, BYTES, 3)
    cells = []
    start = 0
    while start < len(gpus):
        end = start
        while end + 1 < len(gpus) and owner[gpus[end + 1]] == owner[gpus[start]]:
            end += 1
        whole = end - start + 1 == groups.shape[1]
        name = f"{op.kind} {size}" if whole else f"{op.kind} {_letter(owner[gpus[start]])}"
        cells.append(
            f'<td colspan="{end - start + 1}" bgcolor="{color}" id="{identifier("row", k, gpus[start])}">{_text(name, tail, bold)}</td>'
        )
        start = end + 1
    return "".join(cells)


def _segment_of(result: PhaseResult, op: Op) -> str:
    return next(s.name for s in result.graph.segments if op.name in s.by_name and s.by_name[op.name] is op)


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"#{index}"
