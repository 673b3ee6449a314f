"""The report in Markdown, for a pull request: verdicts first, the long tables folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...base.units import BYTES, TIME, parameters, show
from ...plan.held_memory import HEAD, room_text, shared_lines, stage_rows
from ...plan.plan import CompiledPlan
from ...plan.pools import listed
from ...plan.result import PhaseResult, Sensitivities, Sensitivity
from ..facts.axes_words import axes_text
from ..facts.findings import HELPS, binding, error_range, placement_text, requests_text
from ..facts.plan_answer import PASSED, Answer, answer
from . import headline
from .markdown_text import escaped, folded, table


def markdown(plan: CompiledPlan, sensitivities: Sensitivities) -> str:
    """The whole report, ending in a newline."""
    return "\n".join(_lines(plan, sensitivities)) + "\n"


def _lines(plan: CompiledPlan, sensitivities: Sensitivities) -> Iterator[str]:
    total, active = plan.params
    found = answer(plan)
    mark = ":white_check_mark:" if found.state == PASSED else ":x:"
    yield f"## {mark} {escaped(found.verdict)}"
    yield ""
    yield from (f"- {escaped(line)}" for line in found.limits)
    yield ""
    yield from _figures(found)
    if plan.overflow:
        yield from (f"- {escaped(line)}" for line in plan.overflow)
        yield ""
    yield from _requirements(found)
    yield (
        f"{escaped(plan.spec.model.name)}: "
        f"{parameters(total)} parameters ({parameters(active)} active) on "
        f"{listed([f'{own.gpus} {escaped(own.name)} GPUs' for own in plan.spec.pools.values()])}"
    )
    yield ""
    if plan.phases:
        yield from summary(plan)
    if plan.trainings:
        from .training_markdown import summary as trained

        yield from trained(plan, spaced=bool(plan.phases))
    if plan.servings:
        from .served_report import summary as served

        head, rows = served(plan)
        yield ""
        yield from table(head, rows, "<>>>>>><")
    for result in plan.phases.values():
        yield ""
        yield from _phase(plan, result, sensitivities[result.name])
    if plan.trainings:
        from .training_markdown import sections

        yield from sections(plan)
    for name, held in shared_lines(plan):
        yield ""
        yield escaped(f"shared GPUs: {name}, the fullest: {held}")
    warnings = [d for d in plan.diagnostics if d.severity == "warning"]
    if warnings:
        yield ""
        for d in warnings:
            more = "; ".join((*d.because, *d.help))
            yield f"- **{d.code}** {escaped(d.message)}{f' ({escaped(more)})' if more else ''}"


def _figures(found: Answer) -> Iterator[str]:
    """The three, a column each."""
    if found.figures:
        cells = [
            one.value + (f" ({'' if one.holds else 'not '}{one.required})" if one.required else "")
            for one in found.figures
        ]
        yield from table([escaped(one.name) for one in found.figures], [cells], ">" * len(cells))
        yield ""


def _requirements(found: Answer) -> Iterator[str]:
    """Those that fail first, each with by how much."""
    if found.requirements:
        yield from table(["", "requirement", "found", "required", "by"], [], "<<>><")
        for v in found.requirements:
            sign = ":white_check_mark:" if v.passed else ":x:"
            cells = (v.requirement.label, v.shown(v.value), f"{v.requirement.test.op} {v.shown(v.bound)}", v.by)
            yield f"| {sign} | {' | '.join(escaped(c) for c in cells)} |"
        yield ""


def summary(plan: CompiledPlan) -> list[str]:
    """One row per phase."""
    head, rows = headline.summary(plan)
    return table(head, rows, "<" + ">" * (len(head) - 1))


def _phase(plan: CompiledPlan, result: PhaseResult, buys: Sequence[Sensitivity]) -> Iterator[str]:
    yield f"### {escaped(result.name)}"
    yield ""
    own = headline.alternative_text(plan, result.name)
    yield escaped(f"{axes_text(result.graph)}{', ' if own else ''}{own}. {binding(result, buys)}")
    yield ""
    if placed := placement_text(plan, result):
        yield escaped(placed)
        yield ""
    room = room_text(plan, result.name)
    if room:
        yield escaped(f"{room[0].upper()}{room[1:]}.")
        yield ""
    yield from folded(
        "memory of every stage, per GPU", table(HEAD, stage_rows(plan, result), "<" + ">" * (len(HEAD) - 1))
    )
    rows = [
        (
            c.kind,
            "+".join(c.axes),
            str(c.group_size),
            str(c.count),
            show(c.payload_B, BYTES, 3),
            show(c.time_s, TIME, 3),
        )
        for c in result.collectives
        if c.kind != "recv"
    ]
    yield from folded("collectives", table(["collective", "over", "ranks", "calls", "payload", "time"], rows, "<<>>>>"))
    if ends := requests_text(result):
        yield escaped(ends)
        yield ""
    total = sum(s.time_s for s in result.path) or 1.0
    steps = sorted(result.path, key=lambda s: -s.time_s)[:10]
    path = [
        (
            f"{s.segment}/{s.op}" if s.segment else s.op,
            s.kind,
            str(s.count),
            show(s.time_s, TIME, 3),
            f"{s.time_s / total:.1%}",
            s.bound,
        )
        for s in steps
    ]
    head = ["op", "kind", "times", "time", "share", "bound by"]
    yield from folded("critical path, the largest", table(head, path, "<<>>><"))
    helps = [(s.name, f"{s.change:+.1%}") for s in buys if abs(s.change) >= HELPS]
    yield from folded("what would help", table(["change", "time"], helps, "<>"))
    yield escaped(error_range(result))
