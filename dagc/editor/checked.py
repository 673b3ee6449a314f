"""What a check of a text found, as plain values: answers come from another process, and outlive the text that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.frozen import field, record
from ..base.harmless import harmless
from .buffer import moved

SYNTAX, SPEC, PLAN = "syntax", "spec", "plan"
"""How far a check went."""
ERROR, WARNING, INFORMATION = "error", "warning", "information"


@record
class Spot:
    """Characters of a file: the document's own where `path` is empty. Lines and columns from 0, in characters."""

    start: int
    end: int
    path: str = ""
    line: int = 0
    column: int = 0
    end_line: int = 0
    end_column: int = 0


@record
class Note:
    """A place that belongs to a finding, and why."""

    spot: Spot
    text: str


@record
class Finding:
    """A diagnostic, at a place of the document."""

    code: str
    severity: str
    message: str
    spot: Spot
    label: str = ""
    also: tuple[Note, ...] = ()
    because: tuple[str, ...] = ()
    help: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it in lines."""
        first = self.message + (f" ({self.label})" if self.label else "")
        lines = [first, *self.because, *(f"help: {line}" for line in self.help)]
        return "\n".join(map(harmless, lines))


@record
class PhaseFacts:
    """Of a phase, as people read it. `product`: its degrees, as `pp 4 x tp 2 = 8 GPUs`; `experts`: those of the experts,
    where they have their own; `cost`: what it takes, on one line; `figures`:
    name -> value of its metrics."""

    kind: str
    gpus: int
    product: str
    experts: str = ""
    cost: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)


@record
class Checked:
    """`stage`: how far it went; `constants`, `attributes`: values of params and lets, and of the model, as shown; `figures`: metrics
    of what is no phase (`hardware.gpus`, `chat.ttft.p99`); `verdict`: whether the plan holds, in a line; `limits`: what limits it."""

    stage: str
    findings: tuple[Finding, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, PhaseFacts] = field(default_factory=dict)
    params: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    verdict: str = ""
    limits: tuple[str, ...] = ()


NOTHING = Checked(SYNTAX)


def kept(before: Checked, text: str, now: Checked, later: str) -> tuple[Finding, ...]:
    """Findings of an earlier compiled plan that the quick check of a later text cannot have, where their text is the same."""
    known = {(f.code, f.message) for f in now.findings}
    found = []
    for f in before.findings:
        start, end = moved(f.spot.start, text, later), moved(f.spot.end, text, later)
        if (
            (f.code, f.message) in known
            or start is None
            or end is None
            or text[f.spot.start : f.spot.end] != later[start:end]
        ):
            continue
        found.append(Finding(f.code, f.severity, f.message, Spot(start, end), f.label, (), f.because, f.help))
    return tuple(found)


def to_plain(checked: Checked) -> dict[str, Any]:
    """As JSON has it."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        if isinstance(value, (Spot, Note, Finding, PhaseFacts, Checked)):
            names = type(value).__dataclass_fields__
            return {name: plain(getattr(value, name)) for name in names}
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    found: dict[str, Any] = plain(checked)
    return found


def from_plain(data: Mapping[str, Any]) -> Checked:
    findings = tuple(
        Finding(**{
            **f, "spot": Spot(**f["spot"]), "also": tuple(Note(Spot(**n["spot"]), n["text"]) for n in f["also"]),
            "because": tuple(f["because"]), "help": tuple(f["help"]),
        })
        for f in data["findings"]
    )  # fmt: skip
    phases = {name: PhaseFacts(**facts) for name, facts in data["phases"].items()}
    return Checked(**{**data, "findings": findings, "phases": phases, "limits": tuple(data["limits"])})
