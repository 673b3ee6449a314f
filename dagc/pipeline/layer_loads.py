"""Whether the loads of experts are those of the model's layers."""

from __future__ import annotations

from ..cost.expert_load import routed_layers
from ..ir.graph import Graph
from ..spec.unit import Unit


def check(graph: Graph, unit: Unit) -> None:
    """E05 where a routed layer has no loads, or loads are of a layer without routed experts. One row without a number is of
    all layers."""
    routing = unit.routing
    if (len(routing.layers) == 1 and not routing.numbers) or not routing.layers:
        return
    routed = routed_layers(graph)
    if not routed:
        return
    span = routing.span or unit.phase.span
    names = ", ".join(map(str, routed[:3])) + (f", ... {routed[-1]}" if len(routed) > 4 else "")
    if not routing.numbers and len(routing.layers) != len(routed):
        unit.out.add(
            "E05", f"the loads are of {len(routing.layers)} layers, the model has {len(routed)} with routed experts",
            span, because=(f"layers with routed experts: {names}",),
            help=("one row is of all layers; a column `layer` says which layer a row is of",),
        )  # fmt: skip
    elif routing.numbers:
        where = dict(zip(routing.numbers, routing.where or map(str, routing.numbers), strict=True))
        wrong = next((n for n in routing.numbers if n not in routed), None)
        missing = next((n for n in routed if n not in where), None)
        if wrong is not None:
            message = f"the loads, {where[wrong]}: layer {wrong} of the model has no routed experts"
            unit.out.add("E05", message, span, because=(f"layers with routed experts: {names}",))
        elif missing is not None:
            message = f"the loads have no row of layer {missing}, which has routed experts"
            one = "a row without a number, alone in its file, is of all layers"
            unit.out.add("E05", message, span, help=(one,) if len(routing.layers) == 1 else ())
    unit.out.check()
