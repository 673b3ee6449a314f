"""The longest path of a training step as a waterfall: what each stage does of it where what comes first has ended, all of a kind added up."""

from __future__ import annotations

from ....base.units import TIME, show
from ....plan.trained import TrainingResult
from ...facts.step_path import PathPart, path_parts
from ...facts.training_words import stage_names
from ..dot import identifier
from .markup import Markup
from .svg import Figure, Keys, figure, rect, title, words
from .waterfall import BAR, LABEL, LARGE, RIGHT, ROW, TOP, scale

KINDS: dict[str, tuple[str, str]] = {
    "forward": ("t-f0", "forward"),
    "backward": ("t-b0", "backward"),
    "input": ("t-i0", "gradient of the input"),
    "weight": ("t-w0", "gradient of the weights"),
    "pair": ("box", "a forward and a backward cell at once"),
    "send": ("k-send", "send to another stage"),
    "update": ("p3", "new weights"),
}
"""Kind of node -> its look and its words."""
MOST_ROWS = 60


def draw(result: TrainingResult) -> Figure:
    """A row for each kind of cell of a stage, and for its sends."""
    parts = [part for part in path_parts(result) if part.time_s > 0]
    total = sum(part.time_s for part in parts) or 1.0
    shown, rest = parts[:MOST_ROWS], parts[MOST_ROWS:]
    height = TOP + ROW * (len(shown) + bool(rest)) + 6
    body = scale(total, height)
    done, names = 0.0, [name for name, _ in stage_names(result)]
    for k, part in enumerate(shown):
        body += _row(result, part, names[part.stage], k, done, total)
        done += part.time_s
    if rest:
        said = f"{len(rest)} more rows, {show(sum(part.time_s for part in rest), TIME, 3)}"
        body.append(words(0, TOP + ROW * len(shown) + 13, said, "soft"))
    label = f"longest path of {result.name}: {show(total, TIME)}"
    return figure("waterfall critical-path", LABEL + BAR + RIGHT, height, label, *body)


def _row(result: TrainingResult, part: PathPart, stage: str, k: int, done: float, total: float) -> list[Markup]:
    y, share = TOP + ROW * k, part.time_s / total
    look, said = KINDS[part.kind]
    times = f"  × {part.count}" if part.count > 1 else ""
    hint = f"{stage}: {said}, {part.count} times, {show(part.time_s, TIME)} ({share:.1%})"
    x, w = LABEL + done / total * BAR, max(0.8, share * BAR)
    key = identifier(result.name, "path", k, stage, part.kind)
    strong = "strong" if share >= LARGE else ""
    return [
        words(0, y + 13, f"{stage}: {said}{times}", strong, room=LABEL - 10, size=12),
        rect(x, y + 2, w, ROW - 5, f"op {look}", title(hint), id=key),
        words(LABEL + BAR + 8, y + 13, f"{show(part.time_s, TIME, 3)}, {share:.1%}", strong),
    ]


def keys(result: TrainingResult) -> Keys:
    """What the colours mean, with the share of each kind."""
    parts = path_parts(result)
    total = sum(part.time_s for part in parts) or 1.0
    shares = {kind: sum(p.time_s for p in parts if p.kind == kind) / total for kind in KINDS}
    return [(look, f"{said} {shares[kind]:.0%}") for kind, (look, said) in KINDS.items() if shares[kind] > 0]
