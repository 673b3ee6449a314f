"""An audit as lines for people, as an object for programs, and as requirements of a spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..base.harmless import shortened
from ..base.source import Source
from ..base.syntax.format import format_source
from ..base.units import SCALAR, unit_name
from .claims import Claim
from .judged_claims import ARITHMETIC, FAILS, HOLDS, NOTHING, Audit, Finding, Judged

SCHEMA = 1
QUOTED = 160
"""Characters of a line that are quoted."""
LABELLED = 60


def text(audit: Audit, *, whole: bool = True) -> list[str]:
    """Lines of the report: each line of the document that claims something, its numbers with their verdicts; then the count.
    `whole`: also what holds and what cannot be compared."""
    out: list[str] = []
    number = 0
    for one in audit.findings:
        if not whole and one.verdict in (HOLDS, NOTHING):
            continue
        figure = one.claim.figure
        if figure.line.number != number:
            number = figure.line.number
            out += [*([""] if out else []), f"line {number}: {shortened(figure.line.text, QUOTED)}"]
        out.append(f"  {one.verdict}: {figure.text}{_beside(one)}")
    return [*out, *([""] if out else []), summary(audit)]


def summary(audit: Audit) -> str:
    """`86 claims: 43 hold, 20 do not hold, 13 arithmetic only, 10 with nothing to compare`"""
    if not audit.findings:
        return f"{audit.document}: no numeric claims"
    count = {verdict: audit.count(verdict) for verdict in (HOLDS, FAILS, ARITHMETIC, NOTHING)}
    more = f"; {audit.more:,} more lines were not looked at" if audit.more else ""
    return (
        f"{audit.document}: {_of(len(audit.findings), 'claim')}: {_verb(count[HOLDS], 'hold')}, {_not(count[FAILS])}, "
        f"{count[ARITHMETIC]} arithmetic only, {count[NOTHING]} with nothing to compare{more}"
    )


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _verb(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count == 1 else ''}"


def _not(count: int) -> str:
    return f"{count:,} do{'es' if count == 1 else ''} not hold"


def _beside(one: Finding) -> str:
    own = [j for j in one.checks if not j.arithmetic]
    mixed = len({j.verdict.passed for j in own}) > 1
    parts = [
        f"{j.text} ({j.verdict.shown(j.verdict.value)}{': no' if mixed and not j.verdict.passed else ''})" for j in own
    ]
    parts += one.reasons
    how = found_by(one.claim)
    return "".join(f"; {part}" if k else f" - {part}" for k, part in enumerate(parts)) + (f" [{how}]" if how else "")


def found_by(claim: Claim) -> str:
    """By which words a metric was chosen, and where the phase is named."""
    parts = [f"by {', '.join(f'`{word}`' for word in claim.words.split(', '))}"] if claim.words else ["by its unit"]
    if "PHASE" in claim.template:
        parts.append(f"phase by {claim.named}" if claim.named else "no phase is named: every one that has it")
    return "; ".join(parts) if claim.metrics else ""


def requirements(audit: Audit) -> Iterator[str]:
    """`require` lines of what could be judged, formatted; each test once."""
    seen: set[str] = set()
    for one in audit.findings:
        own = [j for j in one.checks if not j.arithmetic]
        for judged in one.checks:
            if judged.text in seen:
                continue
            seen.add(judged.text)
            yield _required(one.claim, judged, several=len(own) > 1)


def _required(claim: Claim, judged: Judged, *, several: bool) -> str:
    figure = claim.figure
    said = "".join(c for c in figure.text if c not in '"\\').strip()
    if figure.number == figure.text and claim.template:  # a bare number says little
        said = f"{claim.template.rpartition('.')[2]} {said}"
    owner = judged.metric.partition(".")[0] if several and not judged.arithmetic else ""
    label = f"line {figure.line.number}: {shortened(said, LABELLED)}"
    label += ", as arithmetic" if judged.arithmetic else f", {owner}" if owner in claim.phases else ""
    return f'require "{label}" {judged.text}'


def appended(source: Source, audit: Audit) -> str:
    """A spec with the requirements that it does not have yet at its end, under a comment that says where they are from."""
    known = {line.partition('" ')[2] for line in source.text.split("\n") if line.startswith('require "')}
    lines = [line for line in map(formatted, requirements(audit)) if line.partition('" ')[2] not in known]
    if not lines:
        return source.text
    name = "".join(c for c in audit.document if c.isprintable())
    return "\n".join([source.text.rstrip("\n"), "", f"# What {name} claims.", *lines, ""])


def formatted(line: str) -> str:
    """As `dagc fmt` writes it."""
    return format_source(Source("claim", f"moe 1\n\n{line}\n")).split("\n")[2]


def plain(audit: Audit, against: str) -> dict[str, Any]:
    """As audit.schema.json describes it; values are in SI units."""
    return {
        "schema": SCHEMA,
        "document": audit.document,
        "against": against,
        "holds": audit.holds,
        "counts": {verdict: audit.count(verdict) for verdict in (HOLDS, FAILS, ARITHMETIC, NOTHING)},
        "more": audit.more,
        "claims": [row(one) for one in audit.findings],
    }


def row(one: Finding) -> dict[str, Any]:
    """One claim."""
    claim, figure = one.claim, one.claim.figure
    return {
        "line": figure.line.number,
        "quote": shortened(figure.line.text, QUOTED),
        "text": figure.text,
        "value": figure.si,
        "unit": figure.unit,
        "metric": claim.template or None,
        "limit": claim.limit,
        "words": [word for word in claim.words.split(", ") if word],
        "phase_by": claim.named or None,
        "verdict": one.verdict,
        "reasons": list(one.reasons),
        "checks": [
            {
                "metric": j.metric,
                "value": j.verdict.value,
                "bound": j.verdict.bound,
                "unit": unit_name(j.verdict.dim) if j.verdict.dim != SCALAR else "1",
                "passed": j.verdict.passed,
                "arithmetic": j.arithmetic,
                "require": _required(claim, j, several=len([c for c in one.checks if not c.arithmetic]) > 1),
            }
            for j in one.checks
        ],
    }
