"""The workload and its routing as text."""

from __future__ import annotations

from ...spec.workload import Routing, Workload
from .written import number, shares_text


def workload_text(w: Workload) -> str:
    text = f"sequences = {w.sequences}, prompt = {w.prompt} tok, output = {w.output} tok, routing = {routing_text(w.routing)}"
    return f"workload {{ {text} }}"


def routing_text(routing: Routing) -> str:
    """Loads whose layers have numbers are printed without them: `layer` is a column of a file."""
    if routing.kind == "uniform":
        return routing.kind
    if routing.kind == "loads":
        return f"loads([{', '.join(shares_text(layer) for layer in routing.layers)}])"
    return f"{routing.kind}({shares_text(routing.histogram) if routing.histogram else number(routing.s)})"
