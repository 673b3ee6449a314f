"""The terminal report: the answer, then what a plan is, costs, needs and keeps of its promises; the verdict once more at its end."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from ...base.phase_kinds import DECODE, PREFILL
from ...base.units import BYTE_RATE, BYTES, FLOP_RATE, TIME, parameters, show
from ...ir.ops.op_set import attention_imbalance
from ...ir.routed_dims import skipped_share
from ...plan.held_memory import BRIEF, PARTS, beside, limit_text, room_text, shared_lines, stage_rows
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult, Sensitivities, Sensitivity
from ...spec.hardware import Hardware
from ...spec.workload import Routing
from ..facts.axes_words import axes_text
from ..facts.cache_words import attention_lines, cache_lines
from ..facts.experts import expert_lines
from ..facts.findings import (
    REQUESTS_HEAD,
    batch_lines,
    drafter_lines,
    exit_lines,
    own_precision,
    pool_link,
    requests_lines,
    spared,
    worst_layer,
)
from ..facts.placed_words import placement_lines
from ..facts.plan_answer import Answer
from ..facts.plan_answer import answer as answer_of
from .answer_lines import opening, verdict_line
from .headline import alternative_text, headline, others
from .requirement_lines import Judged, requirement_lines
from .terminal_text import WIDTH, Paint, fitted, within


def report(
    plan: CompiledPlan,
    sensitivities: Sensitivities,
    *,
    color: bool = False,
    width: int = WIDTH,
    also: Sequence[str] = (),
) -> str:
    """The whole report, ending in a newline. `also`: lines before its last one."""
    paint, found = Paint(color, width), answer_of(plan)
    lines = [*opening(plan, found, paint), "", *_head(plan, paint)]
    for result in plan.phases.values():
        lines += ["", *_phase(plan, result, sensitivities[result.name], paint)]
    if plan.trainings:
        from .training_lines import training_lines

        for trained in plan.trainings.values():
            lines += ["", *training_lines(plan, trained, paint)]
    for name, text in shared_lines(plan):
        lines += ["", f"shared GPUs: {name}, the fullest", f"  {text}"]
    if plan.servings:
        from .served_report import brief

        for served in plan.servings.values():
            lines += ["", *brief(plan, served, paint)]
    if found.requirements:
        lines += ["", *verdicts(found, paint)]
    lines += ["", *also, verdict_line(found, paint)]
    return "\n".join(part for line in lines for part in within(line, width)) + "\n"


def _head(plan: CompiledPlan, paint: Paint) -> list[str]:
    model = plan.spec.model
    total, active = plan.params
    stated = "" if model.params_stated is None else f", stated {parameters(model.params_stated)}"
    layers = ", ".join(f"{s.repeat} x {s.name}" for s in list(model.kinds.values())[1:-1])
    machines = [_hardware(own, model.weight_dtype) for own in plan.spec.pools.values()]
    machines += [f"{' to '.join(link.pools)}: {pool_link(link)}" for link in plan.spec.pool_links]
    return [
        f"{paint.bold('model')}     {model.name}: {parameters(total)} parameters ({parameters(active)} active{stated}), {model.precision}",
        f"          {layers}",
        *(f"{' ' * 8 if i else paint.bold('hardware')}  {words}" for i, words in enumerate(machines)),
        f"{paint.bold('workload')}  {workload_words(plan)}",
    ]


def _hardware(own: Hardware, dtype: str) -> str:
    peak = show(own.peak_flops(dtype), FLOP_RATE)
    return (
        f"{own.name}: {own.gpus} GPUs, {own.per_node} per node; {peak} at {own.mfu:.0%}, "
        f"{show(own.hbm_Bps, BYTE_RATE)} at {own.mbu:.0%}, {show(own.memory_B, BYTES)}"
    )


def _phase(plan: CompiledPlan, result: PhaseResult, buys: Sequence[Sensitivity], paint: Paint) -> list[str]:
    figures, gpus = headline(plan, result.name), len(result.gpus)
    name = result.phase_kind.metric
    lines = [paint.rule(result.name)]
    lines.append(
        f"  {gpus} GPU{'s' if gpus > 1 else ''}{result.of_pool}: {axes_text(result.graph)}; {_batches(result)}"
    )
    lines += [f"  {text}"] if (text := alternative_text(plan, result.name)) else []
    lines.append(
        f"  {name} {figures[name]} (floor {figures['floor']})   "
        f"{figures['throughput']} ({figures['throughput_per_gpu']} per GPU)"
    )
    lines += [f"    {name} of {result.time_of}"] if result.time_of else []
    lines.append(
        f"  utilization {figures['utilization']}   pipeline bubble {result.bubble:.1%}{_ends(result)}   expert imbalance "
        f"{figures['imbalance']}{_chance(result)}{_spare(result)}   {figures['flops_per_token']}"
    )
    if dtypes := own_precision(plan, result.name):
        lines.append(f"  {dtypes}")
    if more := others(figures):
        lines.append(f"  {'   '.join(f'{name} {text}' for name, text in more.items())}")
    lines += [
        f"  {line}"
        for line in (
            *_attention(result),
            *batch_lines(plan.spec.phase(result.name)),
            *attention_lines(plan, result),
            *cache_lines(plan, result),
            *exit_lines(plan, plan.spec.phase(result.name)),
            *drafter_lines(result),
            *placement_lines(result),
            *expert_lines(plan, result),
            *_sureness(result),
        )
    ]
    lines += _memory(plan, result, paint.width)
    lines += _collectives(result, paint.width)
    lines += _path(result, paint.width)
    lines += _sensitivities(buys)
    return lines


def _ends(result: PhaseResult) -> str:
    """How long the stages of a pipeline take to fill and to drain."""
    if len(result.graph.stages) == 1 or result.in_flight:
        return ""
    return f" (fill {show(result.schedule.fill_s, TIME)}, drain {show(result.schedule.drain_s, TIME)})"


def _chance(result: PhaseResult) -> str:
    """Standard error of the busiest rank, where it shows."""
    error = result.costs.imbalance * result.costs.load_error
    return f" +- {error:.2f}" if error >= 0.005 else ""


def _attention(result: PhaseResult) -> list[str]:
    """How uneven attention over a split sequence is, and what evens it."""
    uneven = attention_imbalance(result.graph)
    if uneven < 1.02:
        return []
    way = "; sp_layout = zigzag evens it" if result.graph.takes_prompts and not result.graph.the_mesh.zigzag else ""
    return [f"attention of the slowest rank {uneven:.2f} times the mean{way}"]


def _spare(result: PhaseResult) -> str:
    """What spare copies of experts gain, and what a capacity drops."""
    costs = result.costs
    return (
        spared(result)
        + worst_layer(result)
        + (f", {skipped_share(result.graph):.1%} of the choices skipped" if skipped_share(result.graph) else "")
        + (f", {costs.dropped:.1%} of the choices dropped" if costs.dropped > 1e-9 else "")
    )


ALONE = {PREFILL.name: "a prefill alone, beside TTFT", DECODE.name: "a step alone, beside TPOT"}


def _sureness(result: PhaseResult) -> list[str]:
    """How far to trust the phase's time: measured kernels in it, and how far phases like it were from real servings."""
    from ...calib.accuracy import BESIDE, PRICED, kernels_of, phase_errors

    share, error = result.measured
    kernels = (
        f"{share:.0%} of the time from measured kernels (to {error:.0%} in the mean), the rest from the roofline"
        if share
        else "not calibrated: the times are the roofline's"
    )
    taken = kernels_of(share, result.substituted)
    whole = phase_errors(taken).get(result.phase_kind.name)
    if whole is None:
        return [kernels, "no step of this kind alone was measured in a serving"]
    return [
        kernels,
        f"{ALONE[result.graph.kind]} of {whole.cases:,} real servings{PRICED[taken]}: within {whole.median:.0%} in half of them, within "
        f"{whole.p90:.0%} in nine of ten (median {whole.bias:+.0%}: {BESIDE[result.graph.kind]})",
    ]


def _batches(result: PhaseResult) -> str:
    lanes = ", two-batch overlap" if result.graph.lanes == 2 else ""
    m = result.batches
    if result.takes_turns:
        lanes = " in turn at attention and at experts" if m > 1 else ""
    chunks = f"; {result.passes} passes, one a chunk" if result.passes > 1 else ""
    return f"{m} micro-batch{'es' if m > 1 else ''}{lanes}{chunks}"


def _memory(plan: CompiledPlan, result: PhaseResult, width: int) -> list[str]:
    w = result.memory.worst
    text = " + ".join(f"{name} {show(getattr(w, field), BYTES, 3)}" for name, field in PARTS if getattr(w, field))
    head = f"  memory per GPU ({result.seats[w.stage].name}, the fullest): {show(w.peak_B, BYTES)}, {result.memory.fraction:.1%}"
    limit = limit_text(result, plan.spec.phase(result.name).memory)
    lines = [f"{head} of {limit}{beside(plan, result.name)}", f"    {text}"]
    room = room_text(plan, result.name)
    lines += [f"    {room}"] if room else []
    if len(result.memory.stages) > 1:
        lines += fitted([BRIEF, *stage_rows(plan, result, brief=True)], "<>>>>>", width)
    return lines


def _collectives(result: PhaseResult, width: int) -> list[str]:
    rows = [["collective", "over", "ranks", "calls", "payload", "on the wire", "time"]]
    for c in result.collectives:
        if c.kind == "recv":
            continue
        rows.append(
            [
                c.kind,
                "+".join(c.axes),
                str(c.group_size),
                str(c.count),
                show(c.payload_B, BYTES, 3),
                show(c.wire_B, BYTES, 3),
                show(c.time_s, TIME, 3),
            ]
        )
    ends = [f"    {text}" for text in requests_lines(result)]
    ends = [f"  {REQUESTS_HEAD}", *ends] if ends else []
    if len(rows) == 1:
        return ["  no collectives", *ends]
    return [f"  {collectives_heading(result)}", *fitted(rows, "<<>>>>>", width), *ends]


def collectives_heading(result: PhaseResult) -> str:
    """Whose calls the table counts."""
    whose = "of a device" if len(result.graph.stages) == 1 else "along the pipeline, of one device per stage"
    return f"collectives {whose}, in one pass" + (f" of {result.passes}" if result.passes > 1 else "")


def workload_words(plan: CompiledPlan) -> str:
    """What trains generates nothing."""
    work = plan.spec.workload
    size = f"{work.prompt} tok prompt, {work.output} tok output" if plan.phases else f"{work.prompt} tok each"
    return f"{work.sequences} sequences, {size}, {routing_text(work.routing)} routing"


def routing_text(routing: Routing) -> str:
    """`uniform`, `zipf(1.2)`, `histogram`."""
    return f"{routing.kind}({routing.s:g})" if routing.s else routing.kind


def _path(result: PhaseResult, width: int) -> list[str]:
    total = sum(s.time_s for s in result.path) or 1.0
    bounds = ", ".join(f"{k} {v:.0%}" for k, v in result.bound_by.items() if v >= 0.005)
    rows = [["op", "kind", "times", "time", "share"]]
    for step in sorted(result.path, key=lambda s: -s.time_s)[:6]:
        name = shorten(f"{step.segment}/{step.op}" if step.segment else step.op, 34)
        rows.append([name, step.kind, str(step.count), show(step.time_s, TIME, 3), f"{step.time_s / total:.1%}"])
    return [
        f"  critical path ({len(result.path)} ops; bound by {bounds}), the largest:",
        *fitted(rows, "<<>>>", width),
    ]


def _sensitivities(buys: Sequence[Sensitivity]) -> list[str]:
    worthwhile = [s for s in buys if abs(s.change) >= 0.0005]
    text = "; ".join(f"{s.name} {s.change:+.1%}" for s in worthwhile) or "nothing of it moves the time by 0.1%"
    return [f"  what would help: {text}"]


def verdicts(found: Answer, paint: Paint) -> list[str]:
    """One line a requirement, those that fail first, each with by how much; below it where a line has no room for that."""
    return [paint.rule("requirements"), *requirement_lines([Judged.of(v) for v in found.requirements], paint)]
