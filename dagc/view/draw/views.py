"""The registry of views: SVG is drawn here and made PNG and PDF; without a program for that Graphviz draws what has DOT text."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from ...base.picture_words import TRAINING_DOT_VIEWS, Theme
from ...plan.plan import CompiledPlan
from ..facts.lanes.shown_part import DEFAULT, Choice
from . import lane_digraph as digraph
from . import layer_digraph, overview, step_layers
from .renderers import RendererMissing, installed, printed

VIEWS: dict[str, Callable[[CompiledPlan, str, Choice], str]] = {
    "overview": lambda plan, phase, choice: overview.draw(plan, phase),
    "layer": lambda plan, phase, choice: (step_layers.dot if phase in plan.trainings else layer_digraph.draw)(
        plan, phase
    ),
    "lanes": digraph.draw,
}
"""Views that have DOT text. `lanes` alone heeds the choice."""


def dot(plan: CompiledPlan, phase: str, view: str, choice: Choice = DEFAULT) -> str:
    """DOT text of a view."""
    return VIEWS[view](plan, phase, choice)


def _in_dot(plan: CompiledPlan, phase: str, view: str) -> bool:
    return view in (TRAINING_DOT_VIEWS if phase in plan.trainings else VIEWS)


def picture(
    plan: CompiledPlan, phase: str, view: str, kind: str, choice: Choice = DEFAULT, theme: Theme = "auto"
) -> bytes:
    """A view as `kind`: svg is drawn here, png and pdf are made of it, dot is Graphviz's input. Raises RendererMissing."""
    if kind == "dot":
        return dot(plan, phase, view, choice).encode()
    from .figures.standalone import svg

    if kind != "svg" and _in_dot(plan, phase, view) and theme != "dark" and shutil.which("dot") and not installed():
        return render(dot(plan, phase, view, choice), kind)
    drawn = svg(plan, phase, view, choice, theme)
    return drawn.encode() if kind == "svg" else printed(drawn, kind)


def render(text: str, kind: str) -> bytes:
    """PNG, PDF or what else Graphviz makes of DOT text. Raises RendererMissing without Graphviz."""
    import graphviz

    try:
        data: bytes = graphviz.Source(text, engine="dot", format=kind).pipe()
    except graphviz.ExecutableNotFound:
        raise RendererMissing(
            f"{kind} needs Graphviz's `dot`, which is not installed: `apt-get install graphviz`, `dnf install graphviz` "
            "or `brew install graphviz`; DOT and SVG work without it"
        ) from None
    except graphviz.CalledProcessError as error:
        last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        raise RendererMissing(
            f"Graphviz's `dot` cannot write {kind}: {''.join(last) or f'exit status {error.returncode}'}; "
            "DOT and SVG are made without it"
        ) from None
    return data
