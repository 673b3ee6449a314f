"""A segment of the model graph under construction, and the values in it."""

from __future__ import annotations

from ...base.frozen import field, mutable, record
from ...ir.graph import Op, Weight
from ...spec.unit import Unit


@record
class Ref:
    """A value in scope: its name in the segment, or a literal number."""

    name: str
    dims: tuple[str, ...] = ()
    literal: float | None = None


@mutable
class BlockBuilder:
    """A segment that its blocks are adding to. `entry`: what it is given."""

    unit: Unit
    segment: str
    ops: list[Op] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    entry: Ref = field(default_factory=lambda: Ref("x"))

    def op(self, name: str) -> Op | None:
        """The op of a result."""
        return next((op for op in self.ops if op.name == name or any(v.name == name for v in op.more)), None)

    def dims_of(self, name: str) -> tuple[str, ...]:
        """Of a weight, a result, or what the layer is given."""
        if name.startswith("@"):
            return self.weights[name].dims
        op = self.op(name)
        if op is None:
            return self.entry.dims
        return next((value.dims for value in op.more if value.name == name), op.dims)
