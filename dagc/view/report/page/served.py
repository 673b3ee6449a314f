"""A simulated serving's part of the page: its verdict and figures, and its pictures."""

from __future__ import annotations

from collections.abc import Iterator

from ....base.units import TOKEN_RATE, show
from ....plan.plan import CompiledPlan
from ....serving.result import ServeResult
from ....serving.verdict import BACKLOGGED, OVERLOADED, STABLE
from ...draw.figures.markup import Markup, join, tag
from ...draw.figures.served import latencies, over_time, step_lanes
from ...draw.figures.svg import legend, moment_text
from ...facts import served_words as said
from ...facts.served_sureness import sureness
from ..served_report import costs
from .html_tables import fact_cards, table
from .page_sections import Section, anchor_of

PILLS = {STABLE: "pass", BACKLOGGED: "", OVERLOADED: "fail"}


def sections(plan: CompiledPlan) -> Iterator[Section]:
    """One a serving."""
    for name, result in plan.servings.items():
        yield Section(anchor_of("serving", name), name, join(_serving(plan, result)), name, "serving")


def _serving(plan: CompiledPlan, result: ServeResult) -> Iterator[Markup]:
    serve = plan.spec.serve(result.name)
    facts = (
        ("load", "; ".join(filter(None, (said.arrivals_text(serve.arrivals), said.ends_text(serve), said.lengths_text(serve.lengths))))),
        ("workers", said.workers_text(result)),
        ("rules", said.rules_text(serve, result)),
    )  # fmt: skip
    yield tag("dl", join(tag("div", tag("dt", a), tag("dd", b)) for a, b in facts), cls="facts")
    pill = tag("span", result.verdict, cls=f"pill {PILLS[result.verdict]}".strip())
    yield tag("p", pill, " ", said.verdict_reason(result))
    yield _cards(plan, result)
    rows = [[name, *said.spread_row(getattr(result, field)), said.OF[field]] for name, field in said.TIMES]
    yield table(["time", "mean", "p50", "p90", "p99", "what it is"], rows, numbers=(1, 2, 3, 4))
    yield _fold("How the times are spread", latencies.draw(result).framed(), legend(latencies.keys(result)))
    yield _fold("Queue, batch and cache over time", over_time.draw(result).framed(), legend(over_time.keys(result)))
    if result.outcome.steps:
        start, end = step_lanes.window(result)
        words = (
            f"From {moment_text(start)} to {moment_text(end)}. Numbers: sequences in decode + tokens of prompts; a box "
            "without prompts is several equal steps."
        )
        body = (tag("p", words, cls="soft"), step_lanes.draw(result).framed(), legend(step_lanes.keys(result)))
        yield _fold("Steps", *body)
    yield tag("p", f"{'; '.join(sureness(plan, serve, result)).capitalize()}.", cls="soft")


def _fold(head: str, *body: object) -> Markup:
    return tag("details", tag("summary", tag("h3", head)), *body, open=True)


def _cards(plan: CompiledPlan, result: ServeResult) -> Markup:
    limits = said.limits_text(result.limits)
    good = f"{result.met:.1%} keep {limits}" if limits else "no requirement limits a request"
    full = result.fullest
    facts = [
        ("TTFT, p99", said.spread_row(result.ttft)[3], f"half within {said.spread_row(result.ttft)[1]}"),
        ("TPOT, p99", said.spread_row(result.tpot)[3], f"half within {said.spread_row(result.tpot)[1]}"),
        ("output", show(result.throughput_tok_s, TOKEN_RATE),
         f"{show(result.throughput_per_gpu_tok_s, TOKEN_RATE)} per GPU{said.per_user(result)}"),
        ("goodput", said.per_second(result.goodput_per_s), good),
        ("busy", f"{result.utilization:.1%}", f"{result.running_mean:.3g} requests in the workers, {result.running_most:,} at most"),
        ("waiting", f"{result.queue_mean:.3g}", f"{result.queue_most:,} at most; any {result.saturated:.0%} of the time"),
        ("KV cache", f"{full.kv_fill_mean:.1%} full", f"{full.kv_fill_most:.1%} at most; {full.kv_waste:.1%} of what it holds is empty"),
    ]  # fmt: skip
    facts += [("costs", found[0], ", ".join(found[1:])) for found in (costs(plan, result),) if found]
    facts += [
        (word, f"{result.count(key):,}", "")
        for key, word in (("rejected", "turned away"), ("preempted", "preemptions"), ("switches", "changes of role"))
        if result.count(key)
    ]
    if result.count("hit_tokens"):
        facts.append(("prefix cache", f"{result.hit_rate:.1%}", "of the prompts' tokens"))
    return fact_cards(facts)
