"""Names of rules by which plans are refused, as files and reports have them: made and read here alone."""

from __future__ import annotations

NOT_READY = "exporter not ready"
"""The rule of plans that an engine could run, if files for them were written."""
_ENGINE, _REQUIREMENT, _SEVERAL = "engine ", "requirement: ", " requirements"


def of_engine(engine: str) -> str:
    """The rule of plans that an engine does not run."""
    return f"{_ENGINE}{engine}"


def engine_in(rule: str) -> str | None:
    """The engine that does not run such plans; None of other rules."""
    return rule.removeprefix(_ENGINE) if rule.startswith(_ENGINE) else None


def of_requirement(label: str) -> str:
    """The rule of plans that fail a requirement of a spec."""
    return f"{_REQUIREMENT}{label}"


def requirement_in(rule: str) -> str | None:
    """The requirement that such plans fail; None of other rules."""
    return rule.removeprefix(_REQUIREMENT) if rule.startswith(_REQUIREMENT) else None


def of_several(count: int) -> str:
    """The rule of a plan that fails more than one."""
    return f"{count}{_SEVERAL}"


def several_in(rule: str) -> int | None:
    """How many requirements it fails; None of other rules."""
    count = rule.removesuffix(_SEVERAL)
    return int(count) if count != rule and count.isdigit() else None
