"""The `overview` view: one card a pipeline stage, with what it holds, needs and takes."""

from __future__ import annotations

import itertools

from ..ir.result import PhaseResult
from ..lang.units import BYTES, TIME, TOKEN_RATE, show, show_runs
from ..plan import Plan
from ..report import axes_text
from .dot import COLORS, COMPUTE, CRITICAL, SOFT, Html, digraph, edge, html, node

BAR_CELLS = 24
MAX_CARDS = 16
# Other hues than the collectives' have: one colour means one thing in a picture.
PARTS = (
    ("weights", "#0b3c5d"),
    ("KV cache", "#6b9ac4"),
    ("activations", "#97a97c"),
    ("buffers", "#7b5ea7"),
    ("reserve", "#a3a3a3"),
)


def draw(plan: Plan, phase: str) -> str:
    """DOT of a phase's stages."""
    result = plan.phases[phase]
    shown = _shown(len(result.graph.stages))
    body = [node(f"stage {i}", label=_card(result, i), shape="plaintext") for i in shown]
    for a, b in itertools.pairwise(shown):
        transfer = result.costs.transfer
        text = f"  send {show(transfer.payload_B, BYTES, 3)}\n  {show(transfer.time_s, TIME, 3)}"
        if b > a + 1:
            text += f"\n{b - a - 1} alike stages between"
        body.append(edge(f"stage {a}", f"stage {b}", label=text, color=COLORS["send"], penwidth="2"))
    kinds = [k for k in COLORS if any(op.kind == k for s in result.graph.segments for op in s.ops)]
    body.append(node("legend", label=_legend(kinds), shape="plaintext"))
    body.append(edge(f"stage {shown[-1]}", "legend", style="invis"))
    return digraph(f"{phase} overview", _title(plan, result), body, rankdir="TB", ranksep=0.35)


def _shown(stages: int) -> list[int]:
    """At most 16 cards: the first fifteen and the last."""
    return list(range(stages)) if stages <= MAX_CARDS else [*range(MAX_CARDS - 1), stages - 1]


def _title(plan: Plan, result: PhaseResult) -> str:
    metric = "ttft" if result.graph.kind == "prefill" else "tpot"
    batches = result.graph.microbatches
    return (
        f"{plan.spec.model.name}, {result.name}: {len(result.gpus)} GPUs, {axes_text(result)}\n"
        f"{metric} {show(result.time_s, TIME)} (floor {show(result.floor.period_s, TIME)}), "
        f"{show(result.throughput_tok_s, TOKEN_RATE)}, {batches} micro-batch{'es' if batches > 1 else ''}, "
        f"expert imbalance {result.costs.imbalance:.2f}"
    )


def _card(result: PhaseResult, index: int) -> str:
    stage = result.graph.stages[index]
    memory = result.memory.stages[index]
    layers = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in stage.layers)
    slowest = result.schedule.stage_s[index] == max(result.schedule.stage_s) and len(result.graph.stages) > 1
    time = f"{show(result.schedule.stage_s[index], TIME, 3)} a micro-batch"
    time = f'<font color="{CRITICAL}"><b>{html(time)}, the slowest</b></font>' if slowest else html(time)
    rows = [
        f'<tr><td align="left"><b>stage {index}</b>   {html(layers)}</td></tr>',
        f'<tr><td align="left">GPU {html(show_runs(sorted(stage.gpus), most=6))}</td></tr>',
        f'<tr><td align="left">{time}</td></tr>',
        *[f'<tr><td align="left">{row}</td></tr>' for row in _collectives(result, index)],
        f'<tr><td align="left">{_bar(memory, result.memory.capacity_B)}</td></tr>',
        f'<tr><td align="left">{html(show(memory.peak_B, BYTES, 3))} of {html(show(result.memory.capacity_B, BYTES, 3))} a GPU</td></tr>',
    ]
    return Html(
        f'<<table border="1" color="{SOFT}" cellborder="0" cellspacing="2" cellpadding="3" bgcolor="{COMPUTE}" style="rounded">{"".join(rows)}</table>>'
    )


def _collectives(result: PhaseResult, index: int) -> list[str]:
    """A line a kind of layer: its collectives, folded."""
    mesh = result.graph.the_mesh
    rows = []
    for name, _ in result.graph.stages[index].layers:
        segment = result.graph.segment(name)
        counts: dict[tuple[str, str], int] = {}
        for op in segment.ops:
            if op.is_collective:
                key = (op.kind, "+".join(mesh.label(op.axes, op.scope)))
                counts[key] = counts.get(key, 0) + 1
        if counts:
            swatches = "  ".join(
                f'<font color="{COLORS[kind]}">&#9632;</font> {n} {html(kind)}({html(over)})'
                for (kind, over), n in counts.items()
            )
            rows.append(f"{html(name)}: {swatches}")
    return rows


def _bar(memory: object, capacity_B: float) -> str:
    """Memory as a row of cells, one colour a part."""
    from ..ir.result import StageMemory

    assert isinstance(memory, StageMemory)
    sizes = (memory.weights_B, memory.kv_cache_B, memory.activations_B, memory.buffers_B, memory.reserve_B)
    cells = []
    total = done = 0.0
    for (name, color), size in zip(PARTS, sizes, strict=True):
        total += size
        wanted = round(total / capacity_B * BAR_CELLS)
        if size > 0 and wanted == done and size / capacity_B > 0.005:
            wanted = int(done) + 1
        cells += [f'<td bgcolor="{color}" width="9" height="9" title="{name}"></td>'] * int(wanted - done)
        done = max(done, wanted)
    cells += ['<td bgcolor="#ffffff" width="9" height="9"></td>'] * int(BAR_CELLS - done)
    return f'<table border="1" color="{SOFT}" cellborder="0" cellspacing="0" cellpadding="0" fixedsize="false"><tr>{"".join(cells)}</tr></table>'


def _legend(kinds: list[str]) -> str:
    memory = "".join(f'<td bgcolor="{c}" width="12"> </td><td align="left">{html(n)}</td>' for n, c in PARTS)
    wire = "".join(
        f'<td bgcolor="{COLORS[k]}" width="12"> </td><td align="left">{html(k)}</td>' for k in (*kinds, "send")
    )
    both = f'<tr><td><table border="0" cellborder="0"><tr><td>memory:</td>{memory}</tr></table></td></tr>'
    both += f'<tr><td><table border="0" cellborder="0"><tr><td>collectives a layer:</td>{wire}</tr></table></td></tr>'
    return Html(f'<<table border="0" cellborder="0">{both}</table>>')
