"""The figures of a phase that every report shows, in words, from the table of metrics."""

from __future__ import annotations

from ...base.phase_kinds import SERVED
from ...base.units import BYTES, show
from ...plan.held_memory import beside
from ...plan.plan import CompiledPlan
from ...spec.metrics.known_metrics import of_phase

PLACED = (
    *(kind.metric for kind in SERVED.values()), "floor", "throughput", "throughput_per_gpu", "utilization", "imbalance",
    "flops_per_token",
)  # fmt: skip
"""Those that have a place of their own in reports; what the table has beyond them is shown by its name."""


def headline(plan: CompiledPlan, phase: str) -> dict[str, str]:
    """Name -> value in words of each metric that reports show, in the order of the table."""
    subject = plan.subject(phase)
    found = ((m, m.how(subject)) for m in of_phase() if m.reported)
    return {m.name: m.briefly(value) for m, value in found if value is not None}


def alternative_text(plan: CompiledPlan, phase: str) -> str:
    """Which of its layouts the phase has; nothing where the spec has one."""
    known = plan.spec.alternatives.get(phase)
    if known is None:
        return ""
    rest = [name for name in known.names if name != known.chosen]
    return f"alternative {known.chosen}" + (
        f" (not {' or '.join(rest[:6])}{' ...' if len(rest) > 6 else ''})" if rest else ""
    )


def others(figures: dict[str, str]) -> dict[str, str]:
    """Those without a place of their own."""
    return {name: text for name, text in figures.items() if name not in PLACED}


def summary(plan: CompiledPlan) -> tuple[list[str], list[list[str]]]:
    """The table that has a row per phase: its head and rows."""
    rows: list[list[str]] = []
    more: dict[str, None] = {}
    found = {name: headline(plan, name) for name in plan.phases}
    for figures in found.values():
        more |= dict.fromkeys(others(figures))
    for name, figures in found.items():
        result = plan.phases[name]
        memory, time = result.memory, figures[result.phase_kind.metric]
        fullest = f"{show(memory.worst.peak_B, BYTES)} ({memory.fraction:.1%}){beside(plan, name)}"
        named = [time, figures["floor"], figures["throughput"], fullest]
        rows.append([name, f"{len(result.gpus)}{result.of_pool}", *named, *(figures.get(other, "") for other in more)])
    times = " / ".join(dict.fromkeys(result.phase_kind.metric for result in plan.phases.values()))
    return ["phase", "GPUs", times, "floor", "throughput", "memory, fullest GPU", *more], rows
