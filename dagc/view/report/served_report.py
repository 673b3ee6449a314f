"""A simulated serving on a terminal: one screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...base.units import TOKEN_RATE, show
from ...plan.plan import CompiledPlan
from ...plan.require import owners
from ...plan.subject import result_metrics
from ...serving.knee import Knee, Point, load_kind
from ...serving.result import RoleResult, ServeResult
from ...serving.verdict import BACKLOGGED
from ...spec.metrics.known_metrics import of_serving
from ...spec.serve import Serve
from ..facts import served_words as said
from ..facts.plan_answer import answer
from ..facts.served_sureness import sureness
from .answer_lines import opening, verdict_line
from .requirement_lines import Judged, requirement_lines
from .terminal_text import WIDTH, Paint, fitted, within

COLORS = {"stable": "32", "backlogged": "33", "overloaded": "31;1"}


def reports(
    plan: CompiledPlan,
    served: Sequence[tuple[Serve, ServeResult, Knee | None]],
    *,
    color: bool = False,
    width: int = WIDTH,
    also: Sequence[str] = (),
) -> str:
    """The answer, the whole of each serving and the verdict once more, ending in a newline. `also`: lines before the last one."""
    paint, found = Paint(color, width), answer(plan)
    lines = opening(plan, found, paint)
    for serve, result, knee in served:
        lines += ["", *_serving(plan, serve, result, knee, paint)]
    named = {result.name for _, result, _ in served}
    others = [v for v in found.failing if not named & owners(v.requirement)]
    lines += (
        ["", paint.rule("other requirements"), *requirement_lines([Judged.of(v) for v in others], paint)]
        if others
        else []
    )
    lines += ["", *also, verdict_line(found, paint)]
    return "\n".join(part for line in lines for part in within(line, width)) + "\n"


def _serving(plan: CompiledPlan, serve: Serve, result: ServeResult, knee: Knee | None, paint: Paint) -> list[str]:
    width = paint.width
    lines = [paint.rule(result.name), *_load(serve, result)]
    lines += [f"  verdict   {_verdict(result, paint)}", *times(result, width)]
    lines += ["", *figures(plan, result, width)]
    lines += [f"  {line}" for line in sureness(plan, serve, result)]
    if knee is not None:
        lines += ["", *knee_lines(result, knee, width)]
    return [*lines, *requirements(plan, result, paint)]


def brief(plan: CompiledPlan, result: ServeResult, paint: Paint) -> list[str]:
    """A serving among the other results of a plan; `dagc serve` says the rest."""
    serve = plan.spec.serve(result.name)
    return [
        paint.rule(result.name),
        *_load(serve, result)[:1],
        f"  verdict   {_verdict(result, paint)}",
        *times(result, paint.width)[:-1],
        *list(figures(plan, result, paint.width))[: 3 if costs(plan, result) else 2],
        *(f"  {line}" for line in sureness(plan, serve, result)),
    ]


def summary(plan: CompiledPlan) -> tuple[list[str], list[list[str]]]:
    """The table that has a row per serving: its head and rows."""
    rows = []
    for name, result in plan.servings.items():
        found = [said.spread_row(spread)[k] for spread in (result.ttft, result.tpot) for k in (1, 3)]
        output = show(result.throughput_tok_s, TOKEN_RATE)
        rows.append([name, *found, output, said.per_second(result.goodput_per_s), said.verdict_text(result)])
    return ["serving", "TTFT p50", "p99", "TPOT p50", "p99", "output", "goodput", "verdict"], rows


def _load(serve: Serve, result: ServeResult) -> list[str]:
    ends = said.ends_text(serve)
    load = "; ".join(filter(None, (said.arrivals_text(serve.arrivals), ends, said.lengths_text(serve.lengths))))
    return [
        f"  load      {load}; seed {serve.seed}",
        f"  workers   {said.workers_text(result)}: {_phases(serve)}",
        f"  rules     {said.rules_text(serve, result)}",
    ]


def _phases(serve: Serve) -> str:
    named = [(kind, getattr(serve, kind)) for kind in ("prefill", "decode", "mixed")]
    return ", ".join(kind if kind == name else f"{kind} = {name}" for kind, name in named if name is not None)


def _verdict(result: ServeResult, paint: Paint) -> str:
    return f"{paint(result.verdict, COLORS[result.verdict])}: {said.verdict_reason(result)}"


def times(result: ServeResult, width: int) -> list[str]:
    """The table of percentiles, and what each time is."""
    rows = [["", "mean", "p50", "p90", "p99"]]
    for name, field in said.TIMES:
        rows.append([name, *said.spread_row(getattr(result, field))])
    about = "; ".join(f"{name} {said.OF[field]}" for name, field in said.TIMES)
    return [*(line[2:].rstrip() for line in fitted(rows, "<>>>>", width + 2)), f"  {about}"]


def figures(plan: CompiledPlan, result: ServeResult, width: int) -> Iterable[str]:
    """Rates, and how full everything was."""
    out, prompts = show(result.throughput_tok_s, TOKEN_RATE), show(result.prompt_tok_s, TOKEN_RATE)
    each = f"{show(result.throughput_per_gpu_tok_s, TOKEN_RATE)} per GPU{said.per_user(result)}"
    yield f"  output    {out} ({each}); prompts {prompts}"
    yield f"  goodput   {_goodput(result)}"
    if found := costs(plan, result):
        yield f"  costs     {', '.join(found)}"
    yield f"  run       {result.arrived:,} request{'s' if result.arrived != 1 else ''} in {result.duration_s:,.4g} s, the empty start and the drain included{_lost(result)}"
    yield ""
    head = ["workers", "busy", "waiting (most)", "any", "running (most)", "cache (most)", "waste"]
    yield from (line[2:].rstrip() for line in fitted([head, *map(_role, result.roles)], "<>>>>>>", width + 2))


def costs(plan: CompiledPlan, result: ServeResult) -> list[str]:
    """What its tokens and requests cost, as far as the hardware says."""
    found = result_metrics(plan.subject(), result)
    priced = [m for m in of_serving() if m.needs and m.name in found]
    return [f"{'at most ' if m.needs == 'power' else ''}{m.shown(found[m.name])}" for m in priced]


def _role(role: RoleResult) -> list[str]:
    return [
        f"{role.workers} {'alike' if role.role == 'both' else role.role}"
        if role.workers > 1 or role.role != "both"
        else "1",
        f"{role.gpus_busy:.1%}",
        f"{role.waiting_mean:.3g} ({role.waiting_most:,})",
        f"{role.saturated:.1%}",
        f"{role.running_mean:.3g} ({role.running_most:,})",
        f"{role.kv_fill_mean:.1%} ({role.kv_fill_most:.1%})",
        f"{role.kv_waste:.1%}",
    ]


def _goodput(result: ServeResult) -> str:
    if not result.limits.any:
        return f"{said.per_second(result.goodput_per_s)}: no requirement limits a request, so all that end count"
    shares = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
    each = ", ".join(f"{shares[name]} {share:.1%}" for name, share in result.met_each.items())
    return f"{said.per_second(result.goodput_per_s)}: {result.met:.1%} keep {said.limits_text(result.limits)} ({each})"


def _lost(result: ServeResult) -> str:
    parts = [
        f"{result.count(key):,} {word}"
        for key, word in (("rejected", "turned away"), ("preempted", "preemptions"), ("switches", "changes of role"))
        if result.count(key)
    ]
    if parts and result.count("rejected"):
        parts[0] += said.never_fit(result)
    parts += (
        [f"{result.hit_rate:.1%} of the prompts' tokens from the prefix cache"] if result.count("hit_tokens") else []
    )
    return "".join(f"; {part}" for part in parts)


def knee_lines(result: ServeResult, knee: Knee, width: int) -> list[str]:
    """The highest load that holds, and the next one with what breaks there."""
    kind, _ = load_kind(result.arrivals)
    rows: list[Sequence[str]] = [["", "load", "TTFT p99", "TPOT p99", "goodput", "verdict"]]
    rows += [_point("knee", knee.at, kind)] if knee.at is not None else []
    rows += [_point("above" if knee.at is not None else "least", knee.above, kind)] if knee.above is not None else []
    lines = [line[2:].rstrip() for line in fitted(rows, "<>>>><", width + 2)]
    if knee.above is not None:
        first, *more = knee.above.broken
        lines.append(f"  what breaks first: {first}" + (f"; with it {'; '.join(more)}" if more else ""))
    if knee.at is not None and knee.at.result.verdict == BACKLOGGED:
        lines.append("  requests pile up at the knee already: a run of more requests finds a lower one")
    if knee.at is None:
        lines.append(
            "  no load keeps every requirement: the least that was tried, at which requests hardly meet, breaks it"
        )
    if knee.above is None:
        lines.append("  no load was found that breaks anything")
    return lines


def _point(name: str, point: Point, kind: str) -> list[str]:
    found = point.result
    p99 = [said.spread_row(times)[3] for times in (found.ttft, found.tpot)]
    return [name, said.load_text(kind, point.load), *p99, said.per_second(found.goodput_per_s), found.verdict]


def requirements(plan: CompiledPlan, result: ServeResult, paint: Paint) -> list[str]:
    """Those that name the serving."""
    mine = [v for v in plan.requirements if result.name in owners(v.requirement)]
    return requirement_lines([Judged.of(v) for v in sorted(mine, key=lambda v: v.passed)], paint)
