"""The registry of views, and Graphviz for everything that is not DOT text."""

from __future__ import annotations

from collections.abc import Callable

from ..plan import Plan
from . import lanes, layer, overview

VIEWS: dict[str, Callable[[Plan, str], str]] = {
    "overview": overview.draw,
    "layer": layer.draw,
    "lanes": lanes.draw,
}


class RendererMissing(RuntimeError):
    """Graphviz's `dot` is not installed."""


def render(text: str, kind: str) -> bytes:
    """SVG, PNG or PDF of DOT text. Raises RendererMissing without Graphviz."""
    import graphviz

    try:
        data: bytes = graphviz.Source(text, engine="dot", format=kind).pipe()
    except graphviz.ExecutableNotFound:
        raise RendererMissing(
            f"{kind} needs Graphviz's `dot`, which is not installed (packages: graphviz on Debian, Fedora and Homebrew); "
            "`--emit dot` and `show -o F.dot` work without it"
        ) from None
    return data
