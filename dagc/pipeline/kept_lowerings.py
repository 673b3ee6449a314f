"""Graphs that this process has lowered and verified, for phases of other sizes: who edits a number, or tries several, gets the graph of
the same model and the same passes with other sizes in it.

What is kept is the line of `kept.py`: model and passes are run, and the verifier behind each, on traced sizes. At sizes where all of them
would go the same way the graph is the same, and right for the same reasons; at others it is lowered anew.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import MAX_STEPS, Collector, SpecError
from ..base.frozen import field, mutable, record
from ..base.heard import LISTENERS
from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass
from ..spec.unit import Unit
from . import lower
from .kept_prices import Prices, PricesOf, price_key
from .phase_sizes import OF_LAYOUT
from .statement_places import Places, extents, places_of, tell, texts

if TYPE_CHECKING:
    from ..base.traced import Function
    from .kept import Numbers, Ranges, Template

MOST = 8
"""Models that are kept, and ways to lower each."""
MOST_LOST = 3
"""Times that sizes of a model could not be traced, until it is not tried again."""


@record(slots=False)
class Expanded:
    """The graph of a model, the statements of its ops, and how many steps expressions took."""

    template: Template
    places: Places
    steps: int


@mutable
class Lowerings:
    """Graphs of one model in one kind of phase. `asked`: all that it follows from but sizes; `lowered`: by template and passes;
    `prices`: by lowered template."""

    asked: tuple[Any, ...]
    expanded: Ranges[Expanded] | None = None
    lowered: list[tuple[tuple[Any, ...], Ranges[Template]]] | None = None
    prices: list[Prices] = field(default_factory=list)
    lost: int = 0


_KEPT: list[Lowerings] = []
"""Those that were asked for last first."""


def forget() -> None:
    """For who changes dagc itself while it runs."""
    _KEPT.clear()


def lowered(unit: Unit) -> Graph:
    """The graph behind the last pass, verified: as `lower.lowered` finds it. Raises SpecError."""
    return priced(unit)[0]


def priced(unit: Unit) -> tuple[Graph, PricesOf | None]:
    """The same, and what its passes cost where prices are kept. Raises SpecError."""
    phase = unit.phase
    if MOST == 0 or LISTENERS or phase.strategy.passes or phase.exits or phase.training or unit.out.items:
        return lower.lowered(unit), None
    blocks = extents(unit)
    said = texts(blocks)
    constants = {name: value for name, value in unit.spec.constants.items() if any(name in text for _, text in said)}
    asked = (unit.spec.model, said, constants, *_of_model(unit))
    found = next((one for one in _KEPT if one.asked == asked), None)
    if found is None:  # to be traced is worth it where there are others
        _KEPT.insert(0, Lowerings(asked))
        del _KEPT[MOST:]
        return lower.lowered(unit), None
    _KEPT[:] = [found, *(one for one in _KEPT if one is not found)]
    if found.lost >= MOST_LOST:
        return lower.lowered(unit), None
    from .kept import LOST

    try:
        own, graph, prices = _at(found, unit)
    except (*LOST, SpecError):  # with all that is wrong, once it is lowered for itself
        found.lost += 1
        return lower.lowered(unit), None
    if unit.out.steps + own.steps > MAX_STEPS:
        return lower.lowered(unit), None
    unit.out.steps += own.steps
    tell(unit, blocks, own.places)
    return graph, prices


def _of_model(unit: Unit) -> tuple[Any, ...]:
    """What expanding a model asks of a phase."""
    phase = unit.phase
    own = [getattr(phase, name) for name in OF_LAYOUT if name not in ("name", "strategy", "gpus")]
    scopes = tuple(part.scope for part in phase.parts)
    return *own, scopes, phase.strategy.redundant, phase.batching.ranks if phase.is_packed else 0


def _at(kept: Lowerings, unit: Unit) -> tuple[Expanded, Graph, PricesOf | None]:
    """The graph of a phase at its sizes. Raises Untraceable, SpecError."""
    from ..base.frozen import replace
    from .kept import Ranges, rooms_of

    if kept.expanded is None or kept.lowered is None:
        kept.expanded, kept.lowered = Ranges(lambda numbers: _expanded(unit, numbers)), []
    kept.expanded.trace = lambda numbers: _expanded(unit, numbers)
    sizes, own = kept.expanded.at(rooms_of(unit.phase))
    batching, passes = unit.phase.batching, lower.passes_of(unit)
    way = (own.template, passes, batching.microbatches, batching.lanes)
    ranges = next((each for known, each in kept.lowered if _same(known, way)), None)
    if ranges is None:
        ranges = Ranges(lambda numbers: _lowered(own.template, passes, numbers, unit))
        kept.lowered.insert(0, (way, ranges))
        del kept.lowered[MOST:]
    _, template = ranges.at(sizes)
    graph = replace(template.at(sizes), phase=unit.phase.name)
    if any(h.calibration is not None and os.sep in h.calibration for h in (unit.spec.hardware, *unit.spec.others)):
        return own, graph, None  # files may change
    key = template, price_key(unit)
    prices = next((one for one in kept.prices if _same(one.key, key)), None)
    if prices is None:
        prices = Prices(key, [])
        kept.prices.insert(0, prices)
        del kept.prices[MOST:]
    return own, graph, PricesOf(prices, template, {})


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return a[0] is b[0] and a[1:] == b[1:]


def _expanded(unit: Unit, rooms: Numbers) -> tuple[Function, Expanded]:
    """Raises Untraceable, SpecError."""
    from ..base.traced import Untraceable
    from .kept import expansion

    own = Unit(unit.spec, unit.phase, Collector())
    line, template = expansion(own, rooms)
    places = places_of(own, extents(own))
    if own.out.items or places is None:
        raise Untraceable("what is told of its statements")
    return line, Expanded(template, places, own.out.steps)


def _lowered(
    template: Template, passes: tuple[GraphPass, ...], sizes: Numbers, unit: Unit
) -> tuple[Function, Template]:
    """Lowered by these passes, and verified behind each. Raises Untraceable."""
    from ..base.frozen import replace
    from ..base.traced import Tape, Untraceable
    from ..ir.graph_pass import PassError
    from .kept import Template
    from .observers import Verify, verified
    from .run_passes import run

    tape, batching = Tape(), unit.phase.batching
    model = template.at(tuple(tape.given(each) for each in sizes))
    graph = model = replace(model, microbatches=batching.microbatches, lanes=batching.lanes)
    verified(model, "expand", {})
    by_name = {one.name: one for one in passes}
    try:
        for name, graph in run(passes, model, (Verify(),)):
            if any(True for _ in by_name[name].doubts(graph)):
                raise Untraceable("what a pass doubts")
    except PassError as error:
        raise Untraceable(str(error)) from error
    return tape.function(()), Template(Template(graph, template.slots).at(sizes), template.slots)
