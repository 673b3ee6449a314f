"""Each kind of layer once, with its collectives: boxes laid out here, without Graphviz."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ....ir.op import Op
from ....plan.result import PhaseResult
from ..dot import COLORS, identifier
from ..layer_digraph import Drawing, describe, drawings, gloss, links
from .boxes import Boxes, BoxPlace, Size, place
from .looks import SMALL
from .markup import BOLD, Markup, fit, join, tag, width, wrapped
from .svg import Figure, Keys, figure, rect, title, words

BOX = 232
PAD = 20
HEAD, LINE = 17, 13


def draw(result: PhaseResult) -> Iterator[tuple[str, int, Figure]]:
    """(kind of layer, how many there are, its figure), the heaviest kinds only where there are very many ops."""
    for d in drawings(result):
        yield d.segment.name, d.segment.repeat, drawn_layer(d)


def whole(result: PhaseResult) -> Figure:
    """Every kind of layer, side by side."""
    parts, x, bottom = [], 0.0, 0.0
    names = []
    for name, repeat, drawn in draw(result):
        names.append(f"{name} × {repeat}")
        head = words(PAD, 14, fit(names[-1], drawn.width - PAD), "strong")
        parts.append(
            tag("g", head, tag("g", drawn.body, transform="translate(0 16)"), transform=f"translate({x:.0f} 0)")
        )
        x, bottom = x + drawn.width, max(bottom, drawn.height + 16)
    return figure("layer", x, bottom, f"one layer of {result.name}: {', '.join(names)}", *parts)


HEAT = (0.02, 0.05, 0.1, 0.2)
"""Shares of a layer's time from which on an op is of the next shade."""


def heat(share: float) -> int:
    """The shade of a share: 0 is the palest."""
    return sum(share >= least for least in HEAT)


def keys(result: PhaseResult) -> Keys:
    """What the colours mean, and what each kind of op that is drawn does."""
    return [*heat_keys(), ("path", "on the critical path"), *kinds_of(drawings(result))]


def kinds_of(shown: Sequence[Drawing]) -> Keys:
    """What each kind of op that is drawn does."""
    drawn = {op.runtime_kind: gloss(op) for d in shown for op in d.segment.ops}
    own = {op.kind: gloss(op) for d in shown for op in d.segment.ops if not op.is_collective}
    moves = [(f"k-{k}", f"{k}: {drawn[k]}") for k in COLORS if k in drawn]
    return [*moves, *(("box", f"{kind}: {said}") for kind, said in own.items())]


def heat_keys(whose: str = "layer") -> Keys:
    """What the shades of boxes and the bars below them mean."""
    bounds = [0.0, *HEAT, 1.0]
    scale = [(f"h{k}", f"{low:.0%} to {high:.0%}") for k, (low, high) in enumerate(itertools.pairwise(bounds))]
    scale[0] = ("h0", f"below {HEAT[0]:.0%} of the {whose}'s time")
    scale[-1] = (f"h{len(HEAT)}", f"{HEAT[-1]:.0%} and more")
    return [*scale, ("busy", "bar: the time beside that of the longest op")]


def drawn_layer(d: Drawing) -> Figure:
    boxes: dict[str, list[Op]] = {}
    for op in d.segment.ops:
        boxes.setdefault(f"{d.prefix}/{d.home[op.name]}", []).append(op)
    texts = {name: _lines(d, name, ops) for name, ops in boxes.items()}
    entry = f"{d.segment.name}: {d.segment.input}"
    sizes = {d.entry: Size(width(entry, 12) + 12, HEAD)} | {
        name: _size(d, texts[name], boxes[name][0]) for name in boxes
    }
    blocks = {name: ops[0].use for name, ops in boxes.items()}
    bold = links(d)
    below = [*itertools.pairwise((d.entry, *boxes))] if d.stacked else []
    laid = place(sizes, [*bold, *(pair for pair in below if pair not in bold)], blocks)
    key = identifier(d.result.name, d.segment.name, *([d.cell] if d.cell else []))
    arrows = [_arrow(key, laid.paths[pair], critical) for pair, critical in sorted(bold.items(), key=lambda e: e[1])]
    frames = [*_frames(laid, blocks)]
    nodes = [
        _node(
            d,
            f"{key}-{identifier(name)}" if d.cell else identifier(d.result.name, name),
            laid.places[name],
            ops,
            *texts[name],
        )
        for name, ops in boxes.items()
    ]
    top = laid.places[d.entry]
    head = words(top.x, top.y + 12, fit(entry, BOX), "soft mid")
    moved = tag("g", join([*frames, *arrows, head, *nodes]), transform=f"translate({PAD} {PAD})")
    label = (
        f"{d.cell or 'all'} of one {d.segment.name} layer of"
        if d.cell
        else f"one {d.segment.name} layer of {d.result.name}: {len(boxes)} boxes"
    )
    return figure("layer", laid.width + 2 * PAD, laid.height + 2 * PAD, label, _markers(key), moved, zoom=True)


def _lines(d: Drawing, name: str, ops: list[Op]) -> tuple[str, list[str], str]:
    text = describe(d, name.split("/", 1)[1], ops)
    lines = [part for line in text.lines for part in wrapped(line, BOX - 16, SMALL, 3)]
    return fit(text.head, (BOX - 24) / BOLD, 12), lines, f"{text.hint}; {'; '.join([text.head, *text.lines])}"


def _size(d: Drawing, said: tuple[str, list[str], str], first: Op) -> Size:
    """Collectives are as wide as their text, everything else has one width."""
    height = HEAD + LINE * len(said[1]) + 6
    if not _is_collective(d, first):
        return Size(BOX, height)
    return Size(min(BOX, max(width(t, 11) for t in (said[0], *said[1])) + 48), height)


def _is_collective(d: Drawing, first: Op) -> bool:
    return first.is_collective and d.home[first.name] == first.name


def _markers(key: str) -> Markup:
    def head(name: str) -> Markup:
        point = tag("path", d="M0 0L8 4L0 8z", cls=name)
        return tag(
            "marker",
            point,
            id=f"{key}-{name}",
            viewBox="0 0 8 8",
            refX="7",
            refY="4",
            markerWidth="7",
            markerHeight="7",
            orient="auto",
            markerUnits="userSpaceOnUse",
        )

    return tag("defs", head("arrow"), head("arrow-critical"))


def _arrow(key: str, path: str, critical: bool) -> Markup:
    name = "arrow-critical" if critical else "arrow"
    return tag("path", d=path, cls="edge critical" if critical else "edge", marker_end=f"url(#{key}-{name})")


def _frames(laid: Boxes, blocks: dict[str, str]) -> Iterator[Markup]:
    """A frame round each block, two where another one lies between its parts; what is of none lies between them."""
    framed = [(block, laid.places[name]) for name, block in blocks.items() if block]
    framed.sort(key=lambda item: item[1].level)
    begun: set[str] = set()
    for block, run in itertools.groupby(framed, key=lambda item: item[0]):
        places = [one for _, one in run]
        name = f"{block}, further" if block in begun else block
        begun.add(block)
        left, right = min(p.x - p.w / 2 for p in places), max(p.x + p.w / 2 for p in places)
        top, bottom = min(p.y for p in places), max(p.bottom for p in places)
        yield rect(left - 10, top - 16, right - left + 20, bottom - top + 26, "frame", rx=8)
        yield words(left - 4, top - 5, fit(name, right - left), "soft")


def _node(d: Drawing, key: str, p: BoxPlace, ops: list[Op], head: str, lines: list[str], hint: str) -> Markup:
    first = ops[0]
    collective = _is_collective(d, first)
    critical = any(op.name in d.critical for op in ops)
    marked = " critical" if critical else ""
    left, right = p.x - p.w / 2, p.x + p.w / 2
    if collective:
        y, m, b = p.y, p.y + p.h / 2, p.bottom
        shape = tag(
            "path",
            d=f"M{left:.1f} {m:.1f}L{left + 14:.1f} {y:.1f}H{right - 14:.1f}L{right:.1f} {m:.1f}L{right - 14:.1f} {b:.1f}H{left + 14:.1f}z",
            cls=f"hex k-{first.runtime_kind}{marked}",
        )
    else:
        shape = rect(left, p.y, p.w, p.h, f"box h{heat(d.share(ops))}{marked}", rx=7)
    ink = "dark " if collective else ""
    texts = [words(p.x, p.y + 14, head, f"{ink}mid{' strong' if critical else ''}")]
    texts += [words(p.x, p.y + HEAD + LINE * (k + 1) - 3, t, f"{ink}mid small") for k, t in enumerate(lines)]
    bar = _bar(d, p, ops)
    return tag("g", title(hint), shape, bar, join(texts), id=key, cls=f"node{marked}", tabindex="0")


def _bar(d: Drawing, p: BoxPlace, ops: list[Op]) -> Markup:
    """Under a box: its time beside that of the op that takes most."""
    most = max(d.seconds([op]) for op in d.segment.ops)
    w = min(1.0, d.seconds(ops) / most) * (p.w - 30) if most else 0.0
    return rect(p.x - p.w / 2 + 15, p.bottom + 1.5, w, 3, "mute busy") if w >= 1 else Markup()
