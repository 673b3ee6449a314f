"""A measured run beside its plan, for terminals and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from ...base.harmless import harmless
from ...base.units import show
from ...plan.plan import CompiledPlan
from ...spec.metrics.known_metrics import metric
from ...view.report.terminal_text import Paint, table, within
from ..memory.memory_rows import Row
from .figures import Figure
from .judge import FAILED, MET, NOT_MEASURED, OF_THE_PLAN, UNDECIDED, Judged
from .named import Measured

SCHEMA = 1
ORDER = (FAILED, UNDECIDED, NOT_MEASURED, MET, OF_THE_PLAN)
IN_MEMORY = tuple(f".memory.{kind}" for kind in ("weights", "activations", "engine", "reserve", "kv_tokens"))
"""Ends of names that the table of memory has by server."""
COLOURS = {FAILED: "31;1", UNDECIDED: "33", NOT_MEASURED: "33", MET: "32", OF_THE_PLAN: "2"}


def report(plan: CompiledPlan, found: Measured, judged: Sequence[Judged], color: bool = False) -> str:
    """Files, requirements, figures and memory."""
    paint = Paint(color)
    lines = [
        f"{harmless(plan.spec.model.name)}: a measured run beside its plan",
        *(f"  {harmless(a)}" for a in found.about),
    ]
    if judged:
        lines += ["", *within(f"requirements on the run: {summary(judged)}")]
        shown = [one for one in judged if one.verdict != OF_THE_PLAN]
        width = max((len(one.verdict) for one in shown), default=0)
        for one in sorted(shown, key=lambda one: ORDER.index(one.verdict)):
            verdict = paint(f"{one.verdict:{width}}", COLOURS[one.verdict])
            lines += within(f"  {verdict}  {harmless(one.requirement.label)}{_sides(one)}")
            lines += [part for why in one.why for part in within(f"  {'':{width}}    {harmless(why)}")]
    figures = {
        name: figure for name, figure in found.figures.items() if not (found.memory and name.endswith(IN_MEMORY))
    }
    if figures:
        head = ("metric", "measured", "planned", "ratio")
        lines += ["", *_table([head, *(_row(name, figure, found.planned) for name, figure in _ordered(figures))])]
        lines += ["", "from", *_origins(figures)]
    for phases in dict.fromkeys(row.phases for row in found.memory):
        mine = [row for row in found.memory if row.phases == phases]
        head = (f"memory of {' and '.join(phases)}", "actual", "theoretical", "ratio")
        lines += ["", *_table([head, *(_memory_row(row) for row in mine)])]
        lines += [f"  from {harmless(source)}" for source in dict.fromkeys(row.source for row in mine)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [line[2:] for line in table([[harmless(cell) for cell in row] for row in rows], "<>>>")]


def _origins(figures: Mapping[str, Figure]) -> list[str]:
    """Source -> metrics, without the name of a percentile, and a note where there is one."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, figure in _ordered(figures):
        stem = name.rpartition(".")[0] if name.endswith((".mean", ".p50", ".p90", ".p99")) else name
        found.setdefault((figure.source, figure.note), []).append(stem)
    lines = []
    for (source, note), names in found.items():
        told = f" ({note})" if note else ""
        lines += within(f"  {harmless(source)}{harmless(told)}: {harmless(', '.join(dict.fromkeys(names)))}")
    return lines


def summary(judged: Sequence[Judged]) -> str:
    """`2 met, 1 FAILED, 1 not measured, 3 of the plan`"""
    counts = {
        verdict: sum(one.verdict == verdict for one in judged) for verdict in (MET, FAILED, UNDECIDED, NOT_MEASURED)
    }
    of_plan = sum(one.verdict == OF_THE_PLAN for one in judged)
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return ", ".join([*parts, *([f"{of_plan} of the plan alone, which no run shows"] if of_plan else [])])


def _sides(one: Judged) -> str:
    if one.value is None or one.bound is None:
        planned = f"  (planned {one.shown(one.planned.value)})" if one.planned else ""
        return planned
    text = f": {one.shown(one.value)} against {one.shown(one.bound)}"
    return text + (f" (planned {one.shown(one.planned.value)})" if one.planned else "")


def _ordered(figures: Mapping[str, Figure]) -> list[tuple[str, Figure]]:
    return sorted(figures.items(), key=lambda item: (item[0].startswith("hardware."), item[0].partition(".")[0]))


def _row(name: str, figure: Figure, planned: Mapping[str, float]) -> tuple[str, ...]:
    known = metric(name)
    shown = known.shown if known else str
    value = shown(figure.value)
    if not figure.is_exact:
        value = f"{shown(figure.low)} to {shown(figure.high)}" if isfinite(figure.high) else f"over {shown(figure.low)}"
    plan = planned.get(name)
    ratio = figure.value / plan if plan else None
    return name, value, "" if plan is None else shown(plan), _ratio(ratio)


def _memory_row(row: Row) -> tuple[str, ...]:
    planned = "" if row.theoretical is None else show(row.theoretical, row.dim)
    return row.what, show(row.actual, row.dim), planned, _ratio(row.ratio)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def as_object(plan: CompiledPlan, found: Measured, judged: Sequence[Judged]) -> dict[str, Any]:
    """For JSON: `dagc/observe/measured_run.schema.json`. What is not finite is null."""
    return {
        "schema": SCHEMA,
        "model": plan.spec.model.name,
        "files": list(found.about),
        "doubts": list(found.doubts),
        "requirements": [
            {
                "label": one.requirement.label,
                "text": one.requirement.text,
                "verdict": one.verdict.lower().replace(" ", "_"),
                "value": _finite(one.value),
                "low": _finite(one.low),
                "high": _finite(one.high),
                "bound": _finite(one.bound),
                "planned": None if one.planned is None else _finite(one.planned.value),
                "why": list(one.why),
            }
            for one in judged
        ],
        "metrics": {
            name: {
                "unit": known.unit if (known := metric(name)) else "",
                "measured": _finite(figure.value),
                "low": _finite(figure.low),
                "high": _finite(figure.high),
                "planned": _finite(found.planned.get(name)),
                "source": figure.source,
                "note": figure.note,
            }
            for name, figure in _ordered(found.figures)
        },
        "memory": [
            {
                "phases": list(row.phases),
                "what": row.what,
                "actual": _finite(row.actual),
                "theoretical": _finite(row.theoretical),
                "ratio": _finite(row.ratio),
                "source": row.source,
            }
            for row in found.memory
        ],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
