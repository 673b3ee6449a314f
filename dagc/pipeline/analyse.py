"""What a lowered graph costs, in every pass of its phase."""

from __future__ import annotations

from ..cost import chunks
from ..ir.graph import Graph
from ..passes import cost, schedule
from ..plan.result import Chunk
from ..spec.hardware import Hardware
from ..spec.unit import Unit


def price(graph: Graph, unit: Unit, hardware: Hardware | None = None) -> tuple[Chunk, ...]:
    """Every pass of the phase; `hardware` replaces the spec's (sensitivities)."""
    return tuple(_priced(graph, unit, size, hardware) for size in chunks.sizes(unit.phase))


def whole(graph: Graph, unit: Unit, hardware: Hardware | None = None) -> Chunk:
    """The pass that the graph was lowered for: a whole chunk at the end of the prompt."""
    return _priced(graph, unit, chunks.PassSize(1, unit.phase.tokens, unit.phase.context), hardware)


def _priced(graph: Graph, unit: Unit, size: chunks.PassSize, hardware: Hardware | None) -> Chunk:
    own = graph if size.context == unit.phase.context else chunks.resized(graph, size.tokens, size.context)
    if size.tokens != unit.phase.tokens:
        own = chunks.resized(graph, chunks.divided(graph, size.tokens), size.context)
    costs = cost.run(own, unit, hardware)
    plan = schedule.run(own, costs, unit)
    return Chunk(size.count, size.tokens, size.context, costs, plan, schedule.run(own, costs, unit, floor=True))
