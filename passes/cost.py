"""cost: what one execution of every op takes, per rank by broadcasting (`dagc/cost/price.py`)."""

from __future__ import annotations

from dagc.cost.price import price
from dagc.cost.records import Costs
from dagc.ir.graph import Graph
from dagc.spec.hardware import Hardware
from dagc.spec.unit import Unit


def run(graph: Graph, unit: Unit, hardware: Hardware | None = None) -> Costs:
    """Costs of every op of every segment; `hardware` replaces the spec's (sensitivities)."""
    return price(graph, unit, hardware)
