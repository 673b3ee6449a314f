"""A segment of the model graph under construction, and the values in it."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import field, mutable, record
from ...base.units import Quantity
from ...ir.entries import derived
from ...ir.op import Op, Taken, Weight
from ...ir.segment import Segment
from ...spec.unit import Unit


@record
class Ref:
    """A value in scope: its name in the segment, or a literal number."""

    name: str
    dims: tuple[str, ...] = ()
    literal: float | None = None


@record
class Source:
    """A value that a layer hands on, and the layer: its sizes are those of the dimensions."""

    value: Taken
    segment: Segment


@mutable
class BlockBuilder:
    """A segment that its blocks are adding to. `entry`: what it is given; `sources`: what earlier layers hand on, by name; `wanted`: names of
    values that blocks of the model take from others."""

    unit: Unit
    segment: str
    ops: list[Op] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    entry: Ref = field(default_factory=lambda: Ref("x"))
    sources: Mapping[str, Source] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    taken: dict[str, Taken] = field(default_factory=dict)
    handed: dict[str, Ref] = field(default_factory=dict)
    makers: dict[str, Op] = field(default_factory=dict)
    """Of each result of the first `known` ops."""
    known: int = 0
    numbers: dict[str, float] = field(init=False)
    """The model's, by name."""

    def __post_init__(self) -> None:
        attributes = self.unit.spec.model.attributes.items()
        self.numbers = {k: v.value for k, v in attributes if isinstance(v, Quantity)}

    def op(self, name: str) -> Op | None:
        """The op of a result."""
        if self.known < len(self.ops):
            for op in self.ops[self.known :]:
                for value in op.made:
                    self.makers.setdefault(value.name, op)
            self.known = len(self.ops)
        return self.makers.get(name)

    def dims_of(self, name: str) -> tuple[str, ...]:
        """Of a weight, a result, or what the layer is given."""
        if name.startswith("@"):
            return self.weights[name].dims
        op = self.op(name)
        if op is None:
            return self.taken[name].dims if name in self.taken else self.entry.dims
        return next((value.dims for value in op.more if value.name == name), op.dims)

    def size(self, dim: str, scope: str = "dense") -> float:
        """Of a dimension, or what follows for it from those of others."""
        found = self.sizes.get(dim)
        return derived(self, dim, scope) if found is None else found

    def kind_of(self, name: str) -> str:
        """The kind of the op that made a value, in this layer or an earlier one; of what the layer is given its name."""
        op = self.op(name)
        if op is not None:
            return op.kind
        return self.taken[name].kind if name in self.taken else name if name == self.entry.name else ""

    def maker(self, name: str) -> Op | None:
        """The op that made a value, in this layer or an earlier one."""
        if name in self.taken:
            source = self.sources[name].segment
            return source.by_name.get(dict(source.handed)[name])
        return self.op(name)
