"""Claims beside a plan: what dagc has for each, whether it holds, and the requirement that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import ceil

from ..base.diagnostics import Collector
from ..base.dtypes import DTYPE_BYTES
from ..base.frozen import record, replace
from ..base.source import Source
from ..base.syntax.ast import Comparison, Require
from ..base.syntax.parse import parse
from ..base.units import UNITS, show
from ..plan.require import Verdict, judged
from ..plan.subject import Subject, sequence_cache_B
from ..spec.requirement import Requirement
from .claims import PHASE, SERVE, Claim, Plan, claims
from .equations import numeral
from .words import has, words

HOLDS, FAILS, ARITHMETIC, NOTHING = "holds", "does not hold", "arithmetic only", "nothing to compare"
VERDICTS = (HOLDS, FAILS, ARITHMETIC, NOTHING)
BINARY = {"GB": "GiB", "MB": "MiB", "TB": "TiB"}
EXACT = 0.005
"""How far arithmetic of rounded numbers may be off."""


@record
class Judged:
    """A requirement that was written for a claim: `metric` is its left side. `arithmetic`: it only works out what the document does."""

    metric: str
    text: str
    verdict: Verdict
    arithmetic: bool = False


@record
class Finding:
    """`verdict`: one of VERDICTS; `checks`: what was judged; `reasons`: in words; `refuted`: by the document itself, whose arithmetic is wrong, or
    which misses its own limit."""

    claim: Claim
    verdict: str
    checks: tuple[Judged, ...]
    reasons: tuple[str, ...]
    refuted: bool = False


@record
class Audit:
    """Of a document: `findings` in its order; `more`: lines behind those that were looked at."""

    document: str
    findings: tuple[Finding, ...]
    more: int

    def count(self, verdict: str) -> int:
        return sum(one.verdict == verdict for one in self.findings)

    @property
    def holds(self) -> bool:
        """Nothing that could be compared is otherwise."""
        return not self.count(FAILS) and not self.count(ARITHMETIC)


def audit(source: Source, subject: Subject) -> Audit:
    """Every numeric claim of a document, beside a compiled plan."""
    spec = subject.spec
    kinds = {phase.name: phase.kind for phase in spec.phases if phase.name in subject.phases}
    kinds |= {name: "train" for name in subject.trainings}
    gpus = {len(one.gpus) for one in subject.phases.values()} | {len(one.gpus) for one in subject.trainings.values()}
    found, more = claims(source.text, Plan(kinds, frozenset(gpus)))
    verdicts = _verdicts(subject, [one for claim in found for one in _requirements(claim, subject, found)])
    findings = [_finding(claim, subject, verdicts, found) for claim in found]
    return Audit(source.name, tuple(_repeated(findings)), more)


@record
class _Asked:
    metric: str
    text: str
    group: int
    """Which of the claim's alternatives it belongs to."""
    arithmetic: bool = False


def _requirements(claim: Claim, subject: Subject, found: Sequence[Claim]) -> Iterator[_Asked]:
    """Each alternative of each phase or serving, then arithmetic that names metrics or writes numbers out."""
    for group, template in enumerate(claim.metrics):
        for metric, test in _tests(claim, template, subject):
            yield _Asked(metric, test, group)
            if template == "hardware.memory" and claim.figure.unit in BINARY:  # makers sell 80 GB and mean 80 GiB
                yield _Asked(metric, test.replace(claim.figure.unit, BINARY[claim.figure.unit]), len(claim.metrics))
    if claim.equation is not None:
        yield _Asked(claim.equation.text, _equation(claim), -1, arithmetic=True)
    for metric, test in (*_wholes(claim, subject), *_related(claim, found)):
        yield _Asked(metric, test, -1, arithmetic=True)


def _tests(claim: Claim, template: str, subject: Subject) -> Iterator[tuple[str, str]]:
    model = subject.spec.model
    if template == f"{PHASE}.gpu":
        yield from _ids(claim, subject)
        return
    bound = _bound(claim)
    if "WEIGHT_BYTES" in template:
        if model.weight_dtypes:
            return
        template = template.replace("WEIGHT_BYTES", f"{DTYPE_BYTES[model.weight_dtype]:g} B")
    owners: Sequence[str] = (
        claim.phases if PHASE in template else tuple(subject.servings) if SERVE in template else ("",)
    )
    for owner in owners:
        metric = re.sub(rf"\b(?:{PHASE}|{SERVE})\.", f"{owner}.", template)
        if claim.figure.until is None:
            yield metric, f"{metric} {claim.op} {bound}"
        else:
            yield metric, f"{metric} >= {_plain(claim.figure.value, claim.figure.unit)}"
            yield metric, f"{metric} <= {_plain(claim.figure.until, claim.figure.unit)}"


def _bound(claim: Claim) -> str:
    """The number as a spec writes it; alike is within 5 %, or within half a step of its last digit where that is more."""
    figure = claim.figure
    value = 100 + figure.value if claim.over_even else figure.value
    number = numeral(value)
    text = f"{number}%" if figure.unit == "%" else f"{number} {figure.unit}".strip()
    if claim.op == "~" and figure.value and figure.digits / 2 / value > 0.05:
        text += f" +- {_percent(figure.digits / 2 / value)}"
    return text


def _percent(share: float) -> str:
    """Rounded up to two digits."""
    return f"{ceil(share * 1e4) / 100:g}%"


def _ids(claim: Claim, subject: Subject) -> Iterator[tuple[str, str]]:
    """First and last GPU of the ranks at a place of an axis."""
    figure = claim.figure
    place, last = figure.index or (0, 0)
    for name in claim.phases:
        if name not in subject.phases:
            continue
        degrees = subject.of(name).mesh.degrees
        rest = [axis for axis in words().axes if axis != figure.axis and degrees.get(axis, 1) > 1]
        for id_, far in ((int(figure.value), False), (last, True)):
            others = "".join(f", {axis} = {degrees[axis] - 1 if far else 0}" for axis in rest)
            metric = f"{name}.gpu({figure.axis} = {place}{others})"
            yield metric, f"{metric} == {id_}"


def _equation(claim: Claim) -> str:
    one = claim.equation
    assert one is not None
    value = one.result.value
    written = numeral(value) if one.raw else _plain(value, one.result.unit)
    slack = max(one.result.digits / value, EXACT) if value else EXACT
    return f"{one.text} ~ {written} +- {_percent(slack)}"


def _plain(value: float, unit: str) -> str:
    return f"{numeral(value)}{unit}" if unit == "%" else f"{numeral(value)} {unit}".strip()


def _wholes(claim: Claim, subject: Subject) -> Iterator[tuple[str, str]]:
    """What all GPUs hold together, over the degrees that the document divides by."""
    if not claim.divided or not claim.metrics:
        return
    figure, spec = claim.figure, subject.spec
    for name in claim.phases:
        if name not in subject.phases:
            continue
        if claim.template.endswith("memory.kv_cache"):
            phase = spec.phase(name)
            whole_B = sum(part.sequences for part in phase.as_parts) * sequence_cache_B(
                subject.phases[name], spec, phase.kind
            )
            whole = f"{whole_B / 1e9:.7g} GB"
        elif claim.template.endswith("memory.weights") and not spec.model.weight_dtypes:
            whole = f"model.params_total * {DTYPE_BYTES[spec.model.weight_dtype]:g} B"
        else:
            continue
        over = " * ".join(f"{name}.{axis}" for axis in claim.divided)
        expression = f"{whole} / ({over})"
        yield (
            expression,
            f"{expression} ~ {_plain(figure.value, figure.unit)} +- {_percent(max(EXACT, figure.digits / figure.value))}",
        )


def _related(claim: Claim, found: Sequence[Claim]) -> Iterator[tuple[str, str]]:
    """A figure that is a metric over another of the document: tokens a second that a bandwidth reads the bytes of."""
    figure = claim.figure
    for relation in () if claim.limit else words().relations:
        if figure.of != relation.of or not all(has(figure.near, group) for group in relation.line):
            continue
        by = next((c.figure for c in found if c.figure.of == relation.by and "does not keep" not in c.why), None)
        if by is not None and by.value:
            expression = f"{relation.over} / {_plain(by.value, by.unit)}"
            slack = _percent(max(EXACT, figure.digits / figure.value if figure.value else 0.0))
            yield expression, f"{expression} ~ {_plain(figure.value, figure.unit)} +- {slack}"


def _verdicts(subject: Subject, asked: Sequence[_Asked]) -> dict[str, Verdict]:
    """By the text of the test; what the plan has no metric for, or what compares different units, is left out."""
    requirements = []
    for text in dict.fromkeys(one.text for one in asked):
        test = _parsed(text)
        if test is not None:
            requirements.append(Requirement(text, text, test, None))
    return {v.requirement.label: v for v in judged(subject, requirements)}


def _parsed(text: str) -> Comparison | None:
    out = Collector()
    file = parse(Source("claim", f"moe 1\nrequire {text}\n"), out)
    found = [s for s in file.statements if isinstance(s, Require)]
    return found[0].test if found and not out.items else None


def _finding(claim: Claim, subject: Subject, verdicts: Mapping[str, Verdict], found: Sequence[Claim]) -> Finding:
    asked = [a for a in _requirements(claim, subject, found) if a.text in verdicts]
    groups = sorted({a.group for a in asked if not a.arithmetic})
    first = groups[0] if groups else None
    if (
        len(groups) > 1
        and groups[-1] == len(claim.metrics)
        and not _all(asked, groups[0], verdicts)
        and _all(asked, groups[-1], verdicts)
    ):
        first = groups[-1]
    own = [Judged(a.metric, a.text, verdicts[a.text]) for a in asked if not a.arithmetic and a.group == first]
    worked = [Judged(a.metric, a.text, verdicts[a.text], arithmetic=True) for a in asked if a.arithmetic]
    reasons: list[str] = []
    right = any(one.verdict.passed for one in worked)
    wrong = claim.equation is not None and not claim.equation.right
    if claim.equation is not None:
        right = right or claim.equation.right
        reasons.append(_worked_out(claim))
    reasons += [
        f"{one.metric} is {one.verdict.shown(one.verdict.value)}" for one in worked if one.metric != _text(claim)
    ]
    if claim.total and (parts := _parts(claim, found)):
        sum_ = sum(part.figure.si for part in parts)
        exact = abs(sum_ - claim.figure.si) <= claim.figure.digits * UNITS[claim.figure.unit][0] * (0.5 + 1e-6)
        names = " + ".join(part.figure.text for part in parts)
        reasons.append(f"{names} is {_as(sum_, claim)}{'' if exact else f', not {claim.figure.text}'}")
        right, wrong = right or exact, wrong or not exact
    target = _missed(claim, found)
    if target is not None:
        reasons.append(
            f"{claim.figure.text} is not {target.op} {target.figure.text}, as line {target.figure.line.number} asks"
        )
    refuted = wrong or target is not None
    if own:
        passed = all(one.verdict.passed for one in own)
        verdict = FAILS if refuted else HOLDS if passed else ARITHMETIC if right else FAILS
        if verdict == FAILS and not refuted and not claim.named and not claim.limit:
            has_it = [one.metric for one in own if one.verdict.passed]
            if has_it:
                reasons.append(f"no phase is named: {', '.join(has_it)} has it, others have not")
                verdict = NOTHING
    else:
        reasons.append(claim.why or _lacking(claim, subject))
        verdict = FAILS if refuted else ARITHMETIC if right else NOTHING
    return Finding(claim, verdict, (*own, *worked), tuple(r for r in reasons if r), refuted)


def _all(asked: Sequence[_Asked], group: int, verdicts: Mapping[str, Verdict]) -> bool:
    return all(verdicts[a.text].passed for a in asked if a.group == group)


def _text(claim: Claim) -> str:
    return claim.equation.text if claim.equation is not None else ""


def _worked_out(claim: Claim) -> str:
    one = claim.equation
    assert one is not None
    value = f"{one.value:.6g}" if one.raw else _as(one.value, claim)
    return f"{one.said} is {value}" if one.right else f"{one.said} is {value}, not {one.result.text}"


def _as(value: float, claim: Claim) -> str:
    unit = claim.figure.unit
    if unit == "%":
        return f"{100 * value:.6g}%"
    return show(value, UNITS[unit][1]) if unit else f"{value:.6g}"


def _lacking(claim: Claim, subject: Subject) -> str:
    """Why no metric of the plan could be compared."""
    names = " or ".join(f"`{m}`" for m in claim.metrics)
    if all(SERVE in m for m in claim.metrics) and not subject.servings:
        return f"{names}: the spec simulates no serving"
    if PHASE in claim.template and not claim.phases:
        return f"{names}: the plan has no such phase"
    return f"{names}: the plan has no such figure, or in another unit"


def _parts(claim: Claim, found: Sequence[Claim]) -> list[Claim]:
    """Sizes of parts above a total, in the same list; none where it has others that are not known to be parts."""
    if claim.figure.of != "B" or claim.op != "~":
        return []
    line = claim.figure.line
    before = [c for c in found if c.figure.line.block == line.block and c.figure.line.number < line.number]
    sizes = [c for c in before if c.figure.of == "B" and c.op == "~" and not c.total]
    return sizes if all(f"{PHASE}.memory." in c.template for c in sizes) else []


def _missed(claim: Claim, found: Sequence[Claim]) -> Claim | None:
    """The limit that a value is said to keep and does not: of the same metric, on its line or else the nearest."""
    if claim.limit or not claim.metrics:
        return None
    behind = (c for c in found if c.figure.line is claim.figure.line and c.figure.start > claim.figure.start)
    compared = next(behind, None)
    written = compared is not None and compared.figure.op != "" and compared.figure.of == claim.figure.of
    if not (claim.met or written):
        return None
    limits = [c for c in found if c.limit and c.template == claim.template and c.figure.of == claim.figure.of]
    limits = [c for c in limits if set(c.phases) & set(claim.phases) or not c.phases]
    if not limits:
        return None
    here = claim.figure.line.number
    own = min(limits, key=lambda c: abs(c.figure.line.number - here))
    value, bound = claim.figure.si, own.figure.si
    kept = {"<=": value <= bound, "<": value < bound, ">=": value >= bound, ">": value > bound}[own.op]
    return None if kept else own


def _repeated(findings: Sequence[Finding]) -> Iterator[Finding]:
    """What is only arithmetic on one line is that on others, too, where the same number is said of the same metric."""
    worked: dict[tuple[str, float], int] = {}
    for one in findings:
        if one.verdict == ARITHMETIC and one.claim.metrics:
            worked.setdefault((one.claim.template, one.claim.figure.si), one.claim.figure.line.number)
    for one in findings:
        line = worked.get((one.claim.template, one.claim.figure.si))
        if one.verdict == FAILS and line is not None and not one.claim.limit and not one.refuted:
            yield replace(one, verdict=ARITHMETIC, reasons=(*one.reasons, f"worked out on line {line}"))
        else:
            yield one
