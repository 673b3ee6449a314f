"""Positions of the boxes: a column per GPU, a row per step, stages side by side, time downwards. No layout engine is used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ....base.arrays import NDArray
from ....base.collectives import SEND
from ....base.frozen import record
from ....ir.sharding import Axes
from ....plan.result import PhaseResult
from ..size import check_size
from ..timeline import cell_of
from . import words
from .fold import Band, Group, Picture, picture
from .shown_part import DEFAULT, Choice
from .steps import Mask

ROW, BOX_H, HEAD, TOP = 25.0, 19.0, 24.0, 46.0
GAP, BAND_GAP = 10.0, 50.0
START, WHAT = 58.0, 240.0
WIDE, NARROW, FEW = 84.0, 60.0, 24
"""Widths of a box, of up to FEW columns and of more."""


@dataclass(slots=True)
class Box:
    """`short` is for where `words` do not fit; `kind` is compute or what the exchange is; `inside` the kinds of the
    exchanges in a folded box. `first` and `last` number the columns of its band that it covers."""

    id: str
    band: int
    row: int
    first: int
    last: int
    x: float
    y: float
    w: float
    kind: str
    words: str
    short: str
    hint: str
    inside: tuple[str, ...] = ()
    critical: bool = False


@record
class Label:
    """Words next to the boxes in the width `w`. `look`: start, what, node, gpu, head, stage, layer or break."""

    x: float
    y: float
    w: float
    words: str
    look: str


@record
class Break:
    """The sign of layers that are left out, from `left` to `right`."""

    left: float
    right: float
    y: float


@record
class Line:
    """A row: the steps of a group in it, and the box of each column."""

    group: Group
    rows: tuple[int, ...]
    boxes: dict[int, Box]


@dataclass(slots=True)
class Grid:
    """The boxes of a picture, in pixels. `left`: where the columns of each band begin, `w` wide each."""

    picture: Picture
    w: float
    boxes: list[Box] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    lines: list[list[Line]] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    lettered: bool = False

    def x(self, band: int, column: int) -> float:
        """The left edge of a column."""
        return self.left[band] + column * (self.w + GAP)


def drawn(result: PhaseResult, choice: Choice = DEFAULT) -> Grid:
    """What is chosen of the placed graph of a phase. Raises SpecError as `picture` does."""
    check_size(result, "the lanes")
    return grid(picture(result, choice))


def grid(found: Picture) -> Grid:
    """Every box and label of a picture."""
    out = Grid(found, WIDE if sum(len(b.columns) for b in found.bands) <= FEW else NARROW)
    # Stages start level with each other, unless several micro-batches show which stage waits for which.
    several = any(len({g.part.microbatch for g in b.groups}) > 1 for b in found.bands)
    sent: dict[tuple[int, int], float] = {}
    x = 0.0
    for number, band in enumerate(found.bands):
        out.left.append(x + START + WHAT)
        out.lines.append([])
        _heads(out, number, band)
        _rows(out, number, band, sent if several else {})
        x = out.left[-1] + len(band.columns) * (out.w + GAP) + BAND_GAP
    out.width = x - BAND_GAP
    out.height = max([b.y for b in out.boxes] + [gap.y for gap in out.breaks]) + ROW
    return out


def _heads(out: Grid, number: int, band: Band) -> None:
    """The stage, its nodes and its GPUs."""
    left, result = out.left[number], out.picture.program.result
    first, last = band.stages[0], band.stages[-1]
    if len(result.seats) > 1:
        name = result.seats[first].name if first == last else f"stages {first}..{last}, identical"
        out.labels.append(Label(left - WHAT - START, 0, START + WHAT, name, "stage"))
    out.labels.append(Label(left - WHAT - START, TOP - 24, START - 8, "start", "start"))
    out.labels.append(Label(left - WHAT, TOP - 24, WHAT - 8, "GPU", "head"))
    for node, columns in itertools.groupby(enumerate(band.columns), key=lambda c: c[1].gpu // result.per_node):
        mine = [k for k, _ in columns]
        wide = len(mine) * (out.w + GAP) - GAP
        out.labels.append(Label(out.x(number, mine[0]), 0, wide, f"node {node}", "node"))
    for k, column in enumerate(band.columns):
        more = f" +{len(column.ranks) - 1}" if len(column.ranks) > 1 else ""
        out.labels.append(Label(out.x(number, k), TOP - 24, out.w, f"{column.gpu}{more}", "gpu"))


def _rows(out: Grid, number: int, band: Band, sent: dict[tuple[int, int], float]) -> None:
    """The rows of a stage. `sent`: where the first send of (stage, micro-batch) is; what it brings is below."""
    y = TOP
    result = out.picture.program.result
    for _, same in itertools.groupby(band.groups, key=lambda g: g.microbatches):
        cell = list(same)
        *gaps, last = skipped(result, band.stages[0], [group.part.number for group in cell])
        for k, (group, gap) in enumerate(zip(cell, gaps, strict=True)):
            if k == 0:
                y = max(y, sent.get((band.stages[0] - 1, group.part.microbatch), -ROW) + ROW)
            y = _break(out, number, band, gap, y)
            title = words.group_title(out.picture.program, group)
            if title and (k == 0 or group.part.run is not None):
                out.labels.append(Label(out.left[number] - WHAT - START, y, START + WHAT, title, "layer"))
                y += HEAD
            for rows in group.rows:
                out.lines[number].append(_line(out, number, band, group, rows, y))
                if group.part.end == SEND.name:
                    for stage, m in itertools.product(band.stages, group.microbatches):
                        sent.setdefault((stage, m), y)
                y += ROW
        y = _break(out, number, band, last, y)


def skipped(result: PhaseResult, stage: int, drawn: Sequence[int | None]) -> list[tuple[int, ...]]:
    """Layers of a stage that are not drawn before each of some parts (layers, or what is at an end of them), and behind the last."""
    seat, graph = result.seats[stage], result.graph
    own = {name for name, _ in seat.layers}
    names = [name for name, count in graph.stages[cell_of(result, stage)].layers for _ in range(count)]
    first = graph.first_layer(cell_of(result, stage))
    left = [first + k for k, name in enumerate(names) if name in own and first + k not in drawn]
    out = []
    for k, number in enumerate(drawn):
        behind = all(other is None for other in drawn[k:])
        before = [n for n in left if behind or (number is not None and n < number)]
        left = left[len(before) :]
        out.append(tuple(before))
    return [*out, tuple(left)]


def _break(out: Grid, number: int, band: Band, gap: tuple[int, ...], y: float) -> float:
    """A sign where layers are left out, that says how many; and where it goes on below."""
    if not gap:
        return y
    left, columns = out.left[number], len(band.columns)
    out.labels.append(Label(left - WHAT, y, WHAT - 8, words.gap_text(out.picture.program.result, gap), "break"))
    out.breaks.append(Break(left, left + columns * (out.w + GAP) - GAP, y + ROW / 2 - 3))
    return y + ROW


def _line(out: Grid, number: int, band: Band, group: Group, rows: tuple[int, ...], y: float) -> Line:
    program, part = out.picture.program, group.part
    steps = [program.steps(part)[k] for k in rows]
    begin = np.min([s.start_s for s in steps], axis=0)
    took = np.max([s.end_s for s in steps], axis=0) - begin
    used: Mask = np.logical_or.reduce(group.mask[list(rows)], axis=0)
    shown = [k for k, c in enumerate(band.columns) if used[c.rank]]
    left = out.left[number]
    if shown:
        first_s = part.start_s + min(float(begin[band.columns[k].rank]) for k in shown)
        out.labels.append(Label(left - WHAT - START, y, START - 8, words.took(first_s), "start"))
    out.labels.append(Label(left - WHAT, y, WHAT - 8, words.describe(program, part, steps), "what"))
    alone = steps[0] if len(steps) == 1 and steps[0].is_exchange else None
    letters = _Letters(out, band, alone.axes) if alone is not None and alone.axes else None
    hint = words.hint(program, group, steps)
    line = Line(group, rows, {})
    for columns in letters.spans(shown) if letters is not None and letters.groups is not None else ([k] for k in shown):
        rank = band.columns[columns[0]].rank
        time = words.took(float(took[rank]))
        box = Box(
            id=program.id(part, steps[0], rank),
            band=number,
            row=len(out.lines[number]),
            first=columns[0],
            last=columns[-1],
            x=out.x(number, columns[0]),
            y=y,
            w=len(columns) * (out.w + GAP) - GAP,
            kind="compute" if alone is None else alone.kind,
            words=time if letters is None else letters.said(columns, time),
            short=words.took(float(took[rank]), digits=2),
            hint=f"{words.gpus([band.columns[k] for k in columns])}: {time}; {hint}",
            inside=() if alone is not None else tuple(dict.fromkeys(s.kind for s in steps if s.is_exchange)),
        )
        out.boxes.append(box)
        line.boxes.update(dict.fromkeys(columns, box))
    return line


class _Letters:
    """The groups of a collective in a band; none where a column represents several ranks."""

    def __init__(self, out: Grid, band: Band, axes: Axes) -> None:
        self.band = band
        self.groups: NDArray[np.intp] | None = None
        if any(len(c.ranks) > 1 for c in band.columns):
            return
        self.groups = out.picture.program.groups(axes, band.stages[0])
        out.lettered = True
        self.size = out.picture.program.size(axes)
        order = dict.fromkeys(int(self.groups[c.rank]) for c in band.columns)
        self.letter = {group: words.letter(k) for k, group in enumerate(order)}

    def spans(self, shown: list[int]) -> Iterator[list[int]]:
        """The columns of each box: neighbours of one group share it."""
        assert self.groups is not None
        of = {k: int(self.groups[self.band.columns[k].rank]) for k in shown}
        for _, run in itertools.groupby(enumerate(shown), key=lambda e: (e[1] - e[0], of[e[1]])):
            yield [k for _, k in run]

    def said(self, columns: list[int], time: str) -> str:
        """`A 25 us`, and how much of the group is in a box of several columns."""
        if self.groups is None:
            return time
        letter = self.letter[int(self.groups[self.band.columns[columns[0]].rank])]
        part = f" ({len(columns)} of its {self.size} GPUs)" if len(columns) not in (1, self.size) else ""
        return f"{letter} {time}{part}"
