"""From the selected steps to the rows and columns of the picture: equal things once, until it is readable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from math import isclose

import numpy as np

from ....base.arrays import NDArray
from ....base.frozen import record, replace
from ....plan.result import PhaseResult
from ..timeline import cell_of, labels
from .select import Masks, select
from .shown_part import DEFAULT, FOLDS, Choice, refused
from .steps import Mask, Part, Program, Step

READABLE = 300
"""Boxes that a picture has at most, unless more are asked for."""
BESIDE = 8
"""Stages side by side, from which on equal ones are folded however few boxes they have."""
MOST = 200_000
CLASSES = 3
"""Kinds of ranks that are drawn of a stage: the slowest, the fastest and evenly between."""
SAME_S = 1e-12


def key(mask: Mask) -> bytes:
    """Equal for equal masks of equal parts."""
    return b"all" if mask.strides == (0, 0) else mask.tobytes()


@record
class Column:
    """A GPU that represents ranks of its stage, its own among them."""

    rank: int
    gpu: int
    ranks: tuple[int, ...]


@record
class Group:
    """A part that represents equal `parts`, itself among them; each of `rows` has the steps of one row."""

    part: Part
    mask: Mask
    parts: tuple[Part, ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Layers of the part's own micro-batch."""
        own = (p for p in self.parts if (p.stage, p.microbatch) == (self.part.stage, self.part.microbatch))
        return tuple(p.number for p in own if p.number is not None)

    @property
    def microbatches(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(p.microbatch for p in self.parts))


@record
class Band:
    """Stages that are drawn once, with their columns and what they do."""

    stages: tuple[int, ...]
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


@record
class Picture:
    """`steps`: boxes without any fold; `folds`: (what was folded, boxes that were left); `cut`: boxes left out; `classes` of
    ranks, where only the slowest, the middle and the fastest of a stage are drawn."""

    program: Program
    choice: Choice
    bands: tuple[Band, ...]
    steps: int
    folds: tuple[tuple[str, int], ...]
    cut: int
    classes: int = 0


def picture(result: PhaseResult, choice: Choice = DEFAULT) -> Picture:
    """What is chosen, folded until it can be read unless `choice.unfold` asks for more.

    Raises SpecError when the choice is not understood, selects nothing, or is too large for any reader."""
    program = Program(result)
    masks = select(program, choice)
    kept = set(FOLDS) if "all" in choice.unfold else set(choice.unfold)
    folds: list[str] = []
    modes = {how: Rows(program, how) for how in ("", "ops", "blocks")}
    merged: set[int] = set()
    bands = build(program, masks, folds, modes, merged)
    steps = left = count(bands)
    told: list[tuple[str, int]] = []
    for name in FOLDS:
        wide = name == "stages" and len(bands) > BESIDE
        if (left <= READABLE and not wide) or name in kept:
            continue
        folds.append(name)
        merged = set()
        bands = build(program, masks, folds, modes, merged)
        if count(bands) < left:
            left = count(bands)
            told.append((name, left))
    cut = 0
    if left > READABLE and not kept:
        bands = _cut(bands)
        cut = left - count(bands)
    elif left > MOST:
        message = f"{left:,} boxes of {result.name} are more than anything can show (at most {MOST:,})"
        raise refused(message, "--select draws a part; --unfold only what you need")
    return Picture(program, choice, bands, steps, tuple(told), cut, max(merged, default=0))


def count(bands: Sequence[Band]) -> int:
    """Boxes, as if no two neighbours shared a collective's."""
    return sum(boxes(band, group) for band in bands for group in band.groups)


def boxes(band: Band, group: Group) -> int:
    shown = group.mask[:, [c.rank for c in band.columns]]
    if all(len(row) == 1 for row in group.rows):
        return int(shown.sum())
    return sum(int(shown[list(row)].any(axis=0).sum()) for row in group.rows)


def build(
    program: Program, masks: Masks, folds: Sequence[str], modes: Mapping[str, Rows], merged: set[int]
) -> tuple[Band, ...]:
    """The bands under some folds. `merged`: numbers of classes of which only three are drawn."""
    made = modes["blocks" if "blocks" in folds else "ops" if "ops" in folds else ""]
    bands = []
    for stage, parts in itertools.groupby(masks, key=lambda p: p.stage):
        mine = list(parts)
        cells = [_cell(made, masks, list(cell), "layers" in folds) for _, cell in _cells(mine)]
        if "microbatches" in folds:
            cells = _once(cells)
        columns = _columns(program, stage, [masks[p] for p in mine], "ranks" in folds, merged)
        bands.append(Band((stage,), columns, tuple(g for cell in cells for g in cell)))
    return tuple(_alike_stages(program, bands) if "stages" in folds else bands)


def _cells(parts: list[Part]) -> Iterator[tuple[int, Iterator[Part]]]:
    return itertools.groupby(parts, key=lambda p: p.microbatch)


class Rows:
    """Which steps share a row, made once for equal parts."""

    def __init__(self, program: Program, how: str) -> None:
        self.program, self.how = program, how
        self.known: dict[tuple[object, bytes], tuple[tuple[int, ...], ...]] = {}

    def of(self, part: Part, mask: Mask) -> tuple[tuple[int, ...], ...]:
        used = mask.any(axis=1)
        key = (part.alike, used.tobytes())
        if key not in self.known:
            steps = self.program.steps(part)
            rows = [int(k) for k in np.flatnonzero(used)]
            self.known[key] = tuple(self.merged(steps, rows))
        return self.known[key]

    def merged(self, steps: Sequence[Step], rows: list[int]) -> Iterator[tuple[int, ...]]:
        if self.how == "blocks":
            for _, group in itertools.groupby(rows, key=lambda k: (steps[k].block, steps[k].lane)):
                yield tuple(group)
        elif self.how == "ops":
            yield from _unpaused(steps, rows)
        else:
            yield from ((k,) for k in rows)


def _unpaused(steps: Sequence[Step], rows: list[int]) -> list[tuple[int, ...]]:
    """Compute that follows compute of the same lane without a pause is one row, even during communication."""
    out: list[list[int]] = []
    open_row = -1
    for k in rows:
        step = steps[k]
        if step.is_exchange:
            out.append([k])
            continue
        if open_row >= 0:
            last = steps[out[open_row][-1]]
            if last.lane == step.lane and step.start_s.min() <= last.end_s.max() + SAME_S:
                out[open_row].append(k)
                continue
        open_row = len(out)
        out.append([k])
    return [tuple(row) for row in out]


def _cell(made: Rows, masks: Masks, parts: list[Part], fold: bool) -> tuple[Group, ...]:
    """The layers of one micro-batch on one stage; with `fold`, equal ones as the one in the longest run."""
    kinds: dict[object, list[Part]] = {}
    for part in parts:
        kinds.setdefault((part.segment, key(masks[part])) if fold else part.place, []).append(part)
    out = []
    for layers in kinds.values():
        part = max(layers, key=lambda p: p.run.count if p.run is not None else 0)
        out.append(Group(part, masks[part], tuple(layers), made.of(part, masks[part])))
    return tuple(out)


def _once(cells: list[tuple[Group, ...]]) -> list[tuple[Group, ...]]:
    """Micro-batches that do the same, as the first of them."""
    alike: dict[tuple[object, ...], list[tuple[Group, ...]]] = {}
    for cell in cells:
        alike.setdefault(tuple((g.part.segment, g.numbers, key(g.mask)) for g in cell), []).append(cell)
    out = []
    for same in alike.values():
        out.append(_joined(same))
    return out


def _joined(alike: Sequence[tuple[Group, ...]]) -> tuple[Group, ...]:
    """The first of some equal rows of groups, each group for its fellows too."""
    fellows = zip(*alike, strict=True)
    return tuple(replace(groups[0], parts=tuple(p for g in groups for p in g.parts)) for groups in fellows)


def _columns(program: Program, stage: int, masks: list[Mask], fold: bool, merged: set[int]) -> tuple[Column, ...]:
    """The GPUs that do anything, in the order of their ids; with `fold` one of each class, and of many classes the
    slowest, the middle and the fastest: how many there were goes to `merged`."""
    gpus = program.result.seats[stage].gpus
    used = np.logical_or.reduce([m.any(axis=0) for m in masks])
    ranks = np.flatnonzero(used)
    if not fold:
        return tuple(sorted((Column(int(r), gpus[int(r)], (int(r),)) for r in ranks), key=lambda c: c.gpu))
    classes, busy = labels(program.result, stage)
    distinct = {key(m): m for m in masks if not m.all()}
    table: NDArray[np.intp] = np.vstack([classes[None, :], *(m.astype(np.intp) for m in distinct.values())])[:, ranks]
    _, kinds = np.unique(table, axis=1, return_inverse=True)
    columns = [_column(gpus, ranks[kinds.ravel() == kind]) for kind in range(int(kinds.max()) + 1)]
    if len(columns) > CLASSES and not distinct:
        merged.add(len(columns))
        columns.sort(key=lambda c: (-busy[c.rank], c.rank))
        columns = [replace(c, ranks=tuple(r for each in near for r in each.ranks)) for c, near in _thirds(columns)]
    return tuple(sorted(columns, key=lambda c: c.gpu))


def _thirds(classes: list[Column]) -> Iterator[tuple[Column, list[Column]]]:
    """The slowest class, the middle one and the fastest, each with those nearest to it."""
    picks = [round(k * (len(classes) - 1) / (CLASSES - 1)) for k in range(CLASSES)]
    ends = [0, *((a + b + 1) // 2 for a, b in itertools.pairwise(picks)), len(classes)]
    for pick, (a, b) in zip(picks, itertools.pairwise(ends), strict=True):
        yield classes[pick], classes[a:b]


def _column(gpus: Sequence[int], ranks: NDArray[np.intp]) -> Column:
    first = int(ranks[0])
    return Column(first, gpus[first], tuple(int(r) for r in ranks))


def _alike_stages(program: Program, bands: list[Band]) -> list[Band]:
    """Neighbours with the same layers, columns and time, as the first of them."""
    out: list[Band] = []
    times = program.result.schedule.stage_s
    for band in bands:
        if out and _signature(out[-1]) == _signature(band):
            a, b = out[-1].stages[0], band.stages[0]
            if isclose(times[cell_of(program.result, a)], times[cell_of(program.result, b)], rel_tol=1e-9):
                groups = _joined((out[-1].groups, band.groups))
                out[-1] = replace(out[-1], stages=(*out[-1].stages, *band.stages), groups=groups)
                continue
        out.append(band)
    return out


def _signature(band: Band) -> tuple[object, ...]:
    groups = tuple((g.part.segment, g.part.on, len(g.numbers), g.microbatches, key(g.mask)) for g in band.groups)
    return groups, tuple(c.ranks for c in band.columns)


def _cut(bands: tuple[Band, ...]) -> tuple[Band, ...]:
    """The first rows of each stage, and of very many stages the first."""
    bands = bands[: READABLE // 10]
    room = READABLE // len(bands)
    out = []
    for band in bands:
        columns = band.columns[:room]
        left = max(1, room // len(columns))
        groups = []
        for g in band.groups:
            if left > 0:
                groups.append(replace(g, rows=g.rows[:left]))
                left -= len(g.rows)
        out.append(Band(band.stages, columns, tuple(groups)))
    return tuple(out)
