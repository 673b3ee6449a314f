"""kept_costs: costs of ops that plans of one model graph share: of many plans most ops were seen before, split as often and of the
same sizes.

Where an op's cost follows from how many ranks split each of its dims, that is its key; where it may ask which ranks these are, the
dimensions of the mesh are. Names of axes are in no key.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..base.frozen import fields_of
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.attrs import Attrs
from ..ir.ops.op_set import OPS
from ..ir.segment import Segment
from ..ir.sharding import Axes
from ..spec.phase import Phase
from .expert_load import ExpertLoad
from .fused_blocks import within
from .records import OpCost

if TYPE_CHECKING:
    from .measured import Measured

NOT_PRICED = ("context", "tokens", "sequences", "passes", "last", "parts", "chunk", "constants", "span", "spans", "strategy", "gpus", "memory", "draft_model", "lengths", "cuts")  # fmt: skip
"""Of phases: what prices see in the graph alone, if at all."""
OF_PHASE = attrgetter(*(name for name in fields_of(Phase) if name not in NOT_PRICED))
MOST = 1 << 16
"""Costs that are kept."""

Key = tuple[Hashable, ...]


class KeptCosts:
    """Of one model graph on one hardware."""

    def __init__(self) -> None:
        self.known: dict[Key, tuple[Any, ...]] = {}

    def of(self, segment: Segment, mesh: Mesh, phase: Phase, loads: Mapping[Any, ExpertLoad]) -> SegmentCosts:
        if len(self.known) > MOST:
            self.known.clear()
        return SegmentCosts(self.known, segment, mesh, phase, loads)


class SegmentCosts:
    """Of one segment of a plan. What a key says by identity is kept with its cost, so that nothing else gets that identity."""

    def __init__(
        self, known: dict[Key, tuple[Any, ...]], segment: Segment, mesh: Mesh, phase: Phase, loads: Mapping[Any, ExpertLoad]
    ) -> None:  # fmt: skip
        self.known, self.segment, self.mesh, self.loads = known, segment, mesh, loads
        self.sizes: dict[Axes, int] = {}
        self.places: dict[Axes, tuple[int, ...]] = {}
        phases: Key = OF_PHASE(phase)
        self.even: Key = (segment.name, tuple(segment.sizes.values()), len(mesh.atoms), phases)
        self.placed: Key = (*self.even, mesh.shape, self.at(mesh.zigzag), self.at(mesh.batch_axes))

    def size(self, axes: Axes) -> int:
        found = self.sizes.get(axes)
        if found is None:
            found = self.sizes[axes] = self.mesh.size(axes)
        return found

    def at(self, axes: Axes) -> tuple[int, ...]:
        """Dimensions of the mesh."""
        found = self.places.get(axes)
        if found is None:
            found = self.places[axes] = tuple([self.mesh.place(axis) for axis in axes])
        return found

    def split(self, op: Op) -> Key:
        """By how many ranks."""
        every = tuple(dict.fromkeys([axis for _, axes in op.loops for axis in axes]))
        return op.name, op.inputs, tuple([(dim, self.size(axes)) for dim, axes in op.loops]), self.size(every)

    def placed_split(self, op: Op) -> Key:
        """By which ranks."""
        made = [
            self.at(getattr(op.attrs, name)) if is_axes else getattr(op.attrs, name)
            for name, is_axes in _made(type(op.attrs))
        ]
        return op.name, op.inputs, tuple([(dim, self.at(axes)) for dim, axes in op.loops]), *made

    def compute(self, op: Op, load: ExpertLoad | None, measured: Measured | None, make: Callable[[], OpCost]) -> OpCost:
        """The cost of an op that is no collective. In a kernel with others it follows from what does not leave that, too."""
        inside = within(self.segment, op) if op.kernel else None
        ranks = load.ranks if load is not None and op.scope == "experts" else None
        key: Key
        if ranks is not None or _asks_where(op.kind):
            where = () if load is None else (id(ranks), self.at(load.axes), load.filled)
            key = "op", *self.placed, *self.placed_split(op), id(measured), inside, *where
        else:
            key = "op", *self.even, *self.split(op), id(measured), inside
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = make(), measured, ranks
        cost: OpCost = found[0]
        return cost

    def call(self, key: Key, make: Callable[[], OpCost]) -> OpCost:
        """The cost of a collective, by all that it follows from beside the phase."""
        key = "call", *self.even[2:], *key
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = (make(),)
        cost: OpCost = found[0]
        return cost

    def times(
        self, key: Key, make: Callable[[], dict[str, Measured]], load: ExpertLoad | None = None
    ) -> dict[str, Measured]:
        """Measured times of kernels, laid over the mesh."""
        from .measured import over_dimensions  # a plan without a calibration needs no families

        key = key if load is None else (*key, id(load.ranks), self.at(load.axes), load.filled)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = over_dimensions(make(), len(self.mesh.atoms)), load
        times: dict[str, Measured] = found[0]
        return times


@lru_cache(maxsize=256)
def _made(attrs: type[Attrs]) -> tuple[tuple[str, bool], ...]:
    """Attributes that passes set, and whether they are axes."""
    return tuple((f.name, f.attribute.kind == "axes") for f in attrs.fields if f.made)


def _asks_where(kind: str) -> bool:
    """Whether the cost of such ops may follow from more than how many ranks split them."""
    own = OPS[kind]
    return bool(own.needs or own.makes or own.share or own.reads or own.state or _made(own.attrs))
