"""Where the boxes stand: a column a GPU, a row a step, stages side by side, time down. No layout engine is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..critical import critical
from . import words
from .fold import Band, Group, Picture
from .program import Mask

ROW, BOX_H, HEAD, TOP = 25.0, 19.0, 24.0, 46.0
GAP, BAND_GAP = 10.0, 50.0
START, WHAT = 58.0, 240.0
WIDE, NARROW, FEW = 84.0, 52.0, 24
"""Widths of a box, of up to FEW columns and of more."""


@dataclass(slots=True)
class Box:
    """`kind` is compute or what the exchange is; `first` and `last` number the columns of its band that it covers."""

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
    hint: str
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """Words beside the boxes in the room `w`. `look`: start, what, node, gpu, head, stage or layer."""

    x: float
    y: float
    w: float
    words: str
    look: str


@dataclass(frozen=True, slots=True)
class Wire:
    """What a box waits for, from the middle `x` of a column to another's. `aside`: boxes stand between."""

    source: Box
    target: Box
    x: float
    to_x: float
    critical: bool
    aside: bool


@dataclass(frozen=True, slots=True)
class Hop:
    """A send: from its box to the first row of the next stage, whose left edge is `x`."""

    source: Box
    target: Box
    x: float


@dataclass(slots=True)
class Grid:
    """The finished picture, in pixels."""

    boxes: list[Box] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True, slots=True)
class _Line:
    """A row: the steps of a group in it, and the box of each column."""

    group: Group
    rows: tuple[int, ...]
    boxes: dict[int, Box]


def grid(picture: Picture) -> Grid:
    """Every box, label and wire of a picture."""
    return _Maker(picture).make()


class _Maker:
    def __init__(self, picture: Picture) -> None:
        self.picture, self.program, self.out = picture, picture.program, Grid()
        self.w = WIDE if sum(len(b.columns) for b in picture.bands) <= FEW else NARROW
        self.left: list[float] = []
        self.lines: list[list[_Line]] = []
        self.sent: dict[tuple[int, int], Box] = {}
        self.group = {p: (n, g) for n, band in enumerate(picture.bands) for g in band.groups for p in g.parts}

    def make(self) -> Grid:
        # Stages start level with each other, unless several micro-batches show who waits for whom.
        several = any(len({g.part.microbatch for g in b.groups}) > 1 for b in self.picture.bands)
        x = 0.0
        for band in self.picture.bands:
            self.left.append(x + START + WHAT)
            self.heads(band, x)
            self.band(band, several)
            x = self.left[-1] + len(band.columns) * (self.w + GAP) + BAND_GAP
        self.out.width = x - BAND_GAP
        self.out.height = max(b.y for b in self.out.boxes) + ROW
        for number, lines in enumerate(self.lines):
            self.out.wires += self.data(number, lines)
        self.out.wires += self.path()
        return self.out

    def label(self, x: float, y: float, w: float, text: str, look: str) -> None:
        self.out.labels.append(Label(x, y, w, text, look))

    def x(self, number: int, column: int) -> float:
        """The left edge of a column."""
        return self.left[number] + column * (self.w + GAP)

    # -- boxes -----------------------------------------------------------------------------------

    def heads(self, band: Band, x: float) -> None:
        """The stage, its nodes and its GPUs."""
        number = len(self.left) - 1
        first, last = band.stages[0], band.stages[-1]
        if len(self.program.result.graph.stages) > 1:
            name = f"stage {first}" if first == last else f"stages {first}..{last}, alike"
            self.label(x, 0, START + WHAT, name, "stage")
        self.label(x, TOP - 24, START - 8, "start", "start")
        self.label(x + START, TOP - 24, WHAT - 8, "GPU", "head")
        per_node = self.program.result.per_node
        for node, columns in itertools.groupby(enumerate(band.columns), key=lambda c: c[1].gpu // per_node):
            mine = [k for k, _ in columns]
            wide = len(mine) * (self.w + GAP) - GAP
            self.label(self.x(number, mine[0]), 0, wide, f"node {node}", "node")
        for k, column in enumerate(band.columns):
            more = f" +{len(column.ranks) - 1}" if len(column.ranks) > 1 else ""
            self.label(self.x(number, k), TOP - 24, self.w, f"{column.gpu}{more}", "gpu")

    def band(self, band: Band, several: bool) -> None:
        """The rows of a stage; what brings it its input is above them."""
        number = len(self.lines)
        self.lines.append([])
        x, y = self.left[number] - START - WHAT, TOP
        cell: tuple[int, ...] = ()
        for group in band.groups:
            enters = group.microbatches != cell
            cell = group.microbatches
            sender = self.sent.get((band.stages[0] - 1, group.part.microbatch)) if enters else None
            if sender is not None and several:
                y = max(y, sender.y + ROW)
            if group.part.run is not None:
                self.label(x, y, START + WHAT, words.group_title(self.program, group), "layer")
                y += HEAD
            for rows in group.rows:
                line = self.line(band, group, rows, y)
                self.lines[-1].append(line)
                y += ROW
                if not line.boxes:
                    continue
                if sender is not None:
                    self.out.hops.append(Hop(sender, line.boxes[min(line.boxes)], x))
                    sender = None
                if group.part.run is None:
                    ends = line.boxes[max(line.boxes)]
                    self.sent |= {(s, m): ends for s in band.stages for m in group.microbatches}

    def line(self, band: Band, group: Group, rows: tuple[int, ...], y: float) -> _Line:
        program, part, number = self.program, group.part, len(self.lines) - 1
        steps = [program.steps(part)[k] for k in rows]
        begin = np.min([s.start_s for s in steps], axis=0)
        took = np.max([s.end_s for s in steps], axis=0) - begin
        used: Mask = np.logical_or.reduce(group.mask[list(rows)], axis=0)
        shown = [k for k, c in enumerate(band.columns) if used[c.rank]]
        x = self.left[number] - START - WHAT
        if shown:
            first_s = part.start_s + min(float(begin[band.columns[k].rank]) for k in shown)
            self.label(x, y, START - 8, words.took(first_s), "start")
        self.label(x + START, y, WHAT - 8, words.describe(program, part, steps), "what")
        op = steps[0].op
        alone = len(steps) == 1 and op is not None and op.is_collective
        groups = program.groups(op) if alone and op is not None and not _folded(band) else None
        hint = words.hint(program, group, steps)
        line = _Line(group, rows, {})
        for columns in _spans(band, shown, groups):
            rank = band.columns[columns[0]].rank
            time = words.took(float(took[rank]))
            box = Box(
                id=program.id(part, steps[0], rank),
                band=number,
                row=len(self.lines[-1]),
                first=columns[0],
                last=columns[-1],
                x=self.x(number, columns[0]),
                y=y,
                w=len(columns) * (self.w + GAP) - GAP,
                kind=steps[0].kind if len(steps) == 1 and steps[0].is_exchange else "compute",
                words=time
                if groups is None
                else f"{_letter(band, groups, rank)} {time}{_share(groups, rank, columns)}",
                hint=f"{words.gpus([band.columns[k] for k in columns])}: {time}; {hint}",
            )
            self.out.boxes.append(box)
            line.boxes.update(dict.fromkeys(columns, box))
        return line

    # -- wires -----------------------------------------------------------------------------------

    def data(self, number: int, lines: list[_Line]) -> Iterator[Wire]:
        """Data edges between rows, in every column that has both ends."""
        program = self.program
        index = {(line.group.part, row): k for k, line in enumerate(lines) for row in line.rows}
        for group in self.picture.bands[number].groups:
            part, before = group.part, program.before.get(group.parts[0])
            earlier = self.group[before][1].part if before in self.group else None
            pairs = set()
            for need in program.needs(part):
                source = (part, need.source)
                if need.outside:
                    if earlier is None or earlier.stage != part.stage:
                        continue
                    source = (earlier, program.output(earlier, program.steps(part)[need.row].lane))
                if source in index and (part, need.row) in index:
                    pairs.add((index[source], index[part, need.row]))
            for a, b in sorted(pairs):
                for column in lines[a].boxes.keys() & lines[b].boxes.keys() if a < b else ():
                    yield self.wire(lines[a].boxes[column], lines[b].boxes[column], column, column, critical=False)

    def wire(self, source: Box, target: Box, start: int, end: int, *, critical: bool) -> Wire:
        number = source.band
        between = self.lines[number][source.row + 1 : target.row]
        aside = start == end and any(start in line.boxes for line in between)
        middle = self.w / 2
        return Wire(source, target, self.x(number, start) + middle, self.x(number, end) + middle, critical, aside)

    def path(self) -> Iterator[Wire]:
        """Marks the boxes of the critical path, and leads from each to the next below it."""
        previous: tuple[Box, int] | None = None
        seen: set[tuple[str, str]] = set()
        for stand in self.visits():
            if previous is not None:
                (source, start), (target, end) = previous, stand
                known = (source.id, target.id) in seen
                if source.band == target.band and source.row < target.row and not known:
                    seen.add((source.id, target.id))
                    # A box of several columns is left, or reached, where the other end stands.
                    start = end if source.first <= end <= source.last else start
                    end = start if target.first <= start <= target.last else end
                    yield self.wire(source, target, start, end, critical=True)
            previous = stand

    def visits(self) -> Iterator[tuple[Box, int]]:
        """The box and column of each execution on the critical path that is drawn, or has something drawn for it."""
        parts = {(p.stage, p.microbatch, p.number): p for p in self.program.parts}
        line_of = {(line.group.part, row): line for lines in self.lines for line in lines for row in line.rows}
        columns = [{r: k for k, c in enumerate(band.columns) for r in c.ranks} for band in self.picture.bands]
        for visit in critical(self.program.result):
            part = parts[visit.stage, visit.microbatch, visit.layer]
            if part not in self.group:
                continue
            number, group = self.group[part]
            # Alike layers may run their steps in another order: they are found by name.
            line = line_of.get((group.part, self.program.row(group.part, visit.op, visit.lane)))
            column = columns[number].get(self.program.rank(visit.index))
            box = line.boxes.get(column) if line is not None and column is not None else None
            if box is not None and column is not None:
                box.critical = True
                yield box, column


def _folded(band: Band) -> bool:
    return any(len(c.ranks) > 1 for c in band.columns)


def _spans(band: Band, shown: list[int], groups: NDArray[np.intp] | None) -> Iterator[list[int]]:
    """The columns of each box: neighbours of one group share it."""
    if groups is None:
        yield from ([k] for k in shown)
        return
    numbered = enumerate(shown)
    for _, run in itertools.groupby(numbered, key=lambda e: (e[1] - e[0], groups[band.columns[e[1]].rank])):
        yield [k for _, k in run]


def _letter(band: Band, groups: NDArray[np.intp], rank: int) -> str:
    """Of the group of a rank, lettered from left to right."""
    order = list(dict.fromkeys(int(groups[c.rank]) for c in band.columns))
    return words.letter(order.index(int(groups[rank])))


def _share(groups: NDArray[np.intp], rank: int, columns: list[int]) -> str:
    """How much of a group stands in a box of several columns."""
    size = int((groups == groups[rank]).sum())
    return f" ({len(columns)} of its {size} GPUs)" if len(columns) not in (1, size) else ""
