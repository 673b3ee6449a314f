"""The `layer` view: each kind of layer once, alike layers and alike ranks folded."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Op, Segment
from ..ir.mesh import Mesh
from ..ir.ops import OPS
from ..ir.result import PhaseResult
from ..lang.units import BYTES, FLOPS, TIME, show
from ..plan import Plan
from .dot import COLORS, COMPUTE, CRITICAL, INK, SOFT, Html, digraph, edge, html, identifier, legend, node

MAX_NODES = 300


def draw(plan: Plan, phase: str) -> str:
    """DOT of a phase's layers, one column a kind of layer."""
    result = plan.phases[phase]
    segments = result.graph.segments[1:-1]
    total = sum(len(s.ops) for s in segments)
    body: list[str] = []
    for segment in segments:
        body += _segment(result, segment, by_block=total > MAX_NODES)
    kinds = [k for k in COLORS if any(op.kind == k for s in segments for op in s.ops)]
    body.append(node("legend", label=legend(kinds), shape="plaintext"))
    return digraph(
        f"{phase} layer",
        _title(plan, result, segments, total),
        body,
        rankdir="TB",
        nodesep=0.25,
        ranksep=0.28,
        newrank="true",
    )


def _title(plan: Plan, result: PhaseResult, segments: Sequence[Segment], total: int) -> str:
    ranks = len(result.gpus) // len(result.graph.stages)
    names = ", ".join(f"{s.name} x {s.repeat}" for s in segments)
    folded = f"; {total} ops folded to one box a block" if total > MAX_NODES else ""
    return (
        f"{plan.spec.model.name}, {result.name}: one layer ({names}), alike on the {ranks} GPUs of a stage{folded}\n"
        f"sizes are those of one GPU and one micro-batch"
    )


def _segment(result: PhaseResult, segment: Segment, *, by_block: bool) -> list[str]:
    critical = {s.op for s in result.schedule.path if s.segment == segment.name}
    home = {op.name: op.block for op in segment.ops} if by_block else fold(segment)
    boxes: dict[str, list[Op]] = {}
    for op in segment.ops:
        boxes.setdefault(home[op.name], []).append(op)
    entry = f"{segment.name}/in"
    lines = [
        node(
            entry,
            label=f"{segment.name}: {segment.input}\n{_dims(segment, segment.input, result.graph.the_mesh)}",
            shape="plaintext",
            fontcolor=SOFT,
        )
    ]
    blocks: dict[str, list[str]] = {}
    for box, ops in boxes.items():
        blocks.setdefault(ops[0].block, []).append(
            _box(result, segment, box, ops, bool({o.name for o in ops} & critical))
        )
    for block, inside in blocks.items():
        name = identifier("cluster", segment.name, block)
        lines.append(
            f'  subgraph "{name}" {{ id="{name}"; label="{block}"; style="rounded"; color="#d1d5db"; fontcolor="{SOFT}"; fontname="Helvetica,Arial,sans-serif"; fontsize=12; labeljust="l"; margin=10;'
        )
        lines += [f"  {line}" for line in inside]
        lines.append("  }")
    return lines + _edges(result, segment, home, critical, entry)


def fold(segment: Segment) -> dict[str, str]:
    """Op -> the box it stands in: a fused op stands in that of the compute op it follows."""
    home: dict[str, str] = {}
    for op in segment.ops:
        source = next((n for n in op.inputs if not n.startswith("@")), None)
        follows = source is not None and source in home and not segment.by_name[source].is_collective
        fused = not op.is_collective and OPS[op.kind].fused
        home[op.name] = home[source] if fused and follows and source is not None and op.kind != "add" else op.name
    return home


def _box(result: PhaseResult, segment: Segment, box: str, ops: list[Op], critical: bool) -> str:
    costs = [result.costs.ops[segment.name, op.name] for op in ops]
    time = sum(float(c.time_s.max()) for c in costs)
    first = ops[0]
    name = f"{segment.name}/{box}"
    weight = "2.6" if critical else "1"
    color = CRITICAL if critical else SOFT
    mesh = result.graph.the_mesh
    if first.is_collective:
        over = "+".join(mesh.label(first.axes, first.scope))
        size = f"{show(costs[0].payload_B, BYTES, 3)} over {over} ({mesh.size(first.axes)})"
        label = _label(first.kind, [size, show(time, TIME, 3)], critical)
        fill = COLORS.get(first.kind, COMPUTE)
        return node(
            name,
            label=label,
            shape="hexagon",
            style="filled",
            fillcolor=fill,
            color=color,
            penwidth=weight,
            margin="0.02,0.02",
            tooltip=f"{first.name}: {costs[0].algorithm}, bound by {costs[0].bound}",
        )
    tail = [op.kind for op in ops[1:]]
    title = _short(first.name) if first.name != box or len(ops) < 12 else box
    more = [f"+ {', '.join(dict.fromkeys(tail))}"] if tail else []
    flops = sum(c.flops for c in costs)
    moved = sum(c.bytes for c in costs)
    work = " / ".join(t for t in (show(flops, FLOPS, 3) if flops else "", show(moved, BYTES, 3)) if t)
    lines = [*more, _dims(segment, ops[-1].name, mesh), f"{work}, {show(time, TIME, 3)}"]
    head = f"{title}: {first.kind}" if first.kind != title else title
    return node(
        name,
        label=_label(head, lines, critical),
        shape="box",
        style="filled,rounded",
        fillcolor=COMPUTE,
        color=color,
        penwidth=weight,
        margin="0.08,0.04",
        tooltip=f"{first.name}: bound by {costs[0].bound}",
    )


def _label(head: str, lines: list[str], critical: bool) -> str:
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
        parts.append(f"{size:.6g} {dim.split('.')[0]}{over}")
    waiting = f", sum over {'+'.join(mesh.label(layout.partial))} pending" if layout.partial else ""
    return ", ".join(parts) + waiting


def _edges(result: PhaseResult, segment: Segment, home: dict[str, str], critical: set[str], entry: str) -> list[str]:
    seen: set[tuple[str, str]] = set()
    lines = []
    for op in segment.ops:
        for name in op.inputs:
            if name.startswith("@"):
                continue
            source = entry if name == segment.input else f"{segment.name}/{home[name]}"
            target = f"{segment.name}/{home[op.name]}"
            if source == target or (source, target) in seen:
                continue
            seen.add((source, target))
            bold = op.name in critical and (name in critical or name == segment.input)
            look = {"color": CRITICAL, "penwidth": "2.2"} if bold else {"color": INK if name != segment.input else SOFT}
            lines.append(edge(source, target, **look))
    return lines
