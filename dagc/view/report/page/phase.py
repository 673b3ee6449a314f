"""A phase's part of the page: what binds it, its figures, and each picture in a section that folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ....base.units import BYTES, TIME, show
from ....plan.held_memory import HEAD, beside, limit_text, room_text, stage_rows
from ....plan.plan import CompiledPlan
from ....plan.result import PhaseResult, Sensitivity
from ....spec.metrics.known_metrics import of_phase
from ...draw.figures import buys as buys_
from ...draw.figures import layers, memory, tracks, waterfall
from ...draw.figures.markup import Markup, join, tag
from ...draw.figures.svg import legend
from ...facts.axes_words import axes_text
from ...facts.findings import binding, own_precision, placement_text, requests_text, spared, worst_layer
from ...facts.size import too_many
from ..headline import alternative_text, headline, others
from ..terminal import collectives_heading
from . import devices, stages
from .html_tables import Row, fact_cards, table


def fold(head: str, *body: object, open: bool = True, key: str = "") -> Markup:
    return tag("details", tag("summary", tag("h3", head)), *body, open=open, id=key or None)


def phase(plan: CompiledPlan, result: PhaseResult, buys: Sequence[Sensitivity]) -> Iterator[Markup]:
    batches = result.batches
    yield tag(
        "p",
        f"{len(result.gpus)} GPU{'s' if len(result.gpus) > 1 else ''}{result.of_pool}: {axes_text(result.graph)}; {batches} micro-batch{'es' if batches > 1 else ''}",
    )
    if dtypes := own_precision(plan, result.name):
        yield tag("p", dtypes)
    if text := alternative_text(plan, result.name):
        yield tag("p", text.capitalize())
    yield tag("p", binding(result, buys), cls="binding")
    if placed := placement_text(plan, result):
        yield tag("p", placed)
    yield _figures(plan, result)
    yield fold("Stages", stages.draw(result))
    yield fold("GPU map", devices.draw(plan, result))
    yield fold("Layers, identical ranks folded", legend(layers.keys(result)), join(_layers(result)))
    yield fold(collectives_heading(result).capitalize(), _collectives(result))
    yield fold(
        "Memory per GPU",
        memory.draw(result).framed(),
        legend(memory.keys(result)),
        tag("p", room_text(plan, result.name).capitalize().replace("kv", "KV"), cls="soft"),
        table(HEAD, list(stage_rows(plan, result)), numbers=range(1, len(HEAD))),
    )
    words = "The longest chain of ops that wait for each other: each row is an op of it, all its executions added up."
    words += " Of a step in the steady state." if _fills(result) else ""
    yield fold(
        "Critical path",
        tag("p", words, cls="soft"),
        waterfall.draw(result).framed(),
        legend(waterfall.keys(result)),
        _steps(result),
    )
    yield fold("Timeline of one pass", *_timeline(result))
    yield fold("What would help", _buys(result, buys))


def _fills(result: PhaseResult) -> bool:
    """The first pass takes longer than one of the steady state."""
    return result.schedule.latency_s > result.schedule.period_s * (1 + 1e-9)


def _figures(plan: CompiledPlan, result: PhaseResult) -> Markup:
    figures = headline(plan, result.name)
    name = result.phase_kind.metric
    about = {metric.name: metric.about for metric in of_phase()}
    facts = [
        (
            name,
            figures[name],
            "; ".join(filter(None, (f"floor {figures['floor']}", result.time_of))),
        ),
        (
            "throughput",
            figures["throughput"],
            f"{figures['throughput_per_gpu']} per GPU",
        ),
        (
            "memory, fullest GPU",
            show(result.memory.worst.peak_B, BYTES),
            f"{result.memory.fraction:.1%} of {limit_text(result, plan.spec.phase(result.name).memory)}{beside(plan, result.name)}",
        ),
        ("utilization", figures["utilization"], figures["flops_per_token"]),
        (
            "pipeline idle",
            f"{result.bubble:.1%}",
            _stages(result),
        ),
        ("expert imbalance", figures["imbalance"], f"busiest rank over the mean{spared(result)}{worst_layer(result)}"),
        *((key, value, about[key]) for key, value in others(figures).items()),
    ]
    return fact_cards(facts)


def _stages(result: PhaseResult) -> str:
    """How many, and how long they take to fill and to drain."""
    count = len(result.graph.stages)
    if count == 1:
        return "1 stage"
    return f"{count} stages; fill {show(result.schedule.fill_s, TIME)}, drain {show(result.schedule.drain_s, TIME)}"


def _layers(result: PhaseResult) -> Iterator[Markup]:
    """The first kind open, the others folded."""
    figures = list(layers.draw(result))
    heaviest = max(range(len(figures)), key=lambda k: figures[k][1], default=0)
    for k, (name, repeat, drawing) in enumerate(figures):
        head = tag("summary", f"{name} × {repeat}")
        yield tag("details", head, drawing.framed(), open=k == heaviest, cls="layer-kind")


def _collectives(result: PhaseResult) -> Markup:
    rows: list[Row] = []
    for c in result.collectives:
        if c.kind != "recv":
            kind = tag("span", tag("i", cls=f"sw k-{c.kind}"), c.kind, cls="key")
            rows.append(
                [
                    kind,
                    "+".join(c.axes),
                    c.group_size,
                    c.count,
                    show(c.payload_B, BYTES, 3),
                    show(c.wire_B, BYTES, 3),
                    show(c.time_s, TIME, 3),
                ]
            )
    said = requests_text(result)
    ends = tag("p", said, cls="soft") if said else Markup()
    if not rows:
        return join([tag("p", "None."), ends])
    head = ["collective", "over", "ranks", "calls", "payload of a call", "on the wire", "time"]
    return join([table(head, rows, numbers=(2, 3, 4, 5, 6)), ends])


def _steps(result: PhaseResult) -> Markup:
    """The same as a table, folded."""
    total = sum(s.time_s for s in result.path) or 1.0
    rows: list[Row] = []
    for s in result.path:
        name = f"{s.segment}/{s.op}" if s.segment else s.op
        rows.append([name, s.kind, s.count, show(s.time_s, TIME, 4), f"{s.time_s / total:.1%}", s.bound])
    made = table(["op", "kind", "times", "time", "share", "bound by"], rows, numbers=(2, 3, 4))
    return tag("details", tag("summary", f"all {len(rows)} ops as a table"), made, cls="raw")


def _timeline(result: PhaseResult) -> Iterator[Markup]:
    words = "Representative ranks of each stage. Numbers are micro-batches; the upper bar computes, the lower communicates; hatched: none."
    chunks = (
        f" A prompt takes {result.passes} passes; this is one of a whole chunk at its end." if result.passes > 1 else ""
    )
    fills = (
        f" A first step, while the pipeline fills: {show(result.schedule.latency_s, TIME)}; "
        f"in the steady state one takes {show(result.schedule.period_s, TIME)}."
        if _fills(result)
        else ""
    )
    yield tag("p", words + chunks + fills, cls="soft")
    reason = too_many(result)
    if reason:
        yield tag("p", f"Not drawn: {reason}.")
        return
    yield tracks.draw(result).framed()
    yield legend(tracks.keys(result))
    one = tracks.one_layer(result)
    if one is not None:
        yield tag("p", "One layer of the heaviest kind, op by op; underlined ops are on the critical path.", cls="soft")
        yield one.framed()


def _buys(result: PhaseResult, buys: Sequence[Sensitivity]) -> Markup:
    if all(abs(s.change) < 0.0005 for s in buys):
        return tag("p", "Nothing of it moves the time by 0.1%.")
    return buys_.draw(result.name, buys).framed()
