"""The `overview` view: one card per pipeline stage, with what it holds, needs and takes."""

from __future__ import annotations

import itertools
from math import ceil, isclose, sqrt

from ...base.collectives import SEND, TO_EXPERTS
from ...base.units import BYTES, TIME, TOKEN_RATE, show, show_runs
from ...cost.footprint import StageMemory
from ...ir.requests import request_moves
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult, Seat
from ..facts.axes_words import axes_text
from ..facts.timeline import cell_of
from .dot import COLORS, COMPUTE, CRITICAL, SOFT, Html, digraph, edge, html, node, quote
from .palette import PALETTE

BAR_WIDTH = 300
MAX_UNFOLDED = 8
MAX_CARDS = 16
PARTS = tuple(
    (name, PALETTE[f"p{k}"].light)
    for k, name in enumerate(("weights", "KV cache", "activations", "buffers", "reserve", "engine"))
)
Card = tuple[int, ...]
"""Stages on one card: equal neighbours."""


def draw(plan: CompiledPlan, phase: str) -> str:
    """DOT of a phase's stages."""
    result = plan.phases[phase]
    shown = shown_cards(result)
    across = columns(shown)
    body = [
        node(f"stage {card[0]}", label=_card(result, card), shape="plaintext", tooltip=name_of(result, card))
        for card in shown
    ]
    for k, (a, b) in enumerate(itertools.pairwise(shown)):
        body.append(_send(result, a, b, wraps=across > 1 and (k + 1) % across == 0))
    rows = [shown[i : i + across] for i in range(0, len(shown), across)] if across > 1 else []
    for row in rows:
        body.append(f"  {{ rank=same; {'; '.join(quote(f'stage {card[0]}') for card in row)} }}")
    for above, below in itertools.pairwise(rows):
        body.append(edge(f"stage {above[0][0]}", f"stage {below[0][0]}", style="invis", weight="20"))
    body.append(node("legend", label=_legend(result), shape="plaintext", tooltip="legend"))
    body.append(edge(f"stage {(rows[-1] if rows else shown[-1:])[0][0]}", "legend", style="invis"))
    title = "\n".join((*plan.titles_of(phase), f"{plan.spec.model.name}, " + "\n".join(facts(result))))
    return digraph(f"{phase} overview", title, body, rankdir="TB", ranksep=0.35)


def layers_of(stage: Seat) -> dict[str, int]:
    """The segments of a stage, and how many layers of each."""
    counts: dict[str, int] = {}
    for name, count in stage.layers:
        counts[name] = counts.get(name, 0) + count
    return counts


def shown_cards(result: PhaseResult) -> list[Card]:
    """As many as there is room for: the first and the last."""
    stage_cards = cards(result)
    return stage_cards if len(stage_cards) <= MAX_CARDS else [*stage_cards[: MAX_CARDS - 1], stage_cards[-1]]


def columns(shown: list[Card]) -> int:
    """Cards side by side: a few one below the other, many in rows that are read like a text."""
    return 1 if len(shown) <= 4 else ceil(sqrt(len(shown) / 2))


def cards(result: PhaseResult) -> list[Card]:
    """One card per stage; a long pipeline has one per run of equal stages."""
    run_cards: list[Card] = []
    for stage in result.seats:
        i = stage.index
        if run_cards and len(result.graph.stages) > MAX_UNFOLDED and _alike(result, run_cards[-1][0], i):
            run_cards[-1] = (*run_cards[-1], i)
        else:
            run_cards.append((i,))
    return run_cards


def _alike(result: PhaseResult, a: int, b: int) -> bool:
    """The same layers, as much memory and time, as many GPUs."""
    left, right = result.seats[a], result.seats[b]
    same = left.layers == right.layers and len(left.gpus) == len(right.gpus)
    return (
        same
        and sizes(result.memory.stages[a]) == sizes(result.memory.stages[b])
        and left.on == right.on
        and isclose(time_s(result, a), time_s(result, b), rel_tol=1e-9)
    )


def sizes(memory: StageMemory) -> tuple[float, ...]:
    return (
        memory.weights_B,
        memory.kv_cache_B,
        memory.activations_B,
        memory.buffers_B,
        memory.reserve_B,
        memory.engine_B,
    )


def name_of(result: PhaseResult, card: Card) -> str:
    if result.seats[card[0]].on:
        return result.seats[card[0]].name
    return f"stage {card[0]}" if len(card) == 1 else f"stages {card[0]}..{card[-1]}"


def pool_of(result: PhaseResult, card: Card) -> str:
    """` of NAME` behind the GPUs of a card, where there are several pools."""
    pool = result.seats[card[0]].hardware
    return f" of {pool}" if pool else ""


def time_s(result: PhaseResult, seat: int) -> float:
    """Of a micro-batch on a stage."""
    return result.schedule.stage_s[cell_of(result, seat)]


def is_slowest(result: PhaseResult, seat: int) -> bool:
    """Whether a stage delays the others."""
    times = result.schedule.stage_s
    return time_s(result, seat) == max(times) and min(times) < max(times) * (1 - 1e-9)


def time_text(result: PhaseResult, seat: int) -> str:
    slowest = ", the slowest" if is_slowest(result, seat) else ""
    return f"{show(time_s(result, seat), TIME, 3)} per micro-batch{slowest}"


def layers_text(stage: Seat) -> str:
    """`3 × dense, sparse`"""
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in layers_of(stage).items())


def gpus_of(result: PhaseResult, card: Card) -> list[int]:
    return sorted(g for i in card for g in result.seats[i].ids)


def memory_text(memory: StageMemory) -> str:
    peak, capacity = show(memory.peak_B, BYTES, 3), show(memory.capacity_B, BYTES, 3)
    return f"{peak} of {capacity} per GPU ({memory.peak_B / memory.capacity_B:.1%})"


def handed_on(result: PhaseResult, a: Card, b: Card) -> tuple[list[str], int, str]:
    """What goes from one card to the next in words, stages between that are not drawn, and which kind it is."""
    if result.seats[b[0]].on:
        found = [
            (op, cost)
            for s in result.graph.segments
            for op in s.ops
            if op.is_across and (cost := result.costs.ops[s.name, op.name])
        ]
        return (
            [
                f"{op.kind} {show(cost.wire_B, BYTES, 3)} of each, {show(float(cost.time_s.max()), TIME, 3)}"
                for op, cost in found[:2]
            ],
            0,
            TO_EXPERTS,
        )
    transfer = result.costs.edges[a[-1]]
    said = [f"send {show(transfer.payload_B, BYTES, 3)}", show(transfer.time_s, TIME, 3)]
    said += [f"with {names}"] if (names := sent_beside(result, a[-1])) else []
    return said, b[0] - a[-1] - 1, "send"


def sent_beside(result: PhaseResult, stage: int) -> str:
    """What a stage sends beside the residual stream, in words: two of its names, and how many more; "" where there is nothing."""
    names = [one.name for one in result.graph.sends[stage].beside] if stage < len(result.graph.sends) else []
    return ", ".join([*names[:2], *([f"{len(names) - 2} more"] if len(names) > 2 else [])])


def _send(result: PhaseResult, a: Card, b: Card, *, wraps: bool) -> str:
    said, missing, kind = handed_on(result, a, b)
    text = "".join(("  ", "  \n  ".join(said), "  "))
    if missing:
        text += f"\n{missing} more stages, not drawn"
    # A send that goes on in the next row must not pull its card down.
    more = {"constraint": "false"} if wraps else {}
    return edge(f"stage {a[0]}", f"stage {b[0]}", label=text, color=COLORS[kind], penwidth="2", **more)


def facts(result: PhaseResult) -> list[str]:
    """The phase's figures in a few lines."""
    metric = result.phase_kind.metric
    batches = result.batches
    stages = len(result.graph.stages)
    chunks = f"{result.passes} passes (below: the last whole chunk), " if result.passes > 1 else ""
    folded = [f"{stages} stages: identical neighbours share a card"] if len(cards(result)) < stages else []
    return [
        f"{result.name}: {len(result.gpus)} GPUs{result.of_pool}, {axes_text(result.graph)}",
        f"{metric} {show(result.time_s, TIME)} (floor {show(result.floor_s, TIME)}), "
        f"{show(result.throughput_tok_s, TOKEN_RATE)}, {chunks}{batches} micro-batch{'es' if batches > 1 else ''}, "
        f"expert imbalance {result.costs.imbalance:.2f}",
        *folded,
    ]


def _card(result: PhaseResult, card: Card) -> Html:
    stage = result.seats[card[0]]
    memory = result.memory.stages[card[0]]
    capacity = memory.capacity_B
    layers = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in layers_of(stage).items())
    head = f"<b>{html(name_of(result, card))}</b>   {html(layers)}{' each' if len(card) > 1 else ''}"
    full = f"<b>{html(show(memory.peak_B, BYTES, 3))}</b> of {html(show(capacity, BYTES, 3))} per GPU"
    rows = [
        head,
        f"GPU {html(show_runs(gpus_of(result, card), most=6))}{html(pool_of(result, card))}",
        _time(result, card[0]),
        *_collectives(result, card[0]),
        *_requests(result, card),
        _bar(memory, capacity),
        f"{full} ({memory.peak_B / capacity:.1%})",
        f'<font point-size="9">{html(contents(memory))}</font>',
    ]
    cells = "".join(f'<tr><td align="left">{row}</td></tr>' for row in rows)
    return Html(
        f'<<table border="1" color="{SOFT}" cellborder="0" cellspacing="2" cellpadding="2" bgcolor="{COMPUTE}" style="rounded">{cells}</table>>'
    )


def _time(result: PhaseResult, index: int) -> str:
    text = html(time_text(result, index))
    return f'<font color="{CRITICAL}"><b>{text}</b></font>' if is_slowest(result, index) else text


def collectives_of(result: PhaseResult, layer: str, on: str = "") -> dict[tuple[str, str], int]:
    """Collectives of one layer by (kind, axes), of ranks of one side."""
    mesh = result.graph.the_mesh
    counts: dict[tuple[str, str], int] = {}
    for op in result.graph.segment(layer).ops:
        if op.is_collective and op.is_at(on):
            key = (op.runtime_kind, "+".join(mesh.label(op.axes, op.scope)))
            counts[key] = counts.get(key, 0) + 1
    return counts


def requests_of(result: PhaseResult, card: Card) -> list[tuple[str, str]]:
    """What the stages of a card exchange with the front end: (kind, axes)."""
    graph = result.graph
    return [(m.kind, "+".join(graph.the_mesh.label(m.axes))) for m in request_moves(graph) if m.stage in card]


def _requests(result: PhaseResult, card: Card) -> list[str]:
    swatches = [
        f'<font color="{COLORS[kind]}">&#9632;</font> {html(kind)}({html(over)})'
        for kind, over in requests_of(result, card)
    ]
    return [f"requests: {'  '.join(swatches)}"] if swatches else []


def _collectives(result: PhaseResult, index: int) -> list[str]:
    """One line per segment: its collectives, folded."""
    rows = []
    for name in layers_of(result.seats[index]):
        counts = collectives_of(result, name, result.seats[index].on)
        swatches = [
            f'<font color="{COLORS[kind]}">&#9632;</font> {n} {html(kind)}({html(over)})'
            for (kind, over), n in counts.items()
        ]
        for i in range(0, len(swatches), 3):
            rows.append(f"{f'{html(name)}:' if i == 0 else '   '} {'  '.join(swatches[i : i + 3])}")
    return rows


def held_parts(result: PhaseResult) -> list[tuple[str, str]]:
    """Parts of the memory that some GPU holds: what they look like, and their names."""
    largest = [max(column) for column in zip(*(sizes(s) for s in result.memory.stages), strict=True)]
    return [(f"p{k}", name) for k, ((name, _), size) in enumerate(zip(PARTS, largest, strict=True)) if size > 0]


def contents(memory: StageMemory) -> str:
    """What the bar holds, in words."""
    return ", ".join(f"{n} {show(s, BYTES, 3)}" for (n, _), s in zip(PARTS, sizes(memory), strict=True) if s > 0)


def _bar(memory: StageMemory, capacity_B: float) -> str:
    """Memory as a row of cells, one per part; even the smallest is visible."""
    cells = []
    left = BAR_WIDTH
    for (_, color), size in zip(PARTS, sizes(memory), strict=True):
        width = min(left, max(2, round(size / capacity_B * BAR_WIDTH))) if size > 0 else 0
        left -= width
        if width:
            cells.append(_cell(color, width))
    if left:
        cells.append(_cell("#ffffff", left))
    return f'<table align="left" fixedsize="true" width="{BAR_WIDTH + 2}" height="12" border="1" color="{SOFT}" cellborder="0" cellspacing="0" cellpadding="0"><tr>{"".join(cells)}</tr></table>'


def _cell(color: str, width: int) -> str:
    return f'<td bgcolor="{color}" fixedsize="true" width="{width}" height="10"></td>'


def _legend(result: PhaseResult) -> Html:
    drawn = {op.runtime_kind for s in result.graph.segments for op in s.ops if op.is_collective}
    kinds = [k for k in COLORS if k in drawn or (k == SEND.name and len(result.graph.stages) > 1)]
    rows = _swatches("memory:", list(PARTS))
    if kinds:
        rows += _swatches("collectives per layer:" if drawn else "", [(k, COLORS[k]) for k in kinds])
    return Html(f'<<table border="0" cellborder="0" cellspacing="0">{rows}</table>>')


def _swatches(head: str, entries: list[tuple[str, str]]) -> str:
    cells = "".join(f'<font color="{color}">&#9632;</font> {html(name)}   ' for name, color in entries)
    return f'<tr><td align="left">{html(head)}  {cells}</td></tr>'
