"""The `layer` view: each segment once, with equal ranks folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...base.frozen import record
from ...base.units import BYTES, FLOPS, TIME, show
from ...cost.schedule.records import Run
from ...ir.mesh import Mesh
from ...ir.op import Op
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.ops.op_set import OPS
from ...ir.segment import Segment
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult
from ...plan.trained import TrainingResult
from .dot import COLORS, COMPUTE, CRITICAL, INK, SOFT, Html, cluster, digraph, edge, html, legend, node

MAX_NODES = 300
LONGEST = 150
"""Letters of a line above the picture."""
SAME_S = 1e-12
"""Moments closer than this are one."""
LEAST_S, LESS = 1e-9, "under 1 ns"
"""Of a time that is drawn, and what is said of a shorter one."""
BOLD = {"color": CRITICAL, "penwidth": "2.2"}


@record
class Drawing:
    """One segment: `home` says in which box each op is, `twins` which blocks another segment draws. `cell`: what of a training step it
    is, whose boxes are one below the other where they are `stacked`."""

    result: PhaseResult | TrainingResult
    segment: Segment
    home: Mapping[str, str]
    twins: Mapping[str, str]
    critical: frozenset[str]
    cell: str = ""
    stacked: bool = False

    @property
    def mesh(self) -> Mesh:
        return self.result.graph.the_mesh

    @property
    def prefix(self) -> str:
        """Of all its boxes."""
        return f"{self.segment.name} {self.cell}" if self.cell else self.segment.name

    @property
    def entry(self) -> str:
        return f"{self.prefix}/in"

    def box(self, name: str) -> str:
        """The node that a value comes from."""
        return (
            self.entry if self.segment.arrives_with(name) == self.segment.input else f"{self.prefix}/{self.home[name]}"
        )

    def share(self, ops: Sequence[Op]) -> float:
        """Of the time of all ops of the layer, one after the other."""
        return self.seconds(ops) / (self.seconds(self.segment.ops) or 1.0)

    def seconds(self, ops: Sequence[Op]) -> float:
        return sum(float(self.result.costs.ops[self.segment.name, op.name].time_s.max()) for op in ops)


def draw(plan: CompiledPlan, phase: str) -> str:
    """DOT of a phase's layers, one column per segment."""
    title = "\n".join((*plan.titles_of(phase), f"{plan.spec.model.name}, " + "\n".join(subtitle(plan.phases[phase]))))
    return written(phase, drawings(plan.phases[phase]), title)


def written(phase: str, kept: Sequence[Drawing], title: str) -> str:
    """DOT of some drawings beside each other."""
    body = [line for d in kept for line in _layer(d)]
    kinds = [k for k in COLORS if any(op.runtime_kind == k for d in kept for op in d.segment.ops)]
    body.append(node("legend", label=legend(kinds), shape="plaintext", tooltip="legend"))
    return digraph(f"{phase} layer", title, body, rankdir="TB", nodesep=0.25, ranksep=0.28, newrank="true")


def drawings(result: PhaseResult) -> list[Drawing]:
    """The kinds of layer, as many as there is room for."""
    by_block = _ops(result) > MAX_NODES
    return _fitting([_drawing(result, s, by_block=by_block) for s in result.graph.segments[1:-1]])


def _ops(result: PhaseResult) -> int:
    return sum(len(s.ops) for s in result.graph.segments[1:-1])


def _drawing(result: PhaseResult, segment: Segment, *, by_block: bool) -> Drawing:
    """A kind of layer, an op or (when there are too many) a block to a box."""
    critical = frozenset(s.op for s in result.path if s.segment == segment.name)
    if by_block:
        return Drawing(result, segment, {op.name: op.use for op in segment.ops}, {}, critical)
    twins = _twins(result, segment)
    home = {name: _block_of(segment, name, twins) or box for name, box in fold(segment).items()}
    return Drawing(result, segment, home, twins, critical)


def _block_of(segment: Segment, name: str, twins: Mapping[str, str]) -> str:
    block = segment.by_name[name].use
    return block if block in twins else ""


def _fitting(drawings: list[Drawing]) -> list[Drawing]:
    """The layers that take most time, as many as there is room for, in program order."""
    room = MAX_NODES - 1
    kept: list[Drawing] = []
    for d in sorted(drawings, key=lambda d: -d.seconds(d.segment.ops) * d.segment.repeat):
        room -= len(set(d.home.values())) + 1
        if room >= 0 or not kept:
            kept.append(d)
    return [d for d in drawings if d in kept]


def subtitle(result: PhaseResult) -> list[str]:
    """What is drawn and what is folded, and how to read it."""
    segments = [d.segment for d in drawings(result)]
    total, kinds = _ops(result), len(result.graph.segments) - 2
    ranks = len(result.gpus) // len(result.graph.stages)
    names = ", ".join(f"{s.name} x {s.repeat}" for s in segments[:6]) + (", ..." if len(segments) > 6 else "")
    head = f"{result.name}: one layer ({names}), the same on the {ranks} GPUs of a stage"
    folded = [f"{total} ops folded to one box per block"] if total > MAX_NODES else []
    if len(segments) < kinds:
        folded.append(f"the {len(segments)} heaviest of {kinds} kinds of layer")
    one_line = "; ".join((head, *folded))
    return [
        *([one_line] if len(one_line) <= LONGEST else [head, "; ".join(folded)]),
        "sizes are those of one GPU and one micro-batch; dim/axes: the dim is split over these axes; %: of the time of all its ops",
    ]


def _layer(d: Drawing) -> list[str]:
    """The nodes of one kind of layer, a frame a block, and its edges."""
    boxes: dict[str, list[Op]] = {}
    for op in d.segment.ops:
        boxes.setdefault(d.home[op.name], []).append(op)
    label = (
        f"{d.prefix}: {d.segment.input}"
        if d.cell
        else f"{d.segment.name}: {d.segment.input}\n{_dims(d.segment, d.segment.input, d.mesh)}"
    )
    lines = [node(d.entry, label=label, shape="plaintext", fontcolor=SOFT, tooltip=f"input of {d.segment.name}")]
    frames: dict[str, list[str]] = {}
    for box, ops in boxes.items():
        frames.setdefault(ops[0].use, []).append(_box(d, box, ops))
    for block, inside in frames.items():
        whole = len(inside) == 1 and d.home.get(next(o.name for o in d.segment.ops if o.use == block)) == block
        lines += inside if whole or not block else cluster(f"{d.prefix}/{block}", block, inside)
    return lines + _edges(d)


def fold(segment: Segment) -> dict[str, str]:
    """Op -> its box: a fused op is in that of the compute op it follows."""
    home: dict[str, str] = {}
    above: dict[str, set[str]] = {}  # the boxes that a box waits for
    for op in segment.ops:
        inputs = [n for n in segment.sources(op) if n in home]
        first = next(iter(segment.sources(op)), "")
        fused = not op.is_collective and OPS[op.kind].fused and not OPS[op.kind].jointly
        box = op.name
        if fused and first in home and not segment.by_name[first].is_collective:
            # Not where another input waits for that box itself: the two boxes would wait for each other.
            others = {home[n] for n in inputs} - {home[first]}
            box = op.name if any(home[first] in above[other] for other in others) else home[first]
        home[op.name] = box
        waits = {home[n] for n in inputs} - {box}
        above.setdefault(box, set()).update(waits, *(above[w] for w in waits))
    return home


def heaviest(result: PhaseResult | TrainingResult) -> list[Segment]:
    """The kinds of layer, those first that take most of the time, all their repeats together."""

    def weight_s(s: Segment) -> float:
        return s.repeat * sum(float(result.costs.ops[s.name, op.name].time_s.max()) for op in s.ops)

    return sorted(result.graph.body, key=weight_s, reverse=True)


def _twins(result: PhaseResult, segment: Segment) -> dict[str, str]:
    """Block -> the layer that draws it: a block that a heavier layer has just so is drawn there only."""
    mine = _blocks(result, segment)
    boxes: dict[str, str] = {}
    order = heaviest(result)
    for other in order[: order.index(segment)]:
        theirs = _blocks(result, other)
        for block, ops in mine.items():
            if len(ops) > 1 and theirs.get(block) == ops:
                boxes.setdefault(block, other.name)
    return boxes


def _blocks(result: PhaseResult, segment: Segment) -> dict[str, list[tuple[object, ...]]]:
    """What a drawing shows of each block's ops."""
    blocks: dict[str, list[tuple[object, ...]]] = {}
    for op in segment.ops:
        c = result.costs.ops[segment.name, op.name]
        dims = _dims(segment, op.name, result.graph.the_mesh)
        shown = (
            op.name,
            op.runtime_kind,
            op.inputs,
            op.axes,
            dims,
            float(c.time_s.max()),
            c.flops,
            c.bytes,
            c.payload_B,
        )
        blocks.setdefault(op.use, []).append(shown)
    return blocks


def _box(d: Drawing, box: str, ops: list[Op]) -> str:
    critical = any(op.name in d.critical for op in ops)
    frame = {"color": CRITICAL if critical else SOFT, "penwidth": "2.6" if critical else "1"}
    name = f"{d.prefix}/{box}"
    text = describe(d, box, ops)
    label = _label(text.head, text.lines, critical)
    if ops[0].is_collective and ops[0].name == box:
        fill = COLORS.get(ops[0].runtime_kind, COMPUTE)
        hexagon = {"shape": "hexagon", "style": "filled", "fillcolor": fill, "margin": "0.02,0.02"}
        return node(name, label=label, **hexagon, **frame, tooltip=text.hint)
    rounded = {"shape": "box", "style": "filled,rounded", "fillcolor": COMPUTE, "margin": "0.08,0.04"}
    return node(name, label=label, **rounded, **frame, tooltip=text.hint)


@record
class Text:
    """What a box says, and what it says when pointed at."""

    head: str
    lines: list[str]
    hint: str


def describe(d: Drawing, box: str, ops: list[Op]) -> Text:
    """The words of a box: a collective, a whole block, or a compute op with what is fused into it."""
    first = ops[0]
    cost = d.result.costs.ops[d.segment.name, first.name]
    if first.is_collective and first.name == box:
        over = "+".join(d.mesh.label(first.axes, first.scope))
        size = f"{show(cost.payload_B, BYTES, 3)} over {over} ({d.mesh.ranks_of(first.kind, first.axes)})"
        hint = f"{first.name}: {gloss(first)}; {cost.algorithm}, bound by {cost.bound}"
        return Text(first.runtime_kind, [size, _took(d, [first])], hint)
    if box == first.use:
        return _block_text(d, box, ops)
    title = _short(first.name)
    head = f"{title}: {first.runtime_kind}" if first.runtime_kind != title else title
    tail = list(dict.fromkeys(op.runtime_kind for op in ops[1:]))
    more = [f"+ {', '.join(tail)}"] if tail else []
    lines = [*more, _dims(d.segment, ops[-1].name, d.mesh), _work(d, ops)]
    return Text(head, lines, f"{first.name}: {gloss(first)}; bound by {cost.bound}")


def gloss(op: Op) -> str:
    """What an op of its kind does, in a few words."""
    return OPS[op.kind].about


def _took(d: Drawing, ops: Sequence[Op]) -> str:
    """`38.9 us (12%)`: the share is of the layer's time."""
    seconds = d.seconds(ops)
    return f"{show(seconds, TIME, 3) if seconds >= LEAST_S or not seconds else LESS} ({d.share(ops):.0%})"


def _block_text(d: Drawing, block: str, ops: list[Op]) -> Text:
    """A whole block in one box, its collectives counted."""
    counts: dict[str, int] = {}
    for op in ops:
        if op.is_collective:
            text = f"{op.runtime_kind}({'+'.join(d.mesh.label(op.axes, op.scope))})"
            counts[text] = counts.get(text, 0) + 1
    head = f"{block}: as in {d.twins[block]}" if block in d.twins else block
    inside = [f"{len(ops)} ops", *(f"{n} {text}" for text, n in counts.items())]
    lines = [", ".join(inside), _dims(d.segment, ops[-1].name, d.mesh), _work(d, ops)]
    return Text(head, lines, f"{len(ops)} ops of {block}")


def _work(d: Drawing, ops: list[Op]) -> str:
    """`5.4 GFLOP / 52.7 MB, 38.9 us (12%)`"""
    costs = [d.result.costs.ops[d.segment.name, op.name] for op in ops]
    flops, moved = sum(c.flops for c in costs), sum(c.bytes for c in costs)
    work = " / ".join(t for t in (show(flops, FLOPS, 3) if flops else "", show(moved, BYTES, 3)) if t)
    return f"{work}, {_took(d, ops)}"


def _label(head: str, lines: list[str], critical: bool) -> Html:
    title = f"<b>{html(head)}</b>" if critical else html(head)
    small = "<br/>".join(f'<font point-size="9">{html(t)}</font>' for t in lines)
    return Html(f"<{title}<br/>{small}>")


def _short(name: str) -> str:
    return name.split(".", 1)[1] if "." in name else name


def _dims(segment: Segment, name: str, mesh: Mesh) -> str:
    """Local sizes with what splits them: `4 batch/ep, 5120 seq/sp, 512 hidden`."""
    layout = segment.sharding_of(name)
    dims = segment.dims_of(name)
    assert layout is not None
    scope = segment.scope_of(name)
    parts = []
    for dim, axes in zip(dims, layout.dims, strict=True):
        size = segment.size(dim, scope) / mesh.size(axes)
        over = "/" + "+".join(mesh.label(axes, scope)) if axes else ""
        parts.append(f"{_count(size)} {dim.split('.')[0]}{over}")
    waiting = f", partial sum over {'+'.join(mesh.label(layout.partial))}" if layout.partial else ""
    return ", ".join(parts) + waiting


def _count(size: float) -> str:
    """Slots of experts are an average and need not be whole."""
    return f"{size:.0f}" if size == int(size) else f"~{size:.0f}" if size >= 100 else f"~{size:.3g}"


def links(d: Drawing) -> dict[tuple[str, str], bool]:
    """Data edges between boxes; true where an op of the critical path began when this input came."""
    pairs: dict[tuple[str, str], bool] = {}
    for op in d.segment.ops:
        for name in d.segment.sources(op):
            if d.box(name) != d.box(op.name):
                pair = (d.box(name), d.box(op.name))
                pairs[pair] = pairs.get(pair, False) or _bold(d, name, op)
    return pairs


def _edges(d: Drawing) -> list[str]:
    pairs = links(d)
    depth = {d.entry: 0}
    for op in d.segment.ops:
        target = d.box(op.name)
        depth[target] = max([depth.get(a, 0) + 1 for a, b in pairs if b == target], default=0)
    lines = []
    for (source, target), bold in pairs.items():
        look = {"color": INK if source != d.entry else SOFT} | (BOLD if bold else {})
        # What jumps over other ops must not pull the chain out of line.
        weight = "8" if depth[target] == depth[source] + 1 else "1"
        lines.append(edge(source, target, **look, weight=weight))
    return lines


def _bold(d: Drawing, source: str, op: Op) -> bool:
    """The critical path may go from `source` to `op` along the data."""
    if op.name not in d.critical or isinstance(d.result, TrainingResult):
        return False
    run = next(r for row in d.result.schedule.cells for r in reversed(row[-1]) if r.segment == d.segment.name)
    return any(_follows(d, run, source, op, lane) for lane in range(d.result.graph.lanes))


def _follows(d: Drawing, run: Run, source: str, op: Op, lane: int) -> bool:
    """On some rank `op` starts at the moment that a critical `source` ends."""
    start = run.starts[op.name, lane]
    if source == d.segment.input:
        return bool((np.abs(start) <= SAME_S).any())
    if source not in d.critical:
        return False
    if op.ring and isinstance(d.segment.by_name[source].attrs, RingTurnAttrs):
        return True  # the ring runs along with its attention
    return bool((np.abs(start - run.finishes[source, lane]) <= SAME_S).any())
