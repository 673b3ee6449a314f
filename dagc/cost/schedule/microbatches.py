"""Micro-batches one after another: as many as differ are evaluated, all others follow in closed form.

A micro-batch maps the times at which the streams of all stages are free to those times after it, by sums and maxima
alone: every component, and every time in between, is a convex function of the times before. Let x(s) = x + s d be
states on a line, and F the map of q micro-batches (a period). Where F(x(s)) = x(s + 1) at s = -1, 0 and K, it holds
at every s between: a convex function that meets a line in three points is on it from the first to the last. So K
periods are one step, exactly, and what attains a maximum at 0 attains it all the way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

from ...base.frozen import field, mutable, record, replace
from .moments import Moment, Moments
from .records import Cell, Repeated, Run

T = TypeVar("T")

LEAST = 32
"""Periods that are worth being left out at once."""
LONGEST = 8
"""Micro-batches of a period."""
RELATIVE = 1e-12
RESOLUTION_S = 1e-13


@record(slots=False)
class Column(Generic[T]):
    """One micro-batch through all stages. `cells` and `sends` by stage; `states`: when streams are free after it; `ready_s`:
    when the last stage is done; `own`: whatever else belongs to it."""

    cells: tuple[Cell, ...]
    sends: tuple[tuple[float, float], ...]
    states: tuple[Moment, ...]
    ready_s: float
    own: T


@record
class Place:
    """Where a micro-batch comes from: the column `index`, and `times` what it has more than the column `before`."""

    index: int
    before: int
    times: int


@record
class Piece:
    """Micro-batches from `first` on: columns from `index` on, or (`period` > 0) repetitions of the last columns before it."""

    first: int
    index: int
    period: int


@mutable
class Columns(Generic[T]):
    """All micro-batches of a pass."""

    columns: list[Column[T]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=lambda: [Piece(0, 0, 0)])
    count: int = 0

    def piece(self, microbatch: int) -> Piece:
        return self.pieces[bisect_right(self.pieces, microbatch, key=lambda p: p.first) - 1]

    def place(self, microbatch: int) -> Place:
        piece = self.piece(microbatch)
        index, period, at = piece.index, piece.period, microbatch - piece.first
        if not period:
            return Place(index + at, index + at, 0)
        return Place(index - period + at % period, index - 2 * period + at % period, at // period + 1)

    def own(self, microbatch: int) -> T:
        """What belongs to a micro-batch, or to the one that it repeats."""
        return self.columns[self.place(microbatch).index].own

    def cell(self, stage: int, microbatch: int) -> Cell:
        place = self.place(microbatch)
        cell, before = self.columns[place.index].cells[stage], self.columns[place.before].cells[stage]
        if not place.times:
            return cell
        parts = zip(before.parts, cell.parts, strict=True)
        return Cell(tuple(_part_later(b, a, place.times) for a, b in parts))

    def send(self, stage: int, microbatch: int) -> tuple[float, float]:
        place = self.place(microbatch)
        at, before = self.columns[place.index].sends[stage], self.columns[place.before].sends[stage]
        return (at[0] + place.times * (at[0] - before[0]), at[1] + place.times * (at[1] - before[1]))

    def rows(self) -> tuple[Sequence[Cell], ...]:
        """Cells by stage."""
        stages = range(len(self.columns[0].cells))
        if len(self.columns) == self.count:
            return tuple(tuple(c.cells[i] for c in self.columns) for i in stages)
        return tuple(Row(self, i) for i in stages)

    def all_sends(self) -> Mapping[tuple[int, int], tuple[float, float]]:
        if len(self.columns) == self.count:
            return {(i, j): pair for j, c in enumerate(self.columns) for i, pair in enumerate(c.sends)}
        return Sends(self)

    def add(self, column: Column[T]) -> None:
        self.columns.append(column)
        self.count += 1

    def leap(self, period: int, times: int) -> None:
        """Leave out `times` periods, which repeat the last one."""
        self.pieces.append(Piece(self.count, len(self.columns), period))
        self.count += period * times
        self.pieces.append(Piece(self.count, len(self.columns), 0))

    @property
    def fresh(self) -> int:
        """Columns since micro-batches were last left out."""
        return len(self.columns) - self.pieces[-1].index


@record(slots=False)
class Row(Sequence[Cell]):
    """The cells of a stage by micro-batch, made when they are asked for. `evaluated`: those that others follow from."""

    columns: Columns[Any]
    stage: int

    def __len__(self) -> int:
        return self.columns.count

    @overload
    def __getitem__(self, at: int) -> Cell: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Cell]: ...
    def __getitem__(self, at: int | slice) -> Cell | Sequence[Cell]:
        if isinstance(at, slice):
            return tuple(self[j] for j in range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self.columns.cell(self.stage, at % len(self))

    @property
    def evaluated(self) -> tuple[Cell, ...]:
        return tuple(c.cells[self.stage] for c in self.columns.columns)


@record(slots=False)
class Sends(Mapping[tuple[int, int], tuple[float, float]]):
    """(stage, micro-batch) -> begin and end of its sends."""

    columns: Columns[Any]

    def __getitem__(self, key: tuple[int, int]) -> tuple[float, float]:
        stage, microbatch = key
        if not (0 <= stage < len(self.columns.columns[0].sends) and 0 <= microbatch < self.columns.count):
            raise KeyError(key)
        return self.columns.send(stage, microbatch)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((i, j) for j in range(self.columns.count) for i in range(len(self.columns.columns[0].sends)))

    def __len__(self) -> int:
        return self.columns.count * len(self.columns.columns[0].sends)


def walk(step: Callable[[Column[T] | None], Column[T]], count: int) -> Columns[T]:
    """All of `count` micro-batches. `step` evaluates the one after a column (None: the first)."""
    found: Columns[T] = Columns()
    wait = 0
    while found.count < count:
        found.add(step(found.columns[-1] if found.columns else None))
        wait -= 1
        if wait <= 0 and count - found.count >= LEAST:
            tried = _leap(found, step, count)
            wait = max(0, tried)  # no more work is lost on tries than is done
    return found


def _leap(found: Columns[T], step: Callable[[Column[T] | None], Column[T]], count: int) -> int:
    """Leave micro-batches out where that is exact. Returns how many were evaluated in vain; none: 0."""
    columns, wasted = found.columns, 0
    for period in range(1, LONGEST + 1):
        if found.fresh < 2 * period + 1:
            return wasted
        last, middle, first = (columns[-1 - k * period].states for k in range(3))
        scale = RELATIVE * columns[-1].ready_s + RESOLUTION_S
        if any(not np.shape(a) == np.shape(b) == np.shape(c) for a, b, c in zip(last, middle, first, strict=True)):
            continue
        change = [a - b for a, b in zip(last, middle, strict=True)]
        if any(_most(d - (b - c)) > scale for d, b, c in zip(change, middle, first, strict=True)):
            continue
        before, block = columns[-2 * period : -period], columns[-period:]
        times = (count - found.count) // period
        while times >= LEAST:
            there = replace(columns[-1], states=tuple(a + (times - 1) * d for a, d in zip(last, change, strict=True)))
            tried: list[Column[T]] = []
            for _ in range(period):
                tried.append(step(tried[-1] if tried else there))
            if all(_on_line(*three, times) for three in zip(before, block, tried, strict=True)):
                found.leap(period, times - 1)
                for column in tried:
                    found.add(column)
                return 0
            wasted += period
            times //= 2
    return wasted


def _most(found: Moment) -> float:
    """The largest absolute value."""
    return abs(found) if isinstance(found, float) else float(np.abs(found).max())


def _on_line(before: Column[T], at: Column[T], there: Column[T], times: int) -> bool:
    """Every time of `there` is that of `at`, and `times` the step from `before` to it."""
    allowed = 4 * RELATIVE * there.ready_s + RESOLUTION_S

    def on(a: Moment, b: Moment, c: Moment) -> bool:
        return np.shape(a) == np.shape(b) == np.shape(c) and _most(b + times * (b - a) - c) <= allowed

    if not all(on(*three) for three in zip(before.states, at.states, there.states, strict=True)):
        return False
    for a, b, c in zip(before.sends, at.sends, there.sends, strict=True):
        if not (on(a[0], b[0], c[0]) and on(a[1], b[1], c[1])):
            return False
    for row in zip(before.cells, at.cells, there.cells, strict=True):
        if len({_order(cell) for cell in row}) > 1:
            return False
        for part in zip(*(cell.parts for cell in row), strict=True):
            if part[0].times > 1 and not on(*(one.period_s for one in part)):
                return False
        for x, y, z in zip(*(cell.evaluated for cell in row), strict=True):
            if not on(x.start_s, y.start_s, z.start_s) or not on(x.period_s, y.period_s, z.period_s):
                return False
            for name in ("starts", "finishes"):
                own = (getattr(run, name).own for run in (x, y, z))
                if not all(on(x.start_s + a, y.start_s + b, z.start_s + c) for a, b, c in zip(*own, strict=True)):
                    return False
    return True


def _order(cell: Cell) -> tuple[object, ...]:
    """Which layers run, and how often."""
    return tuple((part.times, *((run.segment, run.count) for run in part.runs)) for part in cell.parts)


def _part_later(at: Repeated, before: Repeated, times: int) -> Repeated:
    """Runs as they are some periods later."""
    runs = tuple(_later(b, a, times) for a, b in zip(before.runs, at.runs, strict=True))
    return Repeated(runs, at.times, at.period_s + times * (at.period_s - before.period_s))


def _later(at: Run, before: Run, times: int) -> Run:
    """The run as it is some periods later."""
    return Run(
        at.segment,
        at.count,
        at.start_s + times * (at.start_s - before.start_s),
        at.period_s + times * (at.period_s - before.period_s),
        _moved(at.starts, before.starts, times),
        _moved(at.finishes, before.finishes, times),
    )


def _moved(at: Moments, before: Moments, times: int) -> Moments:
    return at if at is before else at.moved(before, times)  # what shares its times goes on sharing them
