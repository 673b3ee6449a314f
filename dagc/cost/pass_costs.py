"""pass_costs: what the passes of a phase share: each has its own new tokens and context, which few of its ops ask for.

Which sizes a cost asks for is noted while it is found: of a pass in which these are the same, the cost is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..base.frozen import replace
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.noted_sizes import NotedSizes
from ..ir.op import Op
from ..ir.ops.op_set import counted
from ..ir.segment import Segment

if TYPE_CHECKING:
    from .expert_load import ExpertLoad
    from .measured import Measured

T = TypeVar("T")
Key = tuple[Hashable, ...]


class Found(NamedTuple):
    """`given`: what it follows from beside the graph, each the very same; `asked`: dimensions, in whichever segment."""

    result: Any
    given: tuple[object, ...]
    asked: frozenset[str]


class PassCosts:
    """Of graphs that differ in sizes alone, of one phase on one hardware."""

    def __init__(self) -> None:
        self.found: dict[Key, Found] = {}
        self.sizes: tuple[Mapping[str, float], ...] | None = None
        self.asked: set[str] = set()

    def begin(self, graph: Graph) -> Graph:
        """The graph of the next pass, which notes the sizes that it is asked for. What asked for some that the pass before had otherwise is
        forgotten."""
        sizes = tuple([segment.sizes for segment in graph.segments])
        if self.sizes is not None:
            others = differing(self.sizes, sizes)
            self.found = {key: one for key, one in self.found.items() if one.asked.isdisjoint(others)}
        self.sizes = sizes
        return replace(graph, segments=tuple([self._noting(segment) for segment in graph.segments]))

    def _noting(self, segment: Segment) -> Segment:
        own = segment.with_sizes(NotedSizes(segment.sizes, self._note))
        own.__dict__["flops"] = Counted(self, own)
        return own

    def _note(self, dim: str) -> None:
        self.asked.add(dim)

    def once(self, key: Key, make: Callable[[], T], *given: object) -> T:
        """What is made of the graph of this pass, or was of that of one before. `given`: all that it follows from beside the graph."""
        known = self.found.get(key)
        if known is None or not same(known.given, given):
            before, self.asked = self.asked, set()
            try:
                result = make()
            finally:
                asked, self.asked = self.asked, before
            known = self.found[key] = Found(result, given, frozenset(asked))
        self.asked |= known.asked
        found: T = known.result
        return found

    def of(self, segment: Segment, mesh: Mesh) -> SegmentPasses:
        return SegmentPasses(self, segment, mesh)


class SegmentPasses:
    """Of one segment: what gathers times of measured kernels asks for its ops by name (`kept_costs.py` knows those of other plans)."""

    def __init__(self, passes: PassCosts, segment: Segment, mesh: Mesh) -> None:
        self.passes, self.dimensions = passes, len(mesh.atoms)
        self.even: Key = (segment.name,)
        self.placed: Key = self.even

    def split(self, op: Op) -> Key:
        return (op.name,)

    def placed_split(self, op: Op) -> Key:
        return (op.name,)

    def times(
        self, key: Key, make: Callable[[], dict[str, Measured]], load: ExpertLoad | None = None
    ) -> dict[str, Measured]:
        from .measured import over_dimensions  # a plan without a calibration needs no families

        return self.passes.once(("times", *key), lambda: over_dimensions(make(), self.dimensions), load)


class Counted:
    """FLOPs of the ops of a segment."""

    def __init__(self, passes: PassCosts, segment: Segment) -> None:
        self.passes, self.segment = passes, segment

    def get(self, name: str, /) -> tuple[Op, float] | None:
        op = self.segment.by_name.get(name)
        if op is None:
            return None
        return op, self.passes.once(("flops", self.segment.name, name), partial(counted, self.segment, op))

    def __setitem__(self, name: str, found: tuple[Op, float], /) -> None:
        """Of another op of that name: nothing keeps it."""


def same(some: tuple[object, ...], others: tuple[object, ...]) -> bool:
    """Each the very same."""
    return all(a is b for a, b in zip(some, others, strict=True))


def differing(some: tuple[Mapping[str, float], ...], others: tuple[Mapping[str, float], ...]) -> set[str]:
    """Dimensions that have other sizes in any segment, whichever part of a step they are of."""
    found: set[str] = set()
    for own, other in zip(some, others, strict=True):
        found.update(own.keys() ^ other.keys())
        found.update(dim for dim, size in own.items() if other.get(dim) != size)
    return found | {dim.rpartition(":")[2] for dim in found}
