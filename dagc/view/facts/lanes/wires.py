"""What the boxes of a grid wait for: data, the critical path, sends between stages."""

from __future__ import annotations

from collections.abc import Iterator

from ....base.frozen import record
from ..critical import critical
from .fold import Group
from .grid import BOX_H, START, WHAT, Box, Grid, Line
from .steps import Part

ASIDE = 9.0
"""How far a wire sticks out that goes round the boxes between its ends."""

Points = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


@record
class Wire:
    """`kind`: data, critical or send. `points` of a cubic curve."""

    source: Box
    target: Box
    kind: str
    points: Points


def wires(grid: Grid) -> list[Wire]:
    """Every wire, those of the critical path last; its boxes are marked."""
    maker = _Maker(grid)
    red = list(maker.path())
    known = {(w.source.id, w.target.id, w.points[0]) for w in red}
    grey = [w for w in maker.data() if (w.source.id, w.target.id, w.points[0]) not in known]
    return [*grey, *maker.sends(), *red]


class _Maker:
    def __init__(self, grid: Grid) -> None:
        self.grid, self.program = grid, grid.picture.program
        self.home: dict[Part, tuple[int, Group]] = {}
        for number, band in enumerate(grid.picture.bands):
            self.home |= {part: (number, group) for group in band.groups for part in group.parts}
        self.holder: dict[tuple[Part, int], tuple[int, Line]] = {}
        for lines in grid.lines:
            for index, line in enumerate(lines):
                self.holder |= {(line.group.part, row): (index, line) for row in line.rows}

    # -- data ------------------------------------------------------------------------------------

    def needs(self) -> Iterator[tuple[int, int, Line, Line]]:
        """(band of the source, band, row of the source, row) where both are drawn."""
        program = self.program
        for number, band in enumerate(self.grid.picture.bands):
            for group in band.groups:
                part, before = group.part, program.before.get(group.parts[0])
                earlier = self.home.get(before) if before is not None else None
                for need in program.needs(part):
                    source, at = part, need.source
                    if need.outside:
                        if earlier is None:
                            continue
                        source = earlier[1].part
                        at = program.output(source, program.steps(part)[need.row].lane)
                    a, b = self.holder.get((source, at)), self.holder.get((part, need.row))
                    if a is not None and b is not None and a[1] is not b[1]:
                        yield earlier[0] if need.outside and earlier is not None else number, number, a[1], b[1]

    def data(self) -> Iterator[Wire]:
        """Within a stage, in every column that has both ends."""
        seen: set[tuple[int, int]] = set()
        for begin, number, source, target in self.needs():
            if begin != number or (id(source), id(target)) in seen:
                continue
            seen.add((id(source), id(target)))
            for column in sorted(source.boxes.keys() & target.boxes.keys()):
                a, b = source.boxes[column], target.boxes[column]
                if a.row < b.row:
                    yield Wire(a, b, "data", self.down(a, b, column, column))

    def sends(self) -> Iterator[Wire]:
        """Between stages: from the last column of the send to the first row that takes what it brings."""
        seen: set[int] = set()
        for begin, number, source, target in self.needs():
            if begin == number or not source.boxes or not target.boxes or id(source) in seen:
                continue
            seen.add(id(source))
            a, b = source.boxes[max(source.boxes)], target.boxes[min(target.boxes)]
            x1, y1 = a.x + a.w, a.y + BOX_H / 2
            x2, y2 = self.grid.left[number] - WHAT - START - 4, b.y + BOX_H / 2
            yield Wire(a, b, "send", ((x1, y1), (x1 + 40, y1), (x2 - 40, y2), (x2, y2)))

    def down(self, source: Box, target: Box, start: int, end: int) -> Points:
        """Straight down; round the boxes between on the right; or from one column over to another."""
        number = source.band
        x1, x2 = (self.grid.x(number, k) + self.grid.w / 2 for k in (start, end))
        y1, y2 = source.y + BOX_H, target.y
        if start != end:
            bend = min(40.0, (y2 - y1) / 2)
            return ((x1, y1), (x1, y1 + bend), (x2, y2 - bend), (x2, y2))
        if any(start in line.boxes for line in self.grid.lines[number][source.row + 1 : target.row]):
            right = min(source.x + source.w, target.x + target.w)
            y1, y2 = y1 - BOX_H / 2, y2 + BOX_H / 2
            return ((right, y1), (right + ASIDE, y1 + 4), (right + ASIDE, y2 - 4), (right, y2))
        return ((x1, y1), (x1, y1), (x1, y2), (x1, y2))

    # -- the critical path -----------------------------------------------------------------------

    def path(self) -> Iterator[Wire]:
        """From each box on it to the next one below."""
        previous: tuple[Box, int] | None = None
        seen: set[tuple[str, str]] = set()
        for stand in self.visits():
            if previous is not None:
                (source, start), (target, end) = previous, stand
                known = (source.id, target.id) in seen
                if source.band == target.band and source.row < target.row and not known:
                    seen.add((source.id, target.id))
                    # A box of several columns is left, or reached, where the other end is.
                    start = end if source.first <= end <= source.last else start
                    end = start if target.first <= start <= target.last else end
                    yield Wire(source, target, "critical", self.down(source, target, start, end))
            previous = stand

    def visits(self) -> Iterator[tuple[Box, int]]:
        """The box and column of each execution on the critical path that is drawn, or has something drawn for it."""
        bands = self.grid.picture.bands
        columns = [{r: k for k, c in enumerate(band.columns) for r in c.ranks} for band in bands]
        for visit in (v for v in critical(self.program.result) if not v.is_host):
            part = self.program.at[visit.stage, visit.microbatch, visit.layer]
            if part not in self.home:
                continue
            number, group = self.home[part]
            # Equal layers may run their steps in another order: they are found by name.
            held = self.holder.get((group.part, self.program.row(group.part, visit.op, visit.lane)))
            column = columns[number].get(self.program.rank(visit.stage, visit.index))
            box = held[1].boxes.get(column) if held is not None and column is not None else None
            if box is not None and column is not None:
                box.critical = True
                yield box, column
