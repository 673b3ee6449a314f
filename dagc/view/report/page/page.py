"""The whole page: the answer and the requirements, then each phase, the spec with its diagnostics, and what is assumed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import PurePath
from string import Template

from ....base.picture_words import Theme
from ....base.source import Source
from ....base.units import BYTE_RATE, BYTES, FLOP_RATE, parameters, show
from ....base.version import VERSION
from ....plan.held_memory import shared_lines
from ....plan.plan import CompiledPlan
from ....plan.result import Sensitivities
from ....spec.hardware import Hardware
from ...draw.figures.looks import page_style, painted
from ...draw.figures.markup import Markup, join, tag, text
from ...draw.figures.svg import legend
from ...draw.palette import SCHEMES, page_theme
from ...facts.findings import assumptions, error_range, origins, pool_link
from ...facts.plan_answer import Answer
from ...facts.plan_answer import answer as answer_of
from ..terminal import workload_words
from . import listing
from .html_tables import Row, table
from .page_sections import Section, anchor_of, gone_through, opening
from .phase import phase


def page(plan: CompiledPlan, sensitivities: Sensitivities, theme: Theme = "auto") -> str:
    """One HTML document. It loads nothing, and its policy forbids loading."""
    sources = listing.sources(plan)
    name = plan_name(plan, sources)
    answer = answer_of(plan)
    sections = list(_sections(plan, answer, sources, sensitivities))
    body = join([opening(name, answer, plan.overflow), *gone_through(sections), _footer()])
    return written(f"{name}: dagc report", body, theme)


def written(title: str, body: Markup, theme: Theme) -> str:
    """The document of a body, with its style, its script and what it may do."""
    look, script = page_theme(theme) + page_style() + asset("page.css"), asset("page.js")
    return Template(asset("page.html")).substitute(
        title=text(title),
        policy=policy(look, script),
        scheme=SCHEMES[theme],
        style=look,
        body=painted(body, theme),
        script=script,
    )


@cache
def asset(name: str) -> str:
    """A template, style sheet or script that ships next to this file."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def policy(look: str, script: str) -> str:
    """Of a page that runs its own script and loads nothing."""
    return (
        f"default-src 'none'; style-src '{_digest(look)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def plan_name(plan: CompiledPlan, found: Sequence[Source]) -> str:
    """The file's name without its ending, or the model's."""
    name = PurePath(found[0].name).stem if found else ""
    return name if name and name not in ("-", "<text>") else plan.spec.model.name


def _facts(plan: CompiledPlan) -> Markup:
    """Model, hardware and workload."""
    model = plan.spec.model
    total, active = plan.params
    stated = "" if model.params_stated is None else f", stated {parameters(model.params_stated)}"
    facts = [
        (
            "model",
            f"{model.name}: {parameters(total)} parameters, {parameters(active)} active{stated}; {model.layers} layers, {model.precision}",
        ),
        *(("hardware", _hardware(own, model.weight_dtype)) for own in plan.spec.pools.values()),
        *((f"link {' to '.join(link.pools)}", pool_link(link)) for link in plan.spec.pool_links),
        ("workload", workload_words(plan)),
    ]
    return tag("dl", join(tag("div", tag("dt", a), tag("dd", b)) for a, b in facts), cls="facts")


def _hardware(own: Hardware, dtype: str) -> str:
    figures = ", ".join(
        (show(own.peak_flops(dtype), FLOP_RATE), show(own.hbm_Bps, BYTE_RATE), show(own.memory_B, BYTES))
    )
    return f"{own.name}: {own.gpus} GPUs, {own.per_node} per node; {figures} each"


def _sections(
    plan: CompiledPlan, answer: Answer, found: Sequence[Source], sensitivities: Sensitivities
) -> Iterator[Section]:
    yield Section("requirements", "Requirements", _requirements(answer, found), "requirements")
    yield Section("plan", "Plan", _facts(plan), "plan")
    for result in plan.phases.values():
        body = join(phase(plan, result, sensitivities[result.name]))
        yield Section(anchor_of("phase", result.name), result.name, body, result.name, "phase")
    if plan.trainings:
        from .trained_section import sections as trained

        yield from trained(plan)
    if plan.spec.others:
        from ...draw.figures import pool_frames

        drawn = pool_frames.draw(plan).framed(), legend(pool_frames.keys(plan))
        yield Section("pools", "Pools of GPUs", join(drawn), "pools")
    if plan.servings:
        from .served import sections

        yield from sections(plan)
    shared = [tag("p", tag("b", f"{head}, the fullest: "), held) for head, held in shared_lines(plan)]
    if shared:
        yield Section("shared", "Shared GPUs", join(shared), "shared GPUs")
    yield Section("spec", "Spec", join(_spec(plan, found)), "spec")
    yield Section("assumptions", "Assumptions and errors", join(_assumptions(plan)), "assumptions")


def _requirements(answer: Answer, found: Sequence[Source]) -> Markup:
    if not answer.requirements:
        return tag("p", "The spec states no requirements.")
    rows: list[Row] = []
    for v in answer.requirements:
        r = v.requirement
        where = listing.anchor(found, r.span)
        label = tag("a", r.label, href=f"#{where}") if where else r.label
        verdict = tag("span", "✓ pass", cls="pass") if v.passed else tag("span", "✗ FAIL", cls="fail")
        rows.append([verdict, label, v.shown(v.value), f"{r.test.op} {v.shown(v.bound)}", v.by])
    return table(["verdict", "requirement", "found", "required", "by"], rows, "verdicts", (2, 3))


def _spec(plan: CompiledPlan, found: Sequence[Source]) -> Iterator[Markup]:
    loose = [d for d in plan.diagnostics if d.span is None or d.span.source not in found]
    yield from (listing.note(d) for d in loose)
    if plan.spec.params:
        values = ", ".join(f"{k} = {_constant(plan, k)}" for k in plan.spec.params)
        yield tag("p", f"params: {values}", cls="soft")
    for k, source in enumerate(found):
        yield tag("h3", source.name)
        yield listing.draw(source, k, plan.diagnostics)


def _constant(plan: CompiledPlan, name: str) -> str:
    value = plan.spec.constants[name]
    return str(value) if isinstance(value, str | bool) else show(value.value, value.dim)


def _assumptions(plan: CompiledPlan) -> Iterator[Markup]:
    yield table(["assumed", "taken as"], list(assumptions(plan)), "assumptions")
    for result in plan.phases.values():
        total = sum(s.time_s for s in result.path) or 1.0
        yield tag("h3", f"Where the times of {result.name} come from")
        yield tag("p", error_range(result))
        rows: list[Row] = [
            [
                o.family or "roofline, launch and alpha-beta",
                f"{o.time_s / total:.1%}",
                f"{o.error:.1%}" if o.family else "not known",
                ", ".join(sorted(o.outside)),
            ]
            for o in origins(result)
        ]
        head = ["source of the time", "share of the critical path", "median error", "beyond the sizes measured"]
        yield table(head, rows, numbers=(1, 2))
    yield tag(
        "p",
        "Collectives, shapes, bytes, FLOPs, parameters and memory of weights and cache are exact for the plan as written; times are estimates. Every time has a floor: datasheet peaks, no overhead.",
    )


def _footer() -> Markup:
    return tag("footer", f"dagc {VERSION}")
