"""The `layer` view of a training step: the cells of one layer of each kind, each with the ops that it runs."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.frozen import replace
from ...ir.op import BACKWARD, FORWARD, RECOMPUTE, UPDATE, WEIGHT
from ...ir.segment import Segment
from ...plan.plan import CompiledPlan
from ...plan.trained import TrainingResult
from .layer_digraph import Drawing, fold, heaviest, written

COLUMNS = (
    ("forward", FORWARD, "t-f0"),
    ("done anew", RECOMPUTE, "t-f1"),
    ("gradients of what it was given", BACKWARD, "t-i0"),
    ("gradients of weights", WEIGHT, "t-w0"),
    ("new weights, once a step", UPDATE, "p3"),
)
"""What a column is called, its cell, and its colour: those of the pipeline's chart."""
KINDS = 2
"""Kinds of layer that are drawn, those first that take most of a step."""
MOST_OPS = 48
"""Of a cell, beyond which it has a box for each block."""


def shown_layers(result: TrainingResult) -> list[Segment]:
    """The kinds of layer that are drawn."""
    heavy = heaviest(result)[:KINDS]
    return [s for s in result.graph.body if s in heavy]


def columns(result: TrainingResult, segment: Segment) -> Iterator[Drawing]:
    """The cells that a layer has. Updates are a box for each block; those of very large layers too."""
    upstream = "" if segment.upstream is None else segment.upstream.name
    given = {FORWARD: segment.input, RECOMPUTE: segment.input, BACKWARD: upstream}
    for name, cell, _ in COLUMNS:
        entry = given.get(cell, "sums of gradients" if cell == UPDATE else "gradients and kept values")
        part = _part(segment, cell, entry)
        if part.ops:
            whole = cell == UPDATE or len(part.ops) > MOST_OPS
            home = {op.name: op.use for op in part.ops} if whole else fold(part)
            yield Drawing(result, part, home, {}, frozenset(), name, stacked=cell == WEIGHT or whole)


def _part(segment: Segment, cell: str, entry: str) -> Segment:
    """The ops of a cell, with what the layer is given there."""
    ops = [op for op in segment.ops if op.cell == cell]
    known = {value.name for op in ops for value in op.results} | {entry}
    kept = tuple(replace(op, inputs=tuple(n for n in op.inputs if n in known or n.startswith("@"))) for op in ops)
    return replace(
        segment, ops=kept, input=entry, output=kept[-1].name if kept else entry, upstream=None, downstream=""
    )


def heading(result: TrainingResult) -> list[str]:
    """What is drawn, and how to read it."""
    names = ", ".join(f"{s.name} x {s.repeat}" for s in shown_layers(result))
    left = len(result.graph.body) - len(shown_layers(result))
    more = f"; {left} lighter kind{'s' if left > 1 else ''} of layer left out" if left else ""
    ranks = len(result.gpus) // len(result.graph.stages)
    return [
        f"{result.name}: cells of one layer ({names}), the same on the {ranks} GPUs of a stage{more}",
        "sizes are those of one GPU and one micro-batch; dim/axes: the dim is split over these axes; %: of the time of the cell's ops",
        "what a gradient reads of another cell has no arrow",
    ]


def dot(plan: CompiledPlan, phase: str) -> str:
    """DOT of the cells, one beside the other."""
    result = plan.trainings[phase]
    kept = [d for segment in shown_layers(result) for d in columns(result, segment)]
    title = "\n".join((*plan.titles_of(phase), f"{plan.spec.model.name}, " + "\n".join(heading(result))))
    return written(phase, kept, title)
