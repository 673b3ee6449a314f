"""Pictures of a phase as files: SVG and DOT are made here, what Graphviz makes needs it installed."""

from __future__ import annotations

from ..base.diagnostics import Diagnostic, SpecError
from ..plan.plan import CompiledPlan
from ..view.draw import views
from ..view.facts.lanes.shown_part import DEFAULT, Choice


def picture(plan: CompiledPlan, phase: str, view: str, *, name: str, choice: Choice = DEFAULT) -> dict[str, bytes]:
    """Raises SpecError with E16 without Graphviz where it is needed."""
    try:
        return {f"{view}.{name}": views.picture(plan, phase, view, name, choice)}
    except views.RendererMissing as error:
        raise SpecError([Diagnostic("E16", str(error))]) from None
