"""pass_costs: what the passes of a phase share: each has its own new tokens and context, which few of its ops ask for.

Which sizes a cost asks for is noted while it is found: of a pass in which these are the same, the cost is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any, TypeVar

from ..base.frozen import replace
from ..ir.entries import follows
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.naming import scope_and_dim
from ..ir.noted_sizes import NotedSizes
from ..ir.op import Op
from ..ir.ops.op_set import counted, flops
from ..ir.segment import Segment

if TYPE_CHECKING:
    from .expert_load import ExpertLoad
    from .measured import Measured

T = TypeVar("T")
TOKENS = ("seq", "context")
Key = tuple[Hashable, ...]


Found = tuple[Any, tuple[object, ...], frozenset[str]]
"""A result; what it follows from beside the graph, each the very same; the dimensions that it asks for, in whichever segment."""


class PassSizes(NotedSizes):
    """Also of dimensions that follow from others: such a one may be as large as before where these are not. `apart`: those that some scope has
    otherwise."""

    __slots__ = ("apart", "passes", "plain")

    def __init__(self, plain: Segment, passes: PassCosts) -> None:
        super().__init__(plain.sizes, lambda dim: passes.asked.add(dim))
        self.plain, self.passes = plain, passes
        self.apart = {dim for scope, dim in map(scope_and_dim, plain.sizes) if scope}

    def get(self, dim: str, default: Any = None) -> Any:
        self.passes.asked.add(dim)
        found = self.sizes.get(dim)
        if found is None and follows(dim) and self.apart.isdisjoint((*TOKENS, dim.partition(".")[2])):
            found = self.plain.size(dim)
        return default if found is None else found


class PassCosts:
    """Of graphs that differ in sizes alone, of one phase on one hardware."""

    def __init__(self) -> None:
        self.found: dict[Key, Found] = {}
        self.segments: tuple[Segment, ...] = ()
        self.asked: set[str] = set()
        self.ever: set[str] = set()

    def begin(self, graph: Graph) -> Graph:
        """The graph of the next pass, which notes the sizes that it is asked for. What asked for some that the pass before had otherwise is
        forgotten."""
        if self.segments:
            others = differing(self.segments, graph.segments, self.ever)
            self.found = {key: one for key, one in self.found.items() if one[2].isdisjoint(others)}
        self.segments = graph.segments
        return replace(graph, segments=tuple([self._noting(segment) for segment in graph.segments]))

    def _noting(self, segment: Segment) -> Segment:
        own = segment.with_sizes(PassSizes(segment, self))
        own.__dict__["flops"] = Counted(self, own)
        return own

    def once(self, key: Key, make: Callable[[], T], *given: object) -> T:
        """What is made of the graph of this pass, or was of that of one before. `given`: all that it follows from beside the graph."""
        known = self.found.get(key)
        result: T
        if known is not None and same(known[1], given):
            result, _, asked = known
        else:
            before, self.asked = self.asked, set()
            try:
                result = make()
            finally:
                asked, self.asked = frozenset(self.asked), before
            self.found[key] = result, given, asked
            self.ever |= asked
        self.asked |= asked
        return result

    def known(self, key: Key, *given: object) -> Any:
        """The same where nobody notes what asks for it; None: it is not found yet."""
        known = self.found.get(key)
        return known[0] if known is not None and same(known[1], given) else None

    def flops(self, segment: Segment) -> float:
        """Of all ops of a segment of the graph of this pass."""
        name, known = segment.name, self.found
        each = [(("flops", name, op.name), op) for op in segment.ops]
        return sum([known[key][0] if key in known else flops(segment, op) for key, op in each])

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
    return all(map(is_, some, others))


def differing(some: tuple[Segment, ...], others: tuple[Segment, ...], asked: Collection[str]) -> set[str]:
    """Dimensions that have other sizes in any segment, whichever part of a step they are of; of those that follow from others the `asked`."""
    found: set[str] = set()
    following = [dim for dim in asked if follows(dim)]
    for a, b in zip(some, others, strict=True):
        found.update(a.sizes.keys() ^ b.sizes.keys())
        found.update(dim for dim, size in a.sizes.items() if b.sizes.get(dim) != size)
        found.update(dim for dim in following if _size(a, dim) != _size(b, dim))
    return found | {scope_and_dim(key)[1] for key in found}


def _size(segment: Segment, dim: str) -> float | None:
    try:
        return segment.size(dim)
    except KeyError:  # of no tensor of this one
        return None
