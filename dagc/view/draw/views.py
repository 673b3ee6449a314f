"""The registry of views: SVG is drawn here, DOT text goes to Graphviz for everything else."""

from __future__ import annotations

from collections.abc import Callable

from ...plan.plan import CompiledPlan
from ..facts.lanes.shown_part import DEFAULT, Choice
from . import lane_digraph as digraph
from . import layer_digraph, overview

VIEWS: dict[str, Callable[[CompiledPlan, str, Choice], str]] = {
    "overview": lambda plan, phase, choice: overview.draw(plan, phase),
    "layer": lambda plan, phase, choice: layer_digraph.draw(plan, phase),
    "lanes": digraph.draw,
}
"""Views that have DOT text. `lanes` alone heeds the choice."""


def dot(plan: CompiledPlan, phase: str, view: str, choice: Choice = DEFAULT) -> str:
    """DOT text of a view."""
    return VIEWS[view](plan, phase, choice)


def picture(plan: CompiledPlan, phase: str, view: str, kind: str, choice: Choice = DEFAULT) -> bytes:
    """A view as `kind`: svg is drawn here, dot is Graphviz's input, everything else its output (RendererMissing)."""
    if kind == "svg":
        from .figures.standalone import svg

        return svg(plan, phase, view, choice).encode()
    text = dot(plan, phase, view, choice)
    return text.encode() if kind == "dot" else render(text, kind)


class RendererMissing(RuntimeError):
    """Graphviz's `dot` is not installed, or cannot write the format."""


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
