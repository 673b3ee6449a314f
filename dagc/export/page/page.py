"""The whole page: verdicts first, then each phase, the spec with its diagnostics, and what is assumed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import PurePath
from string import Template

from ... import __version__
from ...ir.result import PhaseResult, Sensitivity
from ...lang.source import Source
from ...lang.units import BYTE_RATE, BYTES, FLOP_RATE, SCALAR, TIME, TOKEN_RATE, show
from ...plan import Plan
from ...report import axes_text
from ..findings import assumptions, binding, error_range, origins
from . import buys as buys_
from . import layers, listing, memory, stages, tracks, waterfall
from .markup import Markup, join, tag, text
from .svg import legend

Row = Sequence[object]


def page(plan: Plan) -> str:
    """One HTML document. It loads nothing, and its policy forbids it to."""
    style, script = asset("figures.css") + asset("page.css"), asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    found = listing.sources(plan)
    name = plan_name(plan, found)
    body = join([_header(plan, name), tag("main", join(_sections(plan, found))), _footer()])
    return Template(asset("page.html")).substitute(
        title=text(f"{name}: dagc report"), policy=policy, style=style, body=body, script=script
    )


@cache
def asset(name: str) -> str:
    """A template, style sheet or script that ships beside this file."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def plan_name(plan: Plan, found: Sequence[Source]) -> str:
    """The file's name without its ending, or the model's."""
    name = PurePath(found[0].name).stem if found else ""
    return name if name and name not in ("-", "<text>") else plan.spec.model.name


def _header(plan: Plan, name: str) -> Markup:
    model, hardware, work = plan.spec.model, plan.spec.hardware, plan.spec.workload
    total, active = plan.params
    stated = "" if model.params_stated is None else f", stated {show(model.params_stated, SCALAR)}"
    peak = show(hardware.peak_flops(model.weight_dtype), FLOP_RATE)
    facts = [
        ("model", f"{model.name}: {show(total, SCALAR)} parameters, {show(active, SCALAR)} active{stated}; {model.layers} layers, {model.dtype}"),
        ("hardware", f"{hardware.name}: {hardware.gpus} GPUs, {hardware.per_node} a node; {peak}, {show(hardware.hbm_Bps, BYTE_RATE)}, {show(hardware.memory_B, BYTES)} each"),
        ("workload", f"{work.sequences} sequences, {work.prompt} tok prompt, {work.output} tok output, {work.routing.kind} routing"),
    ]  # fmt: skip
    links = [("requirements", "requirements"), *((f"phase-{k}", p) for k, p in enumerate(plan.phases)), ("spec", "spec"), ("assumptions", "assumptions")]  # fmt: skip
    return tag(
        "header",
        tag("h1", name, " ", _pill(plan)),
        tag("dl", join(tag("div", tag("dt", a), tag("dd", b)) for a, b in facts), cls="facts"),
        tag("nav", join((tag("a", what, href=f"#{key}") for key, what in links), " "), aria_label="sections"),
    )


def _pill(plan: Plan) -> Markup:
    if not plan.requirements:
        return tag("span", "no requirements", cls="pill")
    failed = sum(not v.passed for v in plan.requirements)
    words = (
        f"{failed} of {len(plan.requirements)} requirements fail" if failed else f"all {len(plan.requirements)} hold"
    )
    return tag("span", ("✗ " if failed else "✓ ") + words, cls="pill fail" if failed else "pill pass")


def _sections(plan: Plan, found: Sequence[Source]) -> Iterator[Markup]:
    yield tag("section", tag("h2", "Requirements"), _requirements(plan, found), id="requirements")
    for k, result in enumerate(plan.phases.values()):
        yield tag("section", tag("h2", result.name), join(_phase(plan, result)), id=f"phase-{k}", cls="phase")
    for pool in plan.pools:
        head = f"GPUs shared by {' and '.join(pool.phases)}"
        yield tag("section", tag("h2", head), tag("p", f"{pool.gpus} GPUs: {pool.sum_text}"))
    yield tag("section", tag("h2", "Spec"), join(_spec(plan, found)), id="spec")
    yield tag("section", tag("h2", "Assumptions and errors"), join(_assumptions(plan)), id="assumptions")


def _table(head: Row, rows: Sequence[Row], cls: str = "", numbers: Sequence[int] = ()) -> Markup:
    """`numbers`: columns that are set flush right."""

    def cell(kind: str, k: int, value: object) -> Markup:
        return tag(kind, value, cls="n" if k in numbers else None, scope="col" if kind == "th" else None)

    top = tag("thead", tag("tr", join(cell("th", k, v) for k, v in enumerate(head))))
    body = tag("tbody", join(tag("tr", join(cell("td", k, v) for k, v in enumerate(row))) for row in rows))
    return tag("div", tag("table", top, body, cls=cls or None), cls="scroll")


def _requirements(plan: Plan, found: Sequence[Source]) -> Markup:
    if not plan.requirements:
        return tag("p", "The spec requires nothing.")
    rows: list[Row] = []
    for v in plan.requirements:
        r = v.requirement
        where = listing.anchor(found, r.span)
        label = tag("a", r.label, href=f"#{where}") if where else r.label
        verdict = tag("span", "✓ pass", cls="pass") if v.passed else tag("span", "✗ FAIL", cls="fail")
        ratio = f"{v.value / v.bound:.3g}×" if v.bound else ""
        rows.append([verdict, label, show(v.value, v.dim), f"{r.test.op} {show(v.bound, v.dim)}", ratio])
    passed = sum(v.passed for v in plan.requirements)
    table = _table(["verdict", "requirement", "found", "required", "found / required"], rows, "verdicts", (2, 3, 4))
    return Markup(table + tag("p", f"{passed} of {len(plan.requirements)} hold.", cls="soft"))


def _fold(head: str, *body: object, open: bool = True, key: str = "") -> Markup:
    return tag("details", tag("summary", tag("h3", head)), *body, open=open, id=key or None)


def _phase(plan: Plan, result: PhaseResult) -> Iterator[Markup]:
    buys = plan.sensitivities(result.name)
    batches = result.graph.microbatches
    yield tag("p", f"{len(result.gpus)} GPUs: {axes_text(result)}; {batches} micro-batch{'es' if batches > 1 else ''}")
    yield tag("p", binding(result, buys), cls="binding")
    yield _figures(result)
    yield _fold("Stages", stages.draw(result))
    yield _fold("Layers, alike ranks folded", legend(layers.keys(result)), join(_layers(result)))
    yield _fold("Collectives of a device in one pass", _collectives(result))
    yield _fold("Memory of a GPU", memory.draw(result), legend(memory.keys(result)))
    words = "The longest chain of ops that wait for each other: each row is an op of it, all its executions added up."
    yield _fold(
        "Critical path",
        tag("p", words, cls="soft"),
        waterfall.draw(result),
        legend(waterfall.keys(result)),
        _steps(result),
    )
    yield _fold("Timeline of one pass", *_timeline(result))
    yield _fold("What would help", _buys(result, buys))


def _figures(result: PhaseResult) -> Markup:
    name = "ttft" if result.graph.kind == "prefill" else "tpot"
    gpus = len(result.gpus)
    facts = [
        (name, show(result.time_s, TIME), f"floor {show(result.floor.period_s, TIME)}"),
        ("throughput", show(result.throughput_tok_s, TOKEN_RATE), f"{show(result.throughput_tok_s / gpus, TOKEN_RATE)} a GPU"),
        ("memory, fullest GPU", show(result.memory.worst.peak_B, BYTES), f"{result.memory.fraction:.1%} of {show(result.memory.capacity_B, BYTES)}"),
        ("utilization", f"{result.utilization:.1%}", show(result.flops_per_token, (0, 0, 1, -1))),
        ("pipeline idle", f"{result.schedule.bubble:.1%}", f"{len(result.graph.stages)} stage{'s' if len(result.graph.stages) > 1 else ''}"),
        ("expert imbalance", f"{result.costs.imbalance:.2f}", "busiest rank over the mean"),
    ]  # fmt: skip
    cards = (tag("div", tag("dt", a), tag("dd", tag("b", b), tag("span", c))) for a, b, c in facts)
    return tag("dl", join(cards), cls="cards")


def _layers(result: PhaseResult) -> Iterator[Markup]:
    """The first kind open, the others folded."""
    found = list(layers.draw(result))
    heaviest = max(range(len(found)), key=lambda k: found[k][1], default=0)
    for k, (name, repeat, drawing) in enumerate(found):
        head = tag("summary", f"{name} × {repeat}")
        yield tag("details", head, drawing, open=k == heaviest, cls="layer-kind")


def _collectives(result: PhaseResult) -> Markup:
    rows: list[Row] = []
    for c in result.collectives:
        if c.kind != "recv":
            kind = tag("span", tag("i", cls=f"sw k-{c.kind}"), c.kind, cls="key")
            rows.append([kind, "+".join(c.axes), c.group_size, c.count, show(c.payload_B, BYTES, 3), show(c.wire_B, BYTES, 3), show(c.time_s, TIME, 3)])  # fmt: skip
    if not rows:
        return tag("p", "None.")
    head = ["collective", "over", "ranks", "calls", "payload of a call", "on the wire", "time"]
    return _table(head, rows, numbers=(2, 3, 4, 5, 6))


def _steps(result: PhaseResult) -> Markup:
    """The same as a table, folded."""
    total = sum(s.time_s for s in result.schedule.path) or 1.0
    rows: list[Row] = []
    for s in result.schedule.path:
        name = f"{s.segment}/{s.op}" if s.segment else s.op
        rows.append([name, s.kind, s.count, show(s.time_s, TIME, 4), f"{s.time_s / total:.1%}", s.bound])
    table = _table(["op", "kind", "times", "time", "share", "bound by"], rows, numbers=(2, 3, 4))
    return tag("details", tag("summary", f"all {len(rows)} ops as a table"), table, cls="raw")


def _timeline(result: PhaseResult) -> Iterator[Markup]:
    yield tag("p", "A rank of each class and stage; numbers are micro-batches, the upper bar computes, the lower communicates.", cls="soft")  # fmt: skip
    yield tracks.draw(result)
    yield legend(tracks.keys(result))
    yield tag("p", "One layer of the heaviest kind, op by op; underlined ops are on the critical path.", cls="soft")
    yield tracks.one_layer(result)


def _buys(result: PhaseResult, buys: Sequence[Sensitivity]) -> Markup:
    if all(abs(s.change) < 0.0005 for s in buys):
        return tag("p", "Nothing of it moves the time by 0.1%.")
    return buys_.draw(result.name, buys)


def _spec(plan: Plan, found: Sequence[Source]) -> Iterator[Markup]:
    loose = [d for d in plan.diagnostics if d.span is None or d.span.source not in found]
    yield from (listing.note(d) for d in loose)
    if plan.spec.params:
        values = ", ".join(f"{k} = {_constant(plan, k)}" for k in plan.spec.params)
        yield tag("p", f"params: {values}", cls="soft")
    for k, source in enumerate(found):
        yield tag("h3", source.name)
        yield listing.draw(source, k, plan.diagnostics)


def _constant(plan: Plan, name: str) -> str:
    value = plan.spec.constants[name]
    return str(value) if isinstance(value, str | bool) else show(value.value, value.dim)


def _assumptions(plan: Plan) -> Iterator[Markup]:
    yield _table(["assumed", "taken as"], list(assumptions(plan)), "assumptions")
    for result in plan.phases.values():
        total = sum(s.time_s for s in result.schedule.path) or 1.0
        yield tag("h3", f"Where the times of {result.name} come from")
        yield tag("p", error_range(result))
        rows: list[Row] = [
            [o.family or "roofline, launch and alpha-beta", f"{o.time_s / total:.1%}", f"{o.error:.1%}" if o.family else "not known", ", ".join(sorted(o.outside))]
            for o in origins(result)
        ]  # fmt: skip
        head = ["source of the time", "share of the critical path", "median error", "beyond the sizes measured"]
        yield _table(head, rows, numbers=(1, 2))
    yield tag("p", "Collectives, shapes, bytes, FLOPs, parameters and memory of weights and cache are exact for the plan as written; times are estimates. Every time has a floor: datasheet peaks, no overhead.")  # fmt: skip


def _footer() -> Markup:
    return tag("footer", f"dagc {__version__}")
