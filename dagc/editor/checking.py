"""What dagc says of a text: first its syntax and spec, which is quick, then the compiled plan with its costs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from ..base.axes import AXES, EXPERT_REPLICA, STAGES
from ..base.diagnostics import Collector, Diagnostic, SpecError, in_order
from ..base.files import Reach, Unreadable
from ..base.frozen import replace
from ..base.source import Span
from ..base.syntax.ast import File
from ..base.syntax.parse import parse
from ..base.units import Quantity, show
from ..lang.elaborate import elaborate
from ..lang.params import Constants
from ..lang.statements import Statements
from ..spec.model import AttrValue
from ..spec.phase import Phase
from ..spec.spec import Spec
from .buffer import Document
from .checked import ERROR, INFORMATION, PLAN, SPEC, SYNTAX, WARNING, Checked, Finding, Note, PhaseFacts, Spot
from .library_files import in_library, named_path, path_of, strings_of, unquoted
from .plan_figures import figures_of, params_of, phase_facts


def check_spec(document: Document) -> Checked:
    """Syntax and spec: milliseconds."""
    out = Collector()
    file = parse(document.source, out)
    return _checked(document, file, out, _spec(document, file, out))


def check_plan(document: Document) -> Checked:
    """All that `dagc check` does."""
    from ..pipeline.compile import compile_spec
    from ..view.facts.plan_answer import answer

    out = Collector()
    file = parse(document.source, out)
    spec = _spec(document, file, out)
    checked = _checked(document, file, out, spec)
    if spec is None:
        return checked
    try:
        plan = compile_spec(spec, out, cures=True)
    except SpecError:
        return replace(checked, findings=_findings(document, in_order(out.items)))
    told = answer(plan)
    return Checked(
        PLAN, _findings(document, in_order(plan.diagnostics)), checked.constants, checked.attributes,
        {name: phase_facts(plan, name, facts) for name, facts in checked.phases.items()},
        params_of(plan), figures_of(plan), told.verdict, told.limits,
    )  # fmt: skip


def check_syntax(document: Document) -> Checked:
    """Of a text that is too long, or that belongs to the library."""
    out = Collector()
    parse(document.source, out)
    return Checked(SYNTAX, _findings(document, out.items))


def _spec(document: Document, file: File, out: Collector) -> Spec | None:
    """The spec, or None after all that is wrong was reported."""
    allowed = document.settings.allow_import
    try:
        if document.path is not None and os.path.islink(document.path):
            # As for the command line, a link leads nowhere out of its project.
            Reach.of(document.path, allowed).find(os.path.abspath(document.path))
        reach = Reach.of(None if document.path is None else document.folder / Path(document.path).name, allowed)
    except Unreadable as error:
        out.add("E05", f"cannot read `{document.name}`: {error}", help=error.help)
        return None
    try:
        return elaborate(file, out, settings=document.settings.params, reach=reach)
    except SpecError:
        return None


def _checked(document: Document, file: File, out: Collector, spec: Spec | None) -> Checked:
    findings = _findings(document, in_order(out.items))
    if spec is None:
        return Checked(SPEC, findings, _constants(document, file))
    constants = {name: _shown(value) for name, value in spec.constants.items()}
    attributes = {name: _shown(value) for name, value in spec.model.attributes.items()}
    attributes |= {"dtype": spec.model.dtype, "weight_dtype": spec.model.weight_dtype, "layers": str(spec.model.layers)}
    attributes |= {"kv_dtype": spec.model.kv_dtype, "attention_dtype": spec.model.attention_dtype}
    phases = {
        p.name: PhaseFacts(p.kind, p.gpu_count, product_of(p), experts_of(p)) for p in (*spec.phases, *spec.trainings)
    }
    return Checked(SPEC, findings, constants, attributes, phases)


def _constants(document: Document, file: File) -> dict[str, str]:
    """Values of params and lets in a spec that is wrong elsewhere."""
    out = Collector()
    try:
        statements = Statements(out, Reach.of(document.path, document.settings.allow_import))
    except Unreadable:
        return {}
    statements.gather(file, document.folder, ())
    constants = Constants(statements.lets, out, statements.failed)
    constants.read({name: text for name, text in document.settings.params.items() if name in statements.lets})
    return {name: _shown(value) for name, value in constants.values.items()}


def product_of(phase: Phase) -> str:
    """Degrees whose product is the number of GPUs: `pp 4 x ep 4 x tp 2 = 32 GPUs`."""
    strategy = phase.strategy
    flat = {axis: int(getattr(strategy, axis)) for axis in AXES}
    own = flat if strategy.attention is None else {STAGES: strategy.pp, **dict(strategy.attention.degrees)}
    return _product({"replicas": strategy.replicas, **own}, len(phase.gpus))


def experts_of(phase: Phase) -> str:
    """The same of the experts, where their degrees are not those of attention."""
    strategy = phase.strategy
    if strategy.experts is None:
        return ""
    gpus = len(phase.gpus if strategy.apart is None else strategy.apart.gpus)
    whole, written = {"replicas": strategy.replicas, STAGES: strategy.pp}, dict(strategy.experts.degrees)
    copies = gpus // prod((*whole.values(), *written.values()))  # what is left of a stage has the same experts again
    return _product({**whole, EXPERT_REPLICA: copies, **written}, gpus)


def _product(degrees: Mapping[str, int], gpus: int) -> str:
    factors = " x ".join(f"{axis} {n}" for axis, n in degrees.items() if n > 1) or "1"
    return f"{factors} = {gpus} GPU{'s' if gpus > 1 else ''}"


def _shown(value: AttrValue) -> str:
    if isinstance(value, Quantity):
        return show(value.value, value.dim)
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- findings --------------------------------------------------------------------------------------


def _findings(document: Document, diagnostics: Sequence[Diagnostic]) -> tuple[Finding, ...]:
    fragment = _is_fragment(document)
    return tuple(_finding(document, d, fragment) for d in diagnostics)


def _is_fragment(document: Document) -> bool:
    """A file without a phase is one that others import, or a beginning: what it lacks is no error of its own."""
    return in_library(document) or not any(s.word == "phase" for s in document.statements)


def _finding(document: Document, d: Diagnostic, fragment: bool) -> Finding:
    severity = WARNING if d.severity == "warning" else ERROR
    if d.code == "E19" or (fragment and d.code == "E10" and d.message.startswith("the spec has no ")):
        severity = INFORMATION
    spot, also = _spot(document, d.span), [Note(_spot(document, label.span), label.text) for label in d.also]
    if spot.path:
        also.insert(0, Note(spot, d.label or "here"))
        spot = _named_at(document, spot.path)
    return Finding(d.code, severity, d.message, spot, d.label, tuple(also), d.because, d.help)


def _spot(document: Document, span: Span | None) -> Spot:
    if span is None:
        end = document.text.find("\n")
        return Spot(0, end if end >= 0 else len(document.text))
    path = "" if span.source.name == document.name else path_of(span.source, document)
    if path is None:  # `--set`, whose text is in no file
        return _spot(document, None)
    if not path:
        return Spot(min(span.start, len(document.text)), min(span.end, len(document.text)))
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    return Spot(span.start, span.end, path, line - 1, column - 1, end_line - 1, end_column - 1)


def _named_at(document: Document, path: str) -> Spot:
    """Where the document names another file, or brings it in by one that it names."""
    named = [(named_path(document, kind, unquoted(t)), t) for kind, t in strings_of(document.statements)]
    token = next((t for found, t in named if found == path), named[0][1] if named else None)
    return _spot(document, None) if token is None else Spot(token.start, token.end)
