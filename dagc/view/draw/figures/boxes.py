"""Positions of the boxes of a small directed graph: rows by depth, each box under its inputs; edges avoid boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ....base.frozen import record

GAP_X = 18.0
GAP_Y = 26.0
BLOCK_GAP = 26.0
TRACK = 9.0
MANY = 3
ASIDE = 20.0
"""From the boxes to the first track, with frames between."""


@record
class Size:
    w: float
    h: float


@dataclass(slots=True)
class BoxPlace:
    """`x` is the middle of a box, `y` its top."""

    x: float
    y: float
    w: float
    h: float
    level: int

    @property
    def bottom(self) -> float:
        return self.y + self.h


@dataclass(slots=True)
class Boxes:
    places: dict[str, BoxPlace] = field(default_factory=dict)
    paths: dict[tuple[str, str], str] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def place(sizes: Mapping[str, Size], edges: Sequence[tuple[str, str]], blocks: Mapping[str, str]) -> Boxes:
    """`sizes` in program order, blocks whole; blocks are one below the other."""
    sizes = {name: sizes[name] for name in _sorted(list(sizes), edges)}
    levels = _levels(sizes, edges, blocks)
    rows: dict[int, list[str]] = {}
    for name in sizes:
        rows.setdefault(levels[name], []).append(name)
    out = Boxes()
    y = 0.0
    previous = ""
    parents: dict[str, list[str]] = {name: [a for a, b in edges if b == name] for name in sizes}
    for level in sorted(rows):
        row = rows[level]
        block = blocks.get(row[0], "")
        y += BLOCK_GAP if level and block != previous else 0.0
        previous = block
        for name, x in zip(row, _columns(row, sizes, parents, out, levels), strict=True):
            size = sizes[name]
            out.places[name] = BoxPlace(x, y, size.w, size.h, level)
        y += max(sizes[n].h for n in row) + GAP_Y
    left = min(p.x - p.w / 2 for p in out.places.values())
    for p in out.places.values():
        p.x -= left
    out.width = max(p.x + p.w / 2 for p in out.places.values())
    out.height = y - GAP_Y
    _route(out, edges)
    return out


def _sorted(names: list[str], edges: Sequence[tuple[str, str]]) -> list[str]:
    """Program order, except that a box comes after its inputs: one may contain ops from before and after another box."""
    left = dict.fromkeys(names)
    out: list[str] = []
    while left:
        waiting = {b for a, b in edges if a in left and b in left and a != b}
        name = next((n for n in left if n not in waiting), next(iter(left)))
        del left[name]
        out.append(name)
    return out


def _levels(sizes: Mapping[str, Size], edges: Sequence[tuple[str, str]], blocks: Mapping[str, str]) -> dict[str, int]:
    """Below every input, and below every earlier block."""
    levels: dict[str, int] = {}
    first = deepest = 0
    previous: str | None = None
    for name in sizes:
        block = blocks.get(name, "")
        if block != previous:
            first, previous = (deepest + 1 if levels else 0), block
        levels[name] = max([first, *(levels[a] + 1 for a, b in edges if b == name and a in levels)])
        deepest = max(deepest, levels[name])
    return levels


def _columns(
    row: list[str],
    sizes: Mapping[str, Size],
    parents: Mapping[str, list[str]],
    out: Boxes,
    levels: Mapping[str, int],
) -> list[float]:
    """Under the middle of the inputs of the row just above (of all inputs where many meet), pushed apart."""
    wanted = []
    for name in row:
        near = [p for p in parents[name] if levels[p] == levels[name] - 1]
        near = parents[name] if len(parents[name]) >= MANY or not near else near
        xs = [out.places[p].x for p in near]
        wanted.append(sum(xs) / len(xs) if xs else 0.0)
    order = sorted(range(len(row)), key=lambda k: (wanted[k], k))
    positions = [0.0] * len(row)
    groups: list[list[int]] = []  # neighbours that touch, laid out around the middle of what they want
    for k in order:
        groups.append([k])
        while len(groups) > 1 and _end(groups[-2], row, sizes, wanted) + GAP_X > _begin(groups[-1], row, sizes, wanted):
            last = groups.pop()
            groups[-1] += last
    for group in groups:
        x = _begin(group, row, sizes, wanted)
        for k in group:
            positions[k] = x + sizes[row[k]].w / 2
            x += sizes[row[k]].w + GAP_X
    return positions


def _span(group: list[int], row: list[str], sizes: Mapping[str, Size]) -> float:
    return sum(sizes[row[k]].w for k in group) + GAP_X * (len(group) - 1)


def _begin(group: list[int], row: list[str], sizes: Mapping[str, Size], wanted: list[float]) -> float:
    return sum(wanted[k] for k in group) / len(group) - _span(group, row, sizes) / 2


def _end(group: list[int], row: list[str], sizes: Mapping[str, Size], wanted: list[float]) -> float:
    return _begin(group, row, sizes, wanted) + _span(group, row, sizes)


def _route(out: Boxes, edges: Sequence[tuple[str, str]]) -> None:
    """Straight down where nothing is in the way, else round on the right: the nearest free track, short edges first."""
    tracks: list[tuple[float, int, int]] = []  # x, first and last level
    for a, b in sorted(edges, key=lambda e: out.places[e[1]].level - out.places[e[0]].level):
        source, target = out.places[a], out.places[b]
        first, last = source.level, target.level
        between = [p for p in out.places.values() if first < p.level < last]
        if _free(source.x, between):
            out.paths[a, b] = _down(source, target, late=True)
        elif _free(target.x, between):
            out.paths[a, b] = _down(source, target, late=False)
        else:
            beside = [p.x + p.w / 2 for p in out.places.values() if first <= p.level <= last]
            x = max(beside) + ASIDE
            while any(abs(x - other) < TRACK and low < last and first < high for other, low, high in tracks):
                x += TRACK
            tracks.append((x, first, last))
            out.width = max(out.width, x)
            out.paths[a, b] = _around(source, target, x, list(out.places.values()))


def _free(x: float, between: list[BoxPlace]) -> bool:
    return all(abs(p.x - x) > p.w / 2 + 4 for p in between)


def _down(source: BoxPlace, target: BoxPlace, *, late: bool) -> str:
    """A curve in the gap below the source, or above the target, and a straight line for the rest."""
    x1, y1, x2, y2 = source.x, source.bottom, target.x, target.y
    if abs(x1 - x2) < 0.5:
        return f"M{x1:.1f} {y1:.1f}V{y2:.1f}"
    bend = GAP_Y
    if late:
        top = max(y1, y2 - bend)
        return f"M{x1:.1f} {y1:.1f}V{top:.1f}C{x1:.1f} {top + bend * 0.6:.1f} {x2:.1f} {y2 - bend * 0.6:.1f} {x2:.1f} {y2:.1f}"
    low = min(y2, y1 + bend)
    return (
        f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend * 0.6:.1f} {x2:.1f} {low - bend * 0.6:.1f} {x2:.1f} {low:.1f}V{y2:.1f}"
    )


def _around(source: BoxPlace, target: BoxPlace, x: float, others: Sequence[BoxPlace]) -> str:
    """Out on the right to a track, down, and in from the right; through the gaps where a neighbour is there."""
    r = 6.0
    start = f"M{source.x + source.w / 2:.1f} {source.y + source.h * 0.7:.1f}"
    if any(p.level == source.level and p.x > source.x for p in others):
        floor = max(p.bottom for p in others if p.level == source.level)
        start = f"M{source.x:.1f} {source.bottom:.1f}V{floor + 3:.1f}q0 {r} {r} {r}"
    down, end = target.y + target.h * 0.3, f"H{target.x + target.w / 2:.1f}"
    if any(p.level == target.level and p.x > target.x for p in others):
        down, end = target.y - GAP_Y / 2, f"H{target.x + r:.1f}q-{r} 0 -{r} {r}V{target.y:.1f}"
    return f"{start}H{x - r:.1f}q{r} 0 {r} {r}V{down - r:.1f}q0 {r} -{r} {r}{end}"
