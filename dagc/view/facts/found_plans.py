"""Plans that a search found, in words and as cells of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from ...base.units import BYTES, SCALAR, TIME, TOKEN_RATE, number, show
from ...plan.refusal_rules import NOT_READY, engine_in, requirement_in, several_in
from ...plan.searched import (
    Against,
    Binding,
    Findings,
    Joined,
    Measure,
    Part,
    PhasePlan,
    PlanFound,
    Refusal,
    ServedVersus,
    Space,
    Step,
    Versus,
)
from ...spec.metrics.known_metrics import of_serving
from ...spec.metrics.metric import percent
from .plan_answer import FAILED, MOST, PASSED, Answer, Figure, title

GB, MS = 1e9, 1e-3
STANDARD = {"throughput_per_gpu", "throughput_per_user", "ttft", "tpot", "step_time", "time"}
"""Measures of a phase that every table has anyway."""
EQUAL = "="
"""Mark of a plan that is as good as the best within what is known of the error."""
TIED = "\u00a0"
"""A space at which no line is broken."""
MOST_REASONS = 3
PLAIN = {
    "gpus": "there are not enough GPUs for both",
    "memory": "it does not fit into the memory of a GPU",
    "shared memory": "it does not fit together with the phases on the same GPUs",
}
"""What a rule's name means, where the rule says no more."""


def spec_name(found: Findings) -> str:
    """Without its folder."""
    return PurePath(found.spec).name or found.spec


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def choices_text(choices: Mapping[str, str], paths: Sequence[str] | None = None) -> str:
    """`attention.tp 4, experts.ep 4`, no value apart from its path; all of them where no paths are named."""
    shown = [path for path in (choices if paths is None else paths) if path in choices]
    return ", ".join(f"{path}{TIED}{choices[path]}" for path in shown)


def differing(plans: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Paths of choices whose values are not the same in all."""
    paths = dict.fromkeys(path for one in plans for path in one)
    return tuple(path for path in paths if len({one.get(path) for one in plans}) > 1)


def phases(found: Findings) -> tuple[str, ...]:
    """Phases that were searched, in order."""
    return tuple(dict.fromkeys(one.phase for plan in found.plans for one in plan.phases))


def varied(found: Findings) -> dict[str, tuple[str, ...]]:
    """By phase, the choices in which the plans shown differ."""
    return {
        name: differing([one.choices for plan in found.plans for one in plan.phases if one.phase == name])
        for name in phases(found)
    }


def common(found: Findings) -> dict[str, dict[str, str]]:
    """By phase, the choices that all plans shown have alike."""
    differ = varied(found)
    best = found.best
    return {
        one.phase: {path: value for path, value in one.choices.items() if path not in differ[one.phase]}
        for one in (best.phases if best is not None else ())
    }


def measure_name(measure: Measure) -> str:
    """`decode.tpot`; of all phases together, its name alone."""
    return measure.name if measure.phase == "all" else f"{measure.phase}.{measure.name}"


def figure(measure: Measure, value: float) -> str:
    """With its unit."""
    return show(value, measure.dim)


def head(found: Findings) -> list[str]:
    """Of the table of plans, without the choices."""
    extra = [measure_name(m) for m in _extra(found)]
    several = len(phases(found)) > 1
    time = "time ms" if several or not found.plans else f"{found.plans[0].phases[0].time_name} ms"
    gpus = ["GPUs"] if _with_gpus(found) else []
    picked = ["alternative"] if any(plan.picked for plan in found.plans) else []
    own = ["tok/s/user", time] if not _trained(found) else ["MFU", "step s"]
    return ["", *extra, *picked, *(["phase"] if several else []), *gpus, "tok/s/GPU", *own, "GB"]


def rows(found: Findings) -> list[tuple[list[str], PhasePlan]]:
    """A row for each phase of each plan; cells as in `head`."""
    out = []
    several = len(phases(found)) > 1
    gpus = _with_gpus(found)
    picked = any(plan.picked for plan in found.plans)
    for k, plan in enumerate(found.plans, 1):
        for j, one in enumerate(plan.phases):
            mark = f"{k}{EQUAL if plan.equal and k > 1 else ''}" if j == 0 else ""
            extra = [figure(m, plan.figures[found.measures.index(m)]) if j == 0 else "" for m in _extra(found)]
            cells = [mark, *extra]
            cells += [" ".join(plan.picked.values()) if j == 0 else ""] if picked else []
            cells += [one.phase] if several else []
            cells += [str(one.gpus)] if gpus else []
            cells += [_cell(one.per_gpu_tok_s)]
            cells += (
                [_cell(one.per_user_tok_s), _cell(one.time_s / MS)]
                if one.mfu is None
                else [f"{one.mfu:.2%}", _cell(one.time_s)]
            )
            out.append(([*cells, _cell(one.peak_B / GB, 3)], one))
    return out


def _trained(found: Findings) -> bool:
    """Whether the plans are of a training step, which has no users."""
    return bool(found.plans) and found.plans[0].phases[0].mfu is not None


def _cell(value: float, digits: int = 4) -> str:
    """Of a column whose head has the unit."""
    return number(value, digits, zeros=True)


def _with_gpus(found: Findings) -> bool:
    """Whether the number of GPUs has a column of its own: not where it is a choice that differs."""
    if len(phases(found)) > 1:
        return True
    return len({plan.gpus for plan in found.plans}) > 1 and not any("gpus" in paths for paths in varied(found).values())


def _extra(found: Findings) -> list[Measure]:
    """Measures that have no column of their own yet."""
    known = {*STANDARD, *(("mfu", "memory.peak") if _trained(found) else ())}
    return [m for m in found.measures if (m.phase == "all" or m.name not in known) and m.name != "gpus"]


def verdict(found: Findings) -> str:
    """The answer in one line."""
    if found.best is None and found.left == found.size:
        return f"nothing was looked at yet; {proof(found)}"
    if found.best is None:
        missing = "no plan is legal and meets" if found.complete else "none of the plans looked at is legal and meets"
        return f"{missing} every requirement; {proof(found)}"
    if found.front:
        what = f"front of {counted(len(found.plans), 'plan')}"
    else:
        own = zip(found.measures, found.best.figures, strict=True)
        what = "best: " + ", ".join(f"{measure_name(m)} {figure(m, v)}" for m, v in own)
    return f"{what}; {proof(found)}"


def answer(found: Findings) -> Answer:
    """The verdict, the requirement with the least slack, and figures of the best plan."""
    best = found.best
    state = PASSED if best is not None else FAILED
    limits = () if found.binding is None else (binding_text(found, found.binding),)
    if best is None or found.front:
        return Answer(state, verdict(found), limits)
    own = {measure_name(m): figure(m, v) for m, v in zip(found.measures, best.figures, strict=True)}
    for one in best.phases:
        own.setdefault(f"{one.phase}.{one.time_name}", show(one.time_s, TIME))
        own.setdefault(f"{one.phase}.throughput_per_gpu", show(one.per_gpu_tok_s, TOKEN_RATE))
        if one.mfu is None:
            own.setdefault(f"{one.phase}.throughput_per_user", show(one.per_user_tok_s, TOKEN_RATE))
        else:
            own.setdefault(f"{one.phase}.mfu", percent(one.mfu))
    figures = [Figure(title(name), value) for name, value in own.items()]
    return Answer(state, verdict(found), limits, tuple(figures[:MOST]))


def proof(found: Findings) -> str:
    """What is proved about plans that were not costed, and how long it took."""
    size, took = counted(found.size, "plan"), duration(found.seconds)
    if found.complete:
        return f"complete: {size} in {took}"
    stopped = "not complete (interrupted)" if found.interrupted else "not complete"
    if not found.left:
        return f"{stopped}: {size} in {took}"
    could = (
        "how much better they could be is not known"
        if found.gap is None
        else f"one of them could be {found.gap:.1%} better at most"
    )
    return f"{stopped}: {found.left:,} of {size} not looked at after {took}; {could}"


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def rule_text(one: Refusal) -> str:
    """What a rule wants, or what is wrong, in a sentence."""
    if (label := requirement_in(one.rule)) is not None:
        return f'the requirement "{label}" does not hold'
    if one.legal:
        return f"against the rule that {one.about}"
    if engine_in(one.rule) is not None:
        return f"not run by {one.about}"
    if one.rule == NOT_READY:
        return f"the engine could run it, and its exporter is not ready: {one.about}"
    return PLAIN.get(one.rule, one.about)


def example_text(one: Refusal, most: int = 6) -> str:
    """An example in the choices that the rule asks."""
    paths = list(one.example)
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return choices_text(one.example, paths[:most]) + more


def counts(space: Space) -> list[tuple[int, str, str]]:
    """(plans, what became of them, an example) of a space, all of them once."""
    out = [(one.count, rule_text(one), example_text(one)) for one in space.refusals]
    out += [
        (space.equal, "another plan in other words", ""),
        (space.bounded, "a bound proves them worse", ""),
        (space.costed, "costed, legal, and every requirement on phases holds", ""),
        (space.left, "not looked at", ""),
    ]
    return [one for one in out if one[0]]


def equal_text(found: Findings) -> str:
    """Which plans are as good as the best, as far as anybody knows."""
    count = sum(plan.equal for plan in found.plans)
    if count < 2:
        return ""
    which = f"all {count}" if count == len(found.plans) else f"{count} of the {len(found.plans)}"
    timed = [m for m in found.measures if m.dim not in (SCALAR, BYTES)]
    if not found.errors or not timed:
        return f"{EQUAL} {which} plans shown have the same figure"
    worst = max(found.errors, key=lambda one: one.median)
    return (
        f"{EQUAL} {which} plans shown are equal within {worst.median:.0%}, the error that half of {worst.cases:,} such estimates"
        f"{worst.priced} had against real servings: choose among them by other reasons"
    )


def is_of(plan: PlanFound, one: PhasePlan, space: Space) -> bool:
    """Whether a phase of a plan is from this space, of which alternatives have one each."""
    picked = " ".join(plan.picked.values())
    return space.phase in (one.phase, f"{one.phase} ({picked})")


def reasons(found: Findings) -> Iterator[str]:
    """Sentences: against today's plan, what binds, what other numbers of GPUs give."""
    if found.against is not None:
        yield against_text(found, found.against)
    if found.binding is not None:
        yield binding_text(found, found.binding)
    for step in found.steps:
        yield step_text(found, step)
    yield from found.asks


def against_text(found: Findings, today: Against) -> str:
    """`today.moe: decode.tpot 12 ms: the best plan is 8.1% better`"""
    noise = max((one.median for one in found.errors), default=0.0)
    parts = []
    for measure, was, gain in zip(found.measures, today.figures, today.gains, strict=True):
        if was is not None:
            parts.append(f"{measure_name(measure)} {figure(measure, was)}{_gained(gain, noise)}")
    broken = "" if today.passed else "; it does not keep every requirement"
    return f"{today.name}: {'; '.join(parts) or 'it has no such figure'}{broken}"


def _gained(gain: float | None, noise: float) -> str:
    if not gain:
        return "" if gain is None else ", as the best plan"
    within = f", less than the {noise:.0%} that such estimates err by" if abs(gain) < noise else ""
    return f": the best plan is {abs(gain):.1%} {'better' if gain > 0 else 'worse'}{within}"


def binding_text(found: Findings, one: Binding) -> str:
    """Which requirement has the least slack, and what it costs."""
    text = f"least slack: {one.label}, {one.found} where {one.bound} is required ({one.slack:.1%})"
    if not one.refused:
        return f"{text}; no plan was refused for it"
    text += f"; {counted(one.refused, 'plan')} refused for it"
    if one.without is None or one.gain is None:
        return text
    first = found.measures[0]
    without = f"{measure_name(first)} {figure(first, one.without)}"
    if one.gain <= 0:
        return f"{text}; without it {'no plan is better' if one.sure else 'nothing better was found in time'}"
    return f"{text}; without it {'' if one.sure else _at_best(first)}{without}, {one.gain:.1%} better"


def _at_best(measure: Measure) -> str:
    """Before a figure that a longer search might better."""
    return "at least " if measure.better == "higher" else "at most "


def step_text(found: Findings, step: Step) -> str:
    """`with 8 GPUs: ...`"""
    first = found.measures[0]
    of = f" in {step.phase}" if len(phases(found)) > 1 else ""
    if step.figure is None or step.change is None:
        return f"{counted(step.gpus, 'GPU')}{of}: no plan passes"
    how = f"{step.change:+.1%}" if abs(step.change) >= 5e-4 else "the same"
    return f"{counted(step.gpus, 'GPU')}{of}: {measure_name(first)} {'' if step.complete else _at_best(first)}{figure(first, step.figure)} ({how})"


def versus_text(one: Versus) -> str:
    """`against plan 3: 173.7 us of GPU time a token instead of 183.4 us`"""
    text = f"{one.phase} against {one.name}, {one.per}: {show(one.own, TIME)} instead of {show(one.other, TIME)}"
    if max(one.idle) >= 0.005:
        text += f"; stages idle {one.idle[0]:.1%} of it instead of {one.idle[1]:.1%}"
    return text


def joined_text(one: Joined) -> str:
    """How plans of several phases were put together."""
    text = f"put together: {counted(one.tried, 'combination')}, of which {one.refused:,} {'does' if one.refused == 1 else 'do'} not work together"
    if one.reasons:
        most = sorted(one.reasons.items(), key=lambda pair: -pair[1])
        text += f" ({'; '.join(f'{count:,}: {why_text(rule)}' for rule, count in most[:MOST_REASONS])})"
    return f"{text}; {one.left:,} more not looked at" if one.left else text


def near_text(rule: str, how: str, choices: Mapping[str, str]) -> str:
    """A plan that breaks one rule alone, or where there is none `2 requirements`."""
    breaks = f"`{rule}` alone" if several_in(rule) is None else rule
    return f"breaks {breaks} ({how}): {choices_text(choices)}"


def anew_rows(found: Findings) -> list[list[str]]:
    """What is done anew, memory, time and MFU of the best plan then, and what is to be said of it."""
    return [
        [one.recompute, f"{_cell(one.peak_B / GB, 3)} GB", show(one.time_s, TIME), percent(one.mfu), "the plan's own" if one.chosen else "" if one.fits else "does not fit"]
        for one in found.anew
    ]  # fmt: skip


ANEW = "memory against time of the best plan by `recompute`, each compiled; what is left out is no better in either"


def served_versus_text(one: ServedVersus) -> str:
    """`chat with it, and with plan 2`"""
    return f"{one.serving} with the best plan, and with {one.name}"


def served_versus_rows(one: ServedVersus) -> list[list[str]]:
    """Metric of the serving, with the best plan, with the other."""
    return [[name, served_figure(name, own), served_figure(name, other)] for name, own, other in one.figures]


def served_figure(name: str, value: float) -> str:
    """A figure of a serving with its unit."""
    known = next((one for one in of_serving() if one.name == name), None)
    return show(value, TOKEN_RATE) if known is None else known.shown(value)


def versus_rows(one: Versus, most: int = 6) -> list[list[str]]:
    """Class of ops, its time in the best plan, in the other, and the difference; all of them add up to the whole."""
    *large, rest = one.parts
    kept, cut = large[: most - 1], large[most - 1 :]
    rest = Part(rest.name, rest.own + sum(p.own for p in cut), rest.other + sum(p.other for p in cut))
    least = 1e-6 * max(one.own, one.other)
    return [
        [p.name, show(p.own, TIME, 3), show(p.other, TIME, 3), _change(p.own - p.other, least)] for p in (*kept, rest)
    ]


def _change(seconds: float, least: float) -> str:
    """With its sign; what is less than `least` is rounding."""
    return "0" if abs(seconds) < least else f"{'+' if seconds > 0 else '-'}{show(abs(seconds), TIME, 3)}"


def cell_figure(measure: Measure, value: float) -> str:
    """As short as a cell of a map is wide: throughput without its unit."""
    return number(value) if measure.dim == TOKEN_RATE else show(value, measure.dim, 3)


def why_text(why: str) -> str:
    """Why no plan of a cell was found."""
    if (label := requirement_in(why)) is not None:
        return f'the requirement "{label}" does not hold'
    if (engine := engine_in(why)) is not None:
        return f"not run by {engine}"
    return PLAIN.get(why, why)
