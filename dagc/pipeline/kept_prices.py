"""What passes of a kept graph cost, and what GPUs hold of it, at other sizes: prices are traced, too, where a graph is priced so often that it
is worth it, so that at further sizes costs are one line of arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..base.frozen import mutable, replace
from ..cost.footprint import Memory
from ..cost.records import Costs
from ..ir.graph import Graph
from ..spec.phase import Phase
from ..spec.unit import Unit
from .phase_sizes import OF_LAYOUT

if TYPE_CHECKING:
    from .kept import Numbers, Template

FRESH = 6
"""How often a graph is priced at some sizes before its prices are traced, which takes as long as six of these."""
MOST_RANGES = 4
"""Ranges of sizes that are kept."""
MOST_LOST = 2
"""Times that prices could not be traced, or no range was right, until it is not tried again."""

Found = tuple[Costs, Memory, float]
"""FLOPs are of all micro-batches over all ranks."""
Line = Callable[..., "Found | None"]


def price_key(unit: Unit) -> tuple[Any, ...]:
    """All that costs of a graph follow from beside it and sizes."""
    spec, phase = unit.spec, unit.phase
    own = [getattr(phase, name) for name in OF_LAYOUT if name != "strategy"]
    s = phase.strategy
    scopes = tuple(part.scope for part in phase.parts)
    return *own, s, scopes, unit.routing, spec.hardware, spec.others, spec.pool_links


@mutable
class Prices:
    """Of one graph under one key. `lines`: of ranges of sizes, the last one that was right first."""

    key: tuple[Any, ...]
    lines: list[Line]
    fresh: int = FRESH
    lost: int = 0

    def at(self, template: Template, sizes: Numbers, unit: Unit) -> Found | None:
        """None where the graph had better be priced for itself."""
        from .kept import LOST, numbers_of

        if self.fresh:
            self.fresh -= 1
            return None
        numbers = (*sizes, *numbers_of(unit.phase))
        for line in self.lines:
            found = _result(line, numbers)
            if found is not None:
                self.lines = [line, *(one for one in self.lines if one is not line)]
                return found
        if self.lost >= MOST_LOST:
            return None
        try:
            line = traced(template, numbers, unit)
        except LOST:  # code that takes numbers alone
            self.lost = MOST_LOST
            return None
        self.lost += bool(self.lines)
        self.lines = [line, *self.lines[: MOST_RANGES - 1]]
        return _result(line, numbers)


def _result(line: Line, numbers: Numbers) -> Found | None:
    """None also where the line cannot be followed: all ranks were equal where it was traced, and are not here, or something is 0."""
    from .kept import LOST

    try:
        return line(*numbers)
    except LOST:
        return None


def traced(template: Template, numbers: Numbers, unit: Unit) -> Line:
    """Raises Untraceable."""
    from ..base.traced import Tape
    from ..cost.memory import stage_memory
    from ..cost.price import price
    from .analyse import graph_flops
    from .kept import numbers_of, with_numbers

    tape, count = Tape(tells=True), len(numbers_of(unit.phase))
    given: tuple[Any, ...] = tuple(tape.given(each) for each in numbers)
    phase: Phase = with_numbers(unit.phase, given[-count:])
    own, graph = replace(unit, phase=phase), template.at(given[:-count])
    costs = price(graph, own)
    return tape.maker((costs, stage_memory(graph, costs, own), graph_flops(graph)))


@mutable
class PricesOf:
    """Of the passes of one phase, by their sizes. `template`: of its graph."""

    prices: Prices
    template: Template
    known: dict[Numbers, Found | None]

    def __call__(self, graph: Graph, unit: Unit) -> Found | None:
        """Of a pass; None where it is to be priced for itself."""
        try:
            sizes = self.template.numbers(graph)
        except KeyError:
            return None
        same = zip(self.template.graph.segments, self.template.sizes(sizes), graph.segments, strict=True)
        if not all(own.ops is other.ops and wanted == other.sizes for own, wanted, other in same):
            return None  # of a pass that has sizes of its own
        if sizes not in self.known:
            self.known[sizes] = self.prices.at(self.template, sizes, unit)
        return self.known[sizes]
