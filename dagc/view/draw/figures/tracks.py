"""The timeline of a phase: a rank a class and stage with its micro-batches, and one layer of it op by op."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from math import ceil, log2

from ....base.frozen import record
from ....base.units import BYTES, FLOPS, TIME, show
from ....ir.op import COMPUTE, COPY
from ....plan.result import PhaseResult
from ...facts.critical import Visit, critical
from ...facts.timeline import Cell, Member, Slice, bubbles, cells, classes, representatives, requests, slices
from ...facts.unroll import lane_letter
from ..dot import COLORS, identifier
from ..layer_digraph import heaviest
from .looks import SMALL
from .markup import Markup, fit, tag, width
from .svg import Figure, Keys, figure, hatch, rect, title, words
from .time_scale import TimeScale

LABEL, BAR, RIGHT, ROW, TOP = 180, 788, 118, 46, 24
CELL_H = 34
MAX_ROWS = 24
MAX_CELLS = 1500
COMPUTE_H, COMM_H, COPY_H, REQUEST_H = 14, 10, 4, 2
READABLE = 34.0
"""Pixels of a micro-batch from which on its bars can be told apart: narrower ones are left out in the middle of a pass."""
LEAST_KEPT = 4
"""Micro-batches that are drawn at either end at least."""


@record
class Row:
    """A rank of the timeline, what it does, its micro-batches, and when it has none. `kinds` of ranks in its stage, of which this is
    the `place`-th of `shown`."""

    member: Member
    pieces: list[Slice]
    cells: list[Cell]
    idle: list[tuple[float, float]]
    place: int
    shown: int
    kinds: int

    @property
    def end_s(self) -> float:
        return max((cell.end_s for cell in self.cells), default=0.0)


def draw(result: PhaseResult) -> Figure:
    """All of a pass; of many micro-batches the first and the last ones."""
    members = representatives(result)
    members = members if len(members) <= MAX_ROWS else representatives(result, most=1)
    shown = members if len(members) <= MAX_ROWS else [*members[: MAX_ROWS - 1], members[-1]]
    rows = [_row(result, member, members) for member in shown]
    end_s = result.schedule.latency_s
    left_out = cut(result, rows[0].cells, end_s)
    scale = TimeScale.of(end_s, LABEL, BAR, left_out)
    height = TOP + ROW * len(rows) + 4
    body = [*scale.axis(TOP, height - 4), words(LABEL + BAR + 10, TOP - 10, "end, idle", "soft small")]
    path = critical(result)
    slowest: set[int] = set()
    for k, row in enumerate(rows):
        body += _drawn(result, row, TOP + ROW * k, scale)
        if row.member.stage not in slowest:
            body.append(_critical([v for v in path if v.stage == row.member.stage], TOP + ROW * k, scale))
            slowest.add(row.member.stage)
    body += scale.broken(TOP - 4, height - 4)
    if left_out is not None:
        hidden = sum(left_out[0] <= cell.start_s < left_out[1] for cell in rows[0].cells)
        said = f"{hidden} of {result.graph.microbatches} micro-batches, like those beside the break, are left out: {show(left_out[1] - left_out[0], TIME, 3)}"
        body.append(words(scale.middle, height + 11, said, "soft mid"))
        height += 18
    if len(shown) < len(members):
        said = f"{len(shown)} of {len(members)} stages are drawn: the first {len(shown) - 1} and the last"
        body.append(words(0, height + 12, said, "soft"))
        height += 18
    label = f"timeline of one pass of {result.name}: {len(shown)} ranks, {show(end_s, TIME)}"
    return figure("timeline", LABEL + BAR + RIGHT, height, label, *body, zoom=True)


def keys(result: PhaseResult) -> Keys:
    """What the colours mean."""
    kinds = {op.runtime_kind for s in result.graph.segments for op in s.ops if op.is_collective}
    kinds |= {"send"} if len(result.graph.stages) > 1 else set()
    kinds |= {s.kind for stage in result.graph.stages for s in _requests(result, stage.index)}
    comm = [(f"k-{k}", k) for k in COLORS if k in kinds]
    comm += [("b-host_link", "copies from and to the host")] if result.graph.copies else []
    idle = [("bubble", "no micro-batch (a bubble)")] if len(result.graph.stages) > 1 else []
    return [("busy", "compute"), *comm, *idle, ("path", "the critical path is in this stage")]


def cut(result: PhaseResult, first: Sequence[Cell], end_s: float) -> tuple[float, float] | None:
    """From and to which moment nothing is drawn, so that the micro-batches before and behind can be read: between the beginnings of
    two of them on the first rank. None where all of them can be, or too few would be left out."""
    stages, count = len(result.graph.stages), len(first)
    if not count or not end_s or BAR * (first[-1].end_s - first[0].start_s) / count / end_s >= READABLE:
        return None
    kept = max(LEAST_KEPT, min(int((BAR / READABLE - stages) / 2), count))
    if count - 2 * kept < LEAST_KEPT:
        return None
    return first[kept].start_s, first[count - kept].start_s


def _row(result: PhaseResult, member: Member, members: Sequence[Member]) -> Row:
    pieces = list(slices(result, member))
    found = cells(pieces)
    mine = [m for m in members if m.stage == member.stage]
    idle = bubbles(found, result.schedule.host_s, result.schedule.latency_s)
    return Row(member, pieces, found, idle, mine.index(member), len(mine), len(classes(result, member.stage)))


def _drawn(result: PhaseResult, row: Row, y: float, scale: TimeScale) -> list[Markup]:
    """Cells of the micro-batches, what keeps the compute stream busy, and below it the communication; when there are none, hatched."""
    member, pieces = row.member, [s for s in row.pieces if s.kind != "host"]
    alike = f"1 of {member.alike} identical" if member.alike > 1 else "one GPU"
    if row.kinds > row.shown:
        alike = f"{('slowest', 'middle', 'fastest')[row.place]} of {row.kinds} kinds"
    out = [
        words(0, y + 13, result.seats[member.stage].name, "strong"),
        words(0, y + 28, f"GPU {member.gpu}, {alike}", "soft", room=LABEL - 8),
    ]
    for host in (s for s in row.pieces if s.kind == "host"):
        for x, w in scale.spans(host.start_s, host.end_s):
            out.append(rect(x, y, w, CELL_H, "cell", title(f"the host, before the pass: {show(host.end_s, TIME)}")))
            out += _said("host", x, y, w)
    step = _every(row.cells, scale)
    for cell in row.cells[:MAX_CELLS]:
        hint = (
            f"GPU {member.gpu}, micro-batch {cell.microbatch}: {show(cell.start_s, TIME)} to {show(cell.end_s, TIME)}; "
            f"computes {show(cell.compute_s, TIME, 3)}, communicates {show(cell.comm_s, TIME, 3)}"
        )
        for k, (x, w) in enumerate(scale.spans(cell.start_s, cell.end_s)):
            key = identifier(result.name, "timeline", member.gpu, cell.microbatch, *([k] if k else []))
            out.append(rect(x, y, w, CELL_H, f"cell c{cell.microbatch % 2}", title(hint), id=key))
            if cell.microbatch % step == 0 and scale.whole(cell.start_s, cell.end_s):
                out += _said(str(cell.microbatch), x, y, step * w)
    out += _bubbles(result, row, y, scale)
    out.append(_busy([s for s in pieces if s.stream == "compute"], y + 12, COMPUTE_H - 2, scale, "busy"))
    for kind, ends in itertools.groupby(_requests(result, member.stage), key=lambda s: s.kind):
        out.append(_busy(list(ends), y, REQUEST_H, scale, f"k-{kind}"))
    copies = [s for s in pieces if s.stream == COPY]
    comm_h = COMM_H - COPY_H if copies else COMM_H
    for kind in COLORS:
        mine = [s for s in pieces if s.kind == kind]
        if mine:
            out.append(_busy(mine, y + 24, comm_h, scale, f"k-{kind}"))
    if copies:
        out.append(_busy(copies, y + 24 + comm_h, COPY_H, scale, "b-host_link"))
    share = sum(b - a for a, b in row.idle) / ((result.schedule.latency_s - result.schedule.host_s) or 1.0)
    out.append(words(LABEL + BAR + 10, y + 13, show(row.end_s, TIME, 4), "strong"))
    out.append(words(LABEL + BAR + 10, y + 28, f"idle {share:.1%}" if row.idle else "never idle", "soft"))
    return out


def _said(what: str, x: float, y: float, room: float) -> list[Markup]:
    """Words at the upper left of a cell, where there is room."""
    return [words(x + 3, y + 10, what, "tiny")] if _wide(what) + 5 <= room else []


def _wide(what: str) -> float:
    """How wide small words are at most."""
    return width(what, SMALL) * 1.1


def _every(found: Sequence[Cell], scale: TimeScale) -> int:
    """Of how many micro-batches one has its number, so that numbers are apart: 1, 2, 4, 8 ..."""
    widths = [
        w for cell in found if scale.whole(cell.start_s, cell.end_s) for _, w in scale.spans(cell.start_s, cell.end_s)
    ]
    if not widths:
        return 1
    need = _wide(str(found[-1].microbatch)) + 5
    return 1 << max(0, ceil(log2(need / max(min(widths), 0.05))))


def _why_idle(row: Row, start_s: float, end_s: float) -> str:
    """The pipeline fills before its first micro-batch, and drains behind its last one."""
    if not row.cells or end_s <= min(cell.start_s for cell in row.cells):
        return "fill"
    return "drain" if start_s >= max(cell.end_s for cell in row.cells) else "idle"


def _bubbles(result: PhaseResult, row: Row, y: float, scale: TimeScale) -> list[Markup]:
    """Hatched, each with its share of the pass where there is room."""
    out: list[Markup] = []
    whole_s = result.schedule.latency_s - result.schedule.host_s
    for start_s, end_s in row.idle:
        share = (end_s - start_s) / whole_s
        said = f"{_why_idle(row, start_s, end_s)} {share:.1%}"
        hint = f"GPU {row.member.gpu} has no micro-batch from {show(start_s, TIME)} to {show(end_s, TIME)}: {share:.1%} of the pass"
        for x, w in scale.spans(start_s, end_s):
            out.append(tag("path", title(hint), d=f"M{x:.1f} {y:.0f}h{w:.1f}v{CELL_H}h-{w:.1f}z", cls="bubble"))
            lines = "".join(hatch(x, y, w, CELL_H))
            if lines:
                out.append(tag("path", d=lines, cls="mute hatch"))
            if _wide(said) + 8 <= w:
                room = _wide(said) + 6
                out.append(rect(x + (w - room) / 2, y + CELL_H / 2 - 8, room, 16, "mute paper"))
                out.append(words(x + w / 2, y + CELL_H / 2 + 4, said, "small mid"))
    return out


def _requests(result: PhaseResult, stage: int) -> Iterator[Slice]:
    """What is exchanged with the front end during the pass; the rest is before it or behind."""
    return (s for s in requests(result, stage) if s.end_s > 0 and s.start_s < result.schedule.latency_s)


def _busy(found: list[Slice], y: float, h: float, scale: TimeScale, cls: str) -> Markup:
    """All stretches as one thick line, since there are hundreds."""
    spans = _stretches(((s.start_s, s.end_s) for s in found), scale)
    lines = "".join(f"M{a:.1f} {y + h / 2:.0f}h{max(0.2, b - a):.1f}" for a, b in spans)
    return tag("path", d=lines, cls=f"mute line-{cls}", stroke_width=h)


NEAR = 0.5
"""Pixels between stretches that touch on a screen."""


def _stretches(found: Iterable[tuple[float, float]], scale: TimeScale) -> list[list[float]]:
    """Where stretches of time are; those that touch on the screen are one."""
    spans: list[list[float]] = []
    for a, w in (span for start_s, end_s in found for span in scale.spans(start_s, end_s)):
        if spans and -NEAR < a - spans[-1][1] < NEAR:
            spans[-1][1] = max(spans[-1][1], a + w)
        else:
            spans.append([a, a + w])
    return spans


def _critical(visits: list[Visit], y: float, scale: TimeScale) -> Markup:
    """A line under the stage for as long as the critical path is in it."""
    spans = _stretches(((v.start_s, v.end_s) for v in visits), scale)
    bars = "".join(f"M{a:.1f} {y + 37:.0f}h{max(0.5, b - a):.1f}v3h-{max(0.5, b - a):.1f}z" for a, b in spans)
    return tag("path", d=bars, cls="path critical")


def one_layer(result: PhaseResult) -> Figure | None:
    """The heaviest layer on the slowest rank of the first stage that has it, each stream in a row."""
    segment = heaviest(result)[0]
    stage = next(s.index for s in result.seats if any(name == segment.name for name, _ in s.layers))
    member = next(m for m in representatives(result) if m.stage == stage)
    numbers = [s.layer for s in slices(result, member) if s.segment == segment.name and s.microbatch == 0]
    number = numbers[-1] if numbers else None
    pieces = [
        s for s in slices(result, member) if s.layer == number and s.microbatch == 0 and s.segment == segment.name
    ]
    if not pieces:
        return None
    zero, stop = min(s.start_s for s in pieces), max(s.end_s for s in pieces)
    span = stop - zero
    on_path = {s.op for s in result.path if s.segment == segment.name}
    scale = TimeScale.of(span, LABEL, BAR + RIGHT - 16)
    streams = ["compute", "communication", *(["copies"] if result.graph.copies else [])]
    bottom = TOP + 36 * len(streams)
    body = scale.axis(TOP, bottom - 2)
    body += [words(0, TOP + 18 + 36 * k, name) for k, name in enumerate(streams)]
    for s in pieces:
        y = TOP if s.stream == "compute" else TOP + 74 if s.stream == COPY else TOP + 38
        x = scale.pieces[0].at(s.start_s - zero)
        w = max(0.6, scale.pieces[0].at(s.end_s - zero) - x)
        kind = "busy" if s.stream == "compute" else "b-host_link" if s.stream == COPY else f"k-{s.kind}"
        key = identifier(result.name, "one", s.op, s.lane, s.start_s - zero)
        body.append(rect(x, y, w, 28, f"op {kind}", title(_hint(result, s)), id=key, tabindex="0"))
        if s.op in on_path:
            body.append(rect(x, y + 29, w, 3, "path critical"))
        name = s.op.split(".", 1)[-1].split(".")[-1]
        lane = f"{lane_letter(s.lane).upper()} " if result.graph.lanes > 1 else ""
        if w > 16 and width(lane + name[:4] + "…", SMALL) <= w - 4:
            body.append(
                words(x + 3, y + 18, fit(lane + name, w - 5, SMALL), "on" if s.stream == "compute" else "dark small")
            )
    label = f"one {segment.name} layer of {result.name} on GPU {member.gpu}: {show(span, TIME)}"
    return figure("one-layer", LABEL + BAR + RIGHT, bottom + 2, label, *body, zoom=True)


def _hint(result: PhaseResult, s: Slice) -> str:
    cost = result.costs.ops[s.segment, s.op]
    size = (
        f"{show(cost.payload_B, BYTES, 3)}, {cost.algorithm}"
        if s.stream != COMPUTE
        else f"{show(cost.flops, FLOPS, 3)}, {show(cost.bytes, BYTES, 3)}"
        if s.stream == COMPUTE
        else show(cost.bytes, BYTES, 3)
    )
    return f"{s.op}: {s.kind}, {show(s.end_s - s.start_s, TIME, 3)}, {size}, bound by {cost.bound}"
