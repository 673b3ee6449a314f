"""Phases that this process has compiled, and verified, for specs that say the same of them. Who edits a spec, asks what would help or
serves it in many ways compiles most of it as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, TypeVar

from ..base.diagnostics import MAX_STEPS, Diagnostic
from ..base.frozen import fields_of, record, replace
from ..base.heard import LISTENERS
from ..base.source import Span
from ..spec.factors import neighbours
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from . import kept_lowerings
from .statement_places import Places, extents, places_of, tell, texts

T = TypeVar("T")
MOST = 16
"""Phases that are kept, each with its graph."""
values_of: Callable[[Phase], tuple[Any, ...]] = attrgetter(
    *(name for name in fields_of(Phase) if name not in ("span", "spans"))
)
"""Also what counts in no comparison of phases: a draft model is another one where its file has changed."""

Names = tuple[str, ...]
"""Attributes of a phase that are at one place of a text; none: the phase itself."""


@record
class Kept:
    """`asked`: all that it follows from; `steps`: of its expressions; `places`: of the statement of each (segment, op), in the text of its
    block; `told`: what was doubted, each with the attributes of the phase that it is at."""

    asked: tuple[Any, ...]
    result: Any
    steps: int
    places: Places
    told: tuple[tuple[Names, Diagnostic], ...]


_KEPT: list[Kept] = []
"""The one that was asked for last first."""
PLACED: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
"""The same of specs whose phases are placed best (`kept_placements.py`): all that it follows from, and where ranks are."""


def forget() -> None:
    """For who changes dagc itself while it runs."""
    _KEPT.clear()
    PLACED.clear()
    kept_lowerings.forget()


def keeps(spec: Spec, phases: Iterable[Phase]) -> bool:
    """Whether what follows from these phases of a spec is kept: from files that may change, and passes of other packages, it is not."""
    files = any(h.calibration is not None and os.sep in h.calibration for h in (spec.hardware, *spec.others))
    return not (LISTENERS or files or MOST == 0 or any(phase.strategy.passes for phase in phases))


def kept(unit: Unit, compiled: Callable[[Unit], T]) -> T:
    """What `compiled` finds of a phase, now or before. Raises SpecError."""
    spec, phase, out = unit.spec, unit.phase, unit.out
    if not keeps(spec, (phase,)) or out.items:
        return compiled(unit)
    blocks = extents(unit)
    # Where something is told follows from what is said of a phase, also where that is the default.
    asked = (
        compiled, *values_of(phase), phase.spans.keys(), spec.hardware, spec.model, spec.workload, spec.others, spec.pool_links, spec.constants,
        neighbours(spec, phase), texts(blocks),
    )  # fmt: skip
    found = next((one for one in _KEPT if one.asked == asked), None)
    spots = [] if found is None else [_at(phase, names) for names, _ in found.told]
    if found is not None and out.steps + found.steps <= MAX_STEPS and None not in spots:
        _KEPT[:] = [found, *(one for one in _KEPT if one is not found)]
        out.steps += found.steps
        tell(unit, blocks, found.places)
        for span, (_, diagnostic) in zip(spots, found.told, strict=True):
            out.take(replace(diagnostic, span=span))
        made: T = found.result
        return made
    before = out.steps
    result = compiled(unit)
    told = [(_names(phase, one), one) for one in out.items]
    places = places_of(unit, blocks)
    if places is not None and not any(names is None for names, _ in told):
        kept_told = tuple((names or (), one) for names, one in told)
        _KEPT.insert(0, Kept(asked, result, out.steps - before, places, kept_told))
        del _KEPT[MOST:]
    return result


def _names(phase: Phase, told: Diagnostic) -> Names | None:
    """The attributes that something is told at; None: something else."""
    if told.also or not told.code.startswith("W"):
        return None
    found = tuple(name for name, span in phase.spans.items() if span == told.span)
    return found if found or told.span == phase.span else None


def _at(phase: Phase, names: Names) -> Span | None:
    """None where this phase does not say them, or not in one place."""
    spans = [phase.spans.get(name) for name in names] or [phase.span]
    return spans[0] if all(span == spans[0] for span in spans) else None
