"""Phases that this process has compiled, and verified, for specs that say the same of them. Who edits a spec, asks what would help or
serves it in many ways compiles most of it as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..base.diagnostics import MAX_STEPS, Diagnostic
from ..base.frozen import record, replace
from ..base.heard import LISTENERS
from ..base.source import Span
from ..spec.factors import neighbours
from ..spec.phase import Phase
from ..spec.unit import Unit

T = TypeVar("T")
MOST = 16
"""Phases that are kept, each with its graph."""
LIBRARY = "library/"
"""How names of the sources begin whose statements are always where they are."""


@record
class Kept:
    """`asked`: all that it follows from; `steps`: of its expressions; `told`: what was doubted, each with the attribute of the phase that it is
    at."""

    asked: tuple[Any, ...]
    result: Any
    steps: int
    spans: Mapping[tuple[str, str], Span]
    told: tuple[tuple[str, Diagnostic], ...]


_KEPT: list[Kept] = []
"""The one that was asked for last first."""


def forget() -> None:
    """For who changes dagc itself while it runs."""
    _KEPT.clear()


def kept(unit: Unit, compiled: Callable[[Unit], T]) -> T:
    """What `compiled` finds of a phase, now or before. Raises SpecError."""
    spec, phase, out = unit.spec, unit.phase, unit.out
    files = any(h.calibration is not None and os.sep in h.calibration for h in (spec.hardware, *spec.others))
    if LISTENERS or files or phase.strategy.passes or out.items or MOST == 0:
        return compiled(unit)
    # `chunk` as it is written counts in no comparison of phases.
    asked = (
        compiled, phase, phase.chunk, spec.hardware, spec.model, spec.workload, spec.others, spec.pool_links, spec.constants,
        neighbours(spec, phase),
    )  # fmt: skip
    found = next((one for one in _KEPT if one.asked == asked), None)
    places = [] if found is None else [_at(phase, name) for name, _ in found.told]
    if found is not None and out.steps + found.steps <= MAX_STEPS and None not in places:
        _KEPT[:] = [found, *(one for one in _KEPT if one is not found)]
        out.steps += found.steps
        unit.spans.update(found.spans)
        for span, (_, diagnostic) in zip(places, found.told, strict=True):
            out.take(replace(diagnostic, span=span))
        made: T = found.result
        return made
    before = out.steps
    result = compiled(unit)
    told = [(_name(phase, one), one) for one in out.items]
    # A text of one's own has its statements elsewhere when it has changed.
    own = all(span.source.name.startswith(LIBRARY) for span in unit.spans.values())
    if own and not any(name is None for name, _ in told):
        spans = dict(unit.spans)
        _KEPT.insert(0, Kept(asked, result, out.steps - before, spans, tuple((str(name), one) for name, one in told)))
        del _KEPT[MOST:]
    return result


def _name(phase: Phase, told: Diagnostic) -> str | None:
    """The attribute that something is told at; nothing: the phase; None: something else."""
    if told.also or not told.code.startswith("W"):
        return None
    if told.span == phase.span:
        return ""
    return next((name for name, span in phase.spans.items() if span == told.span), None)


def _at(phase: Phase, name: str) -> Span | None:
    """None where this phase does not say it."""
    return phase.spans.get(name) if name else phase.span
