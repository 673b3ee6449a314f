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
    """Graphviz's `dot` is not installed, or cannot write the format."""


def render(text: str, kind: str) -> bytes:
    """SVG, PNG or PDF of DOT text. Raises RendererMissing without Graphviz."""
    import graphviz

    try:
        data: bytes = graphviz.Source(text, engine="dot", format=kind).pipe()
    except graphviz.ExecutableNotFound:
        raise RendererMissing(
            f"{kind} needs Graphviz's `dot`, which is not installed: `apt-get install graphviz`, `dnf install graphviz` "
            "or `brew install graphviz`; DOT output (`--emit dot`, `show -o F.dot`) always works without it"
        ) from None
    except graphviz.CalledProcessError as error:
        last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        raise RendererMissing(
            f"Graphviz's `dot` cannot write {kind}: {''.join(last) or f'exit status {error.returncode}'}; "
            "DOT output (`--emit dot`, `show -o F.dot`) always works"
        ) from None
    return data
