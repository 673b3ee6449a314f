"""pipeline_chart: a training step on all GPUs of a pipeline: forward, backward and weight cells by colour, bubbles hatched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ....base.frozen import record
from ....base.units import TIME, show
from ....cost.schedule.training.cell_orders import Part
from ...facts.pipeline_cells import CellBar, GpuRow, StepChart
from ..dot import identifier
from .looks import SMALL
from .markup import Markup, tag, width
from .svg import Figure, Keys, figure, hatch, rect, title, words
from .time_scale import TimeScale

LABEL, RIGHT, ROW, TOP, CELL_H = 96, 84, 38, 24, 30
LEAST, MOST, WIDEST = 788, 1480, 2160
"""Pixels of the step: at least, at most where some of it is left out, and at most."""
MAX_ROWS = 24
SHADES = 4
"""Of a colour, for chunks."""
SAID: dict[Part, tuple[str, str]] = {
    Part.FORWARD: ("f", "forward"),
    Part.BACKWARD: ("b", "backward: both gradients"),
    Part.INPUT: ("i", "gradient of the input"),
    Part.WEIGHT: ("w", "gradient of the weights"),
}
"""Part -> its tone of the palette, and its words in the legend."""


@record
class Break:
    """What is left out in the middle: between these moments, so many cells of the first row."""

    start_s: float
    end_s: float


def draw(chart: StepChart) -> Figure:
    """The whole step; of one in which cells would be too narrow for their numbers, its begin and its end."""
    rows = _shown(chart.rows)
    room, cut = _room(chart)
    scale = TimeScale.of(chart.end_s, LABEL, room, None if cut is None else (cut.start_s, cut.end_s))
    height = TOP + ROW * len(rows) + 4
    body = [*scale.axis(TOP, height - 4), words(LABEL + room + RIGHT, TOP - 10, "idle, holds", "soft small end")]
    for k, row in enumerate(rows):
        body += _drawn(chart, row, TOP + ROW * k, scale)
    body += scale.broken(TOP - 4, height - 4)
    if cut is not None:
        said = f"{show(cut.end_s - cut.start_s, TIME, 3)} of {show(chart.end_s, TIME, 3)} are left out"
        body.append(words(scale.middle, height + 11, said, "soft mid"))
        height += 18
    if len(rows) < len(chart.rows):
        said = f"{len(rows)} of {len(chart.rows)} GPUs are drawn: the first {len(rows) - 1} and the last"
        body.append(words(0, height + 12, said, "soft"))
        height += 18
    label = f"{chart.title}: {chart.microbatches} micro-batches on {len(chart.rows)} GPUs, {show(chart.end_s, TIME)}"
    return figure("pipeline-chart", LABEL + room + RIGHT, height, label, *body, zoom=True)


def heading(chart: StepChart) -> list[str]:
    """What is said above it."""
    idle_s = sum(row.idle_s for row in chart.rows)
    share = idle_s / (chart.end_s * len(chart.rows)) if chart.end_s else 0.0
    held = max(row.held for row in chart.rows)
    chunks = f", {chart.chunks} chunks each" if chart.chunks > 1 else ""
    return [
        f"{chart.title}: {chart.microbatches} micro-batches on {len(chart.rows)} GPUs{chunks}",
        f"step {show(chart.end_s, TIME, 3)}, idle {share:.1%}, activations of {held:g} micro-batches of a stage at most",
    ]


def keys(chart: StepChart) -> Keys:
    """What the colours mean."""
    parts = {bar.part for row in chart.rows for bar in row.bars}
    found = []
    for part, (tone, said) in SAID.items():
        if part in parts:
            found.append((f"t-{tone}0", said))
            found += [
                (f"t-{tone}{k}", f"{said.partition(':')[0]} of chunk {k}") for k in range(1, min(chart.chunks, SHADES))
            ]
    if any(bar.half is not None for row in chart.rows for bar in row.bars):
        found.append(("box", "two cells in one: they overlap"))
    if any(row.idle for row in chart.rows):
        found.append(("bubble", "idle (a bubble)"))
    return found


def _shown(rows: Sequence[GpuRow]) -> list[GpuRow]:
    return list(rows) if len(rows) <= MAX_ROWS else [*rows[: MAX_ROWS - 1], rows[-1]]


def _room(chart: StepChart) -> tuple[float, Break | None]:
    """How wide the step is drawn so that all numbers have room, and what is left out where that is too wide."""
    cells = [bar for row in _shown(chart.rows) for bar in row.bars if bar.end_s > bar.start_s]
    narrow_s = min((bar.end_s - bar.start_s for bar in cells), default=chart.end_s)
    need = _wide(str(chart.microbatches - 1)) + 1.5
    # Cells that are much narrower than the others have no numbers: they are not what the width follows from.
    usual_s = sorted(bar.end_s - bar.start_s for bar in cells)[len(cells) // 10] if cells else narrow_s
    wanted = need * chart.end_s / max(narrow_s, usual_s / 2) if narrow_s else MOST
    if wanted <= WIDEST:
        return max(LEAST, wanted), None
    shown_s = chart.end_s * MOST / wanted
    first = chart.rows[0].bars
    starts = [bar.start_s for bar in first]
    start_s = max((moment for moment in starts if moment <= shown_s / 2), default=0.0)
    end_s = min((moment for moment in starts if moment >= chart.end_s - (shown_s - start_s)), default=chart.end_s)
    return MOST, Break(start_s, end_s) if end_s > start_s else None


def _drawn(chart: StepChart, row: GpuRow, y: float, scale: TimeScale) -> Iterator[Markup]:
    """Cells with their micro-batches, then what is idle."""
    yield words(0, y + 13, row.name, "strong", room=LABEL - 6)
    yield words(0, y + 27, row.about, "soft", room=LABEL - 6)
    for bar in row.bars:
        yield from _bar(chart, row, bar, y, scale)
    for start_s, end_s in row.idle:
        said = f"{row.name} is idle from {show(start_s, TIME)} to {show(end_s, TIME)}"
        for x, w in scale.spans(start_s, end_s):
            yield tag("path", title(said), d=f"M{x:.1f} {y:.0f}h{w:.1f}v{CELL_H}h-{w:.1f}z", cls="bubble")
            lines = "".join(hatch(x, y, w, CELL_H))
            if lines:
                yield tag("path", d=lines, cls="mute hatch")
    x = scale.end + RIGHT
    yield words(x, y + 13, f"{row.idle_s / chart.end_s:.1%}" if chart.end_s else "0.0%", "strong end")
    yield words(x, y + 27, f"{row.held:.4g}", "soft end")


def _bar(chart: StepChart, row: GpuRow, bar: CellBar, y: float, scale: TimeScale) -> Iterator[Markup]:
    tone, said = SAID[bar.part]
    shade = bar.chunk % SHADES
    top, high = (y, CELL_H) if bar.half is None else (y + bar.half * CELL_H / 2, CELL_H / 2)
    chunk = f" of chunk {bar.chunk}" if chart.chunks > 1 else ""
    hint = (
        f"{row.name}, micro-batch {bar.microbatch}, {said}{chunk}: {show(bar.start_s, TIME)} to {show(bar.end_s, TIME)}"
    )
    number = str(bar.microbatch)
    for k, (x, w) in enumerate(scale.spans(bar.start_s, bar.end_s)):
        key = identifier("step", row.gpu, bar.part.value, bar.chunk, bar.microbatch, *([k] if k else []))
        yield rect(x, top, w, high, f"op t-{tone}{shade}", title(hint), id=key)
        if scale.whole(bar.start_s, bar.end_s) and _wide(number) + 1 <= w:
            yield words(x + w / 2, top + high / 2 + 4, number, "small mid")


def _wide(what: str) -> float:
    """How wide small words are at most."""
    return width(what, SMALL) * 1.05
