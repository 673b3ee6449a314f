"""Training phases in Markdown: a row each, then a section each with its tables folded."""

from __future__ import annotations

from collections.abc import Iterator

from ...plan.plan import CompiledPlan
from ...plan.step_totals import busiest
from ...plan.trained import TrainingResult
from ..facts import training_words as said
from ..facts.axes_words import axes_text
from . import training_tables as tables
from .headline import alternative_text
from .markdown_text import escaped, folded, table

OPS = 20


def summary(plan: CompiledPlan, *, spaced: bool) -> Iterator[str]:
    """`spaced`: behind another table."""
    head, rows = tables.summary(plan)
    if spaced:
        yield ""
    yield from table(head, rows, "<" + ">" * (len(head) - 1))


def sections(plan: CompiledPlan) -> Iterator[str]:
    for result in plan.trainings.values():
        yield ""
        yield from _section(plan, result)


def _section(plan: CompiledPlan, result: TrainingResult) -> Iterator[str]:
    yield f"### {escaped(result.name)}"
    yield ""
    own = alternative_text(plan, result.name)
    yield escaped(
        f"{axes_text(result.graph)}{', ' if own else ''}{own}; {said.batches_text(result)}. {said.step_text(result)}"
    )
    yield ""
    yield escaped(" ".join(map(said.sentence, said.how_text(result))))
    yield ""
    stage = busiest(result)
    whose = f" of stage {stage}, which works longest" if result.steps.schedule.gpus > 1 else ""
    head = tables.MEMORY_HEAD
    yield from folded("memory of a GPU, by stage", table(head, tables.memory_rows(result), "<" + ">" * (len(head) - 1)))
    yield from folded(
        "cells of one micro-batch in a layer", table(tables.CELLS_HEAD, tables.cell_rows(result), "<><>>>")
    )
    rows = tables.collective_rows(result, stage)
    yield from folded(f"collectives in a step{whose}", table(tables.COLLECTIVES_HEAD, rows, "<<<>>>>"))
    rows = tables.op_rows(result, stage, OPS)
    yield from folded(f"ops in a step{whose}, the longest", table(tables.OPS_HEAD, rows, "<<<>>>"))
    yield escaped(f"{said.sentence(said.kernels_text(result))} {said.sentence(said.error_text(result))}")
