"""What looks on while passes run: the verifier, the doubts of passes, a clock, a printer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from ..base.heard import LISTENERS
from ..base.source import Span
from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass
from ..ir.verify.verify import verify
from ..ir.verify.violation import VerifyError
from ..passes import GRAPH_PASSES
from ..spec.unit import Unit


class Observer:
    """Called around every pass, in the order in which observers are given. May raise; changes nothing."""

    def before(self, one: GraphPass, graph: Graph) -> None:
        """A pass is about to run on the graph."""

    def after(self, one: GraphPass, graph: Graph) -> None:
        """It has made this graph."""


class Verify(Observer):
    """Verifies every graph. `spans`: the statement of the source that each (segment, op) comes from."""

    def __init__(self, spans: Mapping[tuple[str, str], Span] | None = None) -> None:
        self.spans = spans or {}
        self.seen: Graph | None = None

    def before(self, one: GraphPass, graph: Graph) -> None:
        self.seen = graph

    def after(self, one: GraphPass, graph: Graph) -> None:
        if graph is not self.seen:  # else the pass had nothing to change
            ours = type(one) in GRAPH_PASSES  # others could write into what they were given
            verified(graph, one.name, self.spans, self.seen if ours else None)


def verified(graph: Graph, name: str, spans: Mapping[tuple[str, str], Span], before: Graph | None = None) -> None:
    """Raises VerifyError, which says behind which pass the graph is wrong. `before`: that the pass was given, which was verified."""
    try:
        verify(graph, before)
    except VerifyError as error:
        error.behind, error.statement = name, _statement(spans, error.segment, error.op)
        raise


def _statement(spans: Mapping[tuple[str, str], Span], segment: str, op: str) -> tuple[str, ...]:
    """The statement of a block that an op comes from; what a pass made is named after the op that it serves."""
    while (segment, op) not in spans:
        op, dot, _ = op.rpartition(".")
        if not dot:
            return ()
    span = spans[segment, op]
    line, column = span.source.position(span.start)
    return (f"--> {span.source.name}:{line}:{column}", f"{line} | {span.source.line(line).strip()}")


class TellDoubts(Observer):
    """W06 for what passes doubt, at the statements of the ops in question."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def after(self, one: GraphPass, graph: Graph) -> None:
        for doubt in one.doubts(graph):
            self.unit.warn(doubt.segment, doubt.op, doubt.message, because=doubt.because, help=doubt.help)


class Clock(Observer):
    """How long each pass took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started_s = 0.0

    def before(self, one: GraphPass, graph: Graph) -> None:
        self.started_s = time.perf_counter()

    def after(self, one: GraphPass, graph: Graph) -> None:
        self.seconds[one.name] = self.seconds.get(one.name, 0.0) + time.perf_counter() - self.started_s


class Tell(Observer):
    """Tells those who listen how long each pass took, with its verification."""

    def __init__(self, phase: str) -> None:
        self.phase, self.done_s = phase, time.perf_counter()

    def before(self, one: GraphPass, graph: Graph) -> None:
        self.done_s = time.perf_counter()

    def after(self, one: GraphPass, graph: Graph) -> None:
        for listener in LISTENERS:
            listener.took(self.phase, one.name, time.perf_counter() - self.done_s)


class Print(Observer):
    """Writes the graph behind the passes of these names; `all` are all."""

    def __init__(self, names: Collection[str], write: Callable[[str], object]) -> None:
        self.names, self.write = frozenset(names), write

    def after(self, one: GraphPass, graph: Graph) -> None:
        if one.name in self.names or "all" in self.names:
            from ..ir.text.write import print_graph

            self.write(f"# after {one.name}\n{print_graph(graph)}\n")
