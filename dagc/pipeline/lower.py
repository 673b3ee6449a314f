"""A phase of a spec as a graph, lowered pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from ..base.heard import LISTENERS, timed
from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass, PassError
from ..spec.unit import Unit
from .observers import Observer, Tell, TellDoubts, Verify, verified
from .run_passes import run


def lower(unit: Unit, observers: Sequence[Observer] = ()) -> Iterator[tuple[str, Graph]]:
    """The model graph, then every graph pass, those of plugins after the one that they follow, yielding (pass name, graph
    after it), each verified. Raises SpecError where the phase has no graph."""
    from ..lang.expand import expand
    from .strategy import lowering

    try:
        added = plugin_passes(unit.phase.strategy.passes)
        with timed(unit.phase.name, "expand"):
            graph = expand.run(unit)
            verified(graph, "expand", unit.spans)
        yield "expand", graph
        if LISTENERS:
            observers = (*observers, Tell(unit.phase.name))
        yield from run(lowering(unit, added), graph, (TellDoubts(unit), Verify(unit.spans), *observers))
    except PassError as error:
        stop(unit, error)


def passes_of(unit: Unit) -> tuple[GraphPass, ...]:
    """The graph passes of a phase, with their options. Raises SpecError."""
    from .strategy import lowering

    try:
        return lowering(unit, plugin_passes(unit.phase.strategy.passes))
    except PassError as error:
        stop(unit, error)


def lowered(unit: Unit) -> Graph:
    """The graph behind the last pass."""
    *_, (_, graph) = lower(unit)
    return graph


def unverified(unit: Unit) -> Graph:
    """The same without the verifier and what passes doubt: for many candidates, of which those that matter are compiled."""
    from ..lang.expand import expand

    try:
        *_, (_, graph) = run(passes_of(unit), expand.run(unit))
    except PassError as error:
        stop(unit, error)
    return graph


def plugin_passes(names: tuple[str, ...]) -> dict[str, list[GraphPass]]:
    """By the pass that they follow; entry points are read only for a phase that asks for some."""
    if not names:
        return {}
    from .plugins import asked

    return asked(names)


def stop(unit: Unit, error: PassError) -> NoReturn:
    """Report the error at the attribute of the phase, or the statement of the op, where a pass stopped."""
    from ..passes.reshard import NoLayout
    from .plugins import PluginFault

    phase = unit.phase
    span = unit.spans.get(error.where) or phase.spans.get(error.at) or phase.span
    by_rule = isinstance(error, NoLayout) and phase.strategy.shard
    help = ("give the dimensions other names, or take them out of `shard`",) if by_rule else ()
    code = "E17" if isinstance(error, PluginFault) else "E03"
    unit.out.add(code, str(error), span, because=error.because, help=(*error.help, *help))
    unit.out.check()
    raise AssertionError(f"{code} is not an error")
