"""The timeline of a phase: a rank a class and stage with its micro-batches, and one layer of it op by op."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ....base.units import BYTES, FLOPS, TIME, show
from ....ir.graph import COMPUTE, STREAMS
from ....plan.result import PhaseResult
from ...facts.critical import Visit, critical
from ...facts.timeline import Member, Slice, classes, representatives, requests, slices
from ...facts.unroll import lane_letter
from ..dot import COLORS, identifier
from ..layer_digraph import heaviest
from .looks import SMALL
from .markup import Markup, fit, tag, width
from .svg import Figure, Keys, figure, line, moment_text, rect, ticks, title, words

LABEL, BAR, ROW, TOP = 180, 890, 46, 24
MAX_ROWS = 24
MAX_CELLS = 1500
COMPUTE_H, COMM_H, REQUEST_H = 14, 10, 2


def draw(result: PhaseResult) -> Figure:
    """All of a pass."""
    members = representatives(result)
    members = members if len(members) <= MAX_ROWS else representatives(result, most=1)
    shown = members if len(members) <= MAX_ROWS else [*members[: MAX_ROWS - 1], members[-1]]
    end = result.schedule.latency_s
    height = TOP + ROW * len(shown) + 4
    body = _axis(end, height)
    path = critical(result)
    slowest: set[int] = set()
    for k, member in enumerate(shown):
        mine = [m for m in members if m.stage == member.stage]
        kinds = len(classes(result, member.stage))
        body += _row(result, member, TOP + ROW * k, end, mine.index(member), len(mine), kinds)
        if member.stage not in slowest:
            body.append(_critical([v for v in path if v.stage == member.stage], TOP + ROW * k, end))
            slowest.add(member.stage)
    if len(shown) < len(members):
        body.append(
            words(
                0,
                height + 12,
                f"{len(shown)} of {len(members)} stages are drawn: the first {len(shown) - 1} and the last",
                "soft",
            )
        )
        height += 18
    label = f"timeline of one pass of {result.name}: {len(shown)} ranks, {show(end, TIME)}"
    return figure("timeline", LABEL + BAR + 16, height, label, *body, zoom=True)


def keys(result: PhaseResult) -> Keys:
    """What the colours mean."""
    kinds = {op.runtime_kind for s in result.graph.segments for op in s.ops if op.is_collective}
    kinds |= {"send"} if len(result.graph.stages) > 1 else set()
    kinds |= {s.kind for stage in result.graph.stages for s in _requests(result, stage.index)}
    comm = [(f"k-{k}", k) for k in COLORS if k in kinds]
    return [("busy", "compute"), *comm, ("path", "the critical path is in this stage")]


def _axis(end: float, height: float) -> list[Markup]:
    body = []
    for moment in ticks(end, 9):
        x = LABEL + moment / end * BAR if end else LABEL
        body += [line(x, TOP - 6, x, height - 4, "grid"), words(x, TOP - 10, moment_text(moment), "soft mid")]
    return body


def _row(result: PhaseResult, member: Member, y: float, end: float, place: int, shown: int, kinds: int) -> list[Markup]:
    """Cells of the micro-batches, what keeps the compute stream busy, and above it the communication."""
    pieces = list(slices(result, member))
    alike = f"1 of {member.alike} identical" if member.alike > 1 else "one GPU"
    if kinds > shown:
        alike = f"{('slowest', 'middle', 'fastest')[place]} of {kinds} kinds"
    out = [
        words(0, y + 13, result.seats[member.stage].name, "strong"),
        words(0, y + 26, f"GPU {member.gpu}, {alike}", "soft", room=LABEL - 4),
    ]
    batches: dict[int, list[Slice]] = {}
    host = [s for s in pieces if s.kind == "host"]
    pieces = [s for s in pieces if s.kind != "host"]
    for s in host:
        w = (s.end_s - s.start_s) / end * BAR
        out.append(rect(LABEL, y, w, 34, "cell", title(f"the host, before the pass: {show(s.end_s, TIME)}")))
        if w >= 30:
            out.append(words(LABEL + 3, y + 10, "host", "tiny"))
    for s in pieces:
        batches.setdefault(s.microbatch, []).append(s)
    for number, mine in list(batches.items())[:MAX_CELLS]:
        work = [s for s in mine if s.kind != "send"] or mine
        start, stop = min(s.start_s for s in work), max(s.end_s for s in work)
        x, w = LABEL + start / end * BAR, (stop - start) / end * BAR
        busy = {t: sum(s.end_s - s.start_s for s in mine if (s.stream == COMPUTE) == (t == COMPUTE)) for t in STREAMS}
        hint = (
            f"GPU {member.gpu}, micro-batch {number}: {show(start, TIME)} to {show(stop, TIME)}; "
            f"computes {show(busy['compute'], TIME, 3)}, communicates {show(busy['comm'], TIME, 3)}"
        )
        key = identifier(result.name, "timeline", member.gpu, number)
        out.append(rect(x, y, w, 34, f"cell c{number % 2}", title(hint), id=key))
        if w >= 14:
            out.append(words(x + 3, y + 10, str(number), "tiny"))
    out.append(_busy([s for s in pieces if s.stream == "compute"], y + 12, COMPUTE_H - 2, end, "busy"))
    for kind, ends in itertools.groupby(_requests(result, member.stage), key=lambda s: s.kind):
        out.append(_busy(list(ends), y, REQUEST_H, end, f"k-{kind}"))
    for kind in COLORS:
        mine = [s for s in pieces if s.kind == kind]
        if mine:
            out.append(_busy(mine, y + 24, COMM_H, end, f"k-{kind}"))
    return out


def _requests(result: PhaseResult, stage: int) -> Iterator[Slice]:
    """What is exchanged with the front end during the pass; the rest is before it or behind."""
    return (s for s in requests(result, stage) if s.end_s > 0 and s.start_s < result.schedule.latency_s)


def _busy(found: list[Slice], y: float, h: float, end: float, cls: str) -> Markup:
    """One path of all stretches; those that touch on the screen are one."""
    spans: list[list[float]] = []
    for s in found:
        a, b = s.start_s / end * BAR, s.end_s / end * BAR
        if spans and a - spans[-1][1] < 0.25:
            spans[-1][1] = max(spans[-1][1], b)
        else:
            spans.append([a, b])
    parts = [f"M{LABEL + a:.1f} {y:.0f}h{max(0.2, b - a):.1f}v{h:.0f}h-{max(0.2, b - a):.1f}z" for a, b in spans]
    return tag("path", d="".join(parts), cls=f"mute {cls}")


def _critical(visits: list[Visit], y: float, end: float) -> Markup:
    """A line under the stage for as long as the critical path is in it."""
    spans: list[list[float]] = []
    for visit in visits:
        a, b = visit.start_s / end * BAR, visit.end_s / end * BAR
        if spans and a - spans[-1][1] < 0.25:
            spans[-1][1] = b
        else:
            spans.append([a, b])
    parts = [f"M{LABEL + a:.1f} {y + 37:.0f}h{max(0.5, b - a):.1f}v3h-{max(0.5, b - a):.1f}z" for a, b in spans]
    return tag("path", d="".join(parts), cls="path critical")


def one_layer(result: PhaseResult) -> Figure | None:
    """The heaviest layer on the slowest rank of the first stage that has it, two streams a lane."""
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
    body = _axis(span, TOP + 74)
    body += [words(0, TOP + 18, "compute"), words(0, TOP + 54, "communication")]
    for s in pieces:
        y = TOP if s.stream == "compute" else TOP + 38
        x, w = LABEL + (s.start_s - zero) / span * BAR, max(0.6, (s.end_s - s.start_s) / span * BAR)
        kind = "busy" if s.stream == "compute" else f"k-{s.kind}"
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
    return figure("one-layer", LABEL + BAR + 16, TOP + 74, label, *body, zoom=True)


def _hint(result: PhaseResult, s: Slice) -> str:
    cost = result.costs.ops[s.segment, s.op]
    size = (
        f"{show(cost.payload_B, BYTES, 3)}, {cost.algorithm}"
        if s.stream != COMPUTE
        else f"{show(cost.flops, FLOPS, 3)}, {show(cost.bytes, BYTES, 3)}"
    )
    return f"{s.op}: {s.kind}, {show(s.end_s - s.start_s, TIME, 3)}, {size}, bound by {cost.bound}"
