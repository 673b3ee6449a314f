"""Shardings of named-dimension tensors and the single moves between them."""

from __future__ import annotations

from ..base.frozen import record

Axes = tuple[str, ...]

AT_EXPERTS = "experts"
"""Ranks that have routed experts and nothing else, as the place of a value or an op; nothing: all other ranks."""


@record
class Sharding:
    """The layout of one tensor on the mesh.

    `dims`: per tensor dimension the ordered mesh axes that split it, major first. `partial`: axes over
    which the value is partial; `reduce` names the reduction it needs: sum, max, or softmax (the merge of
    attention computed over pieces of the context). `on`: which ranks have it, where experts have ranks of their own.
    """

    dims: tuple[Axes, ...]
    partial: Axes = ()
    reduce: str = "sum"
    on: str = ""

    @property
    def used(self) -> frozenset[str]:
        """Every axis that splits a dimension or is partial."""
        return frozenset(a for axes in self.dims for a in axes) | frozenset(self.partial)

    def with_dim(self, index: int, axes: Axes) -> Sharding:
        return Sharding((*self.dims[:index], axes, *self.dims[index + 1 :]), self.partial, self.reduce, self.on)

    def resolved(self, axes: Axes | None = None) -> Sharding:
        """The same layout after the reduction over `axes` (all when None)."""
        left = () if axes is None else tuple(a for a in self.partial if a not in axes)
        return Sharding(self.dims, left, self.reduce if left else "sum", self.on)


@record
class Move:
    """One step of a reshard: `kind` over `axes`; source and target dimension indices where they apply.

    A permute sends each rank its block of the result from a rank that has it: its message is the result's size."""

    kind: str  # slice | all_gather | reduce_scatter | all_to_all | all_reduce | permute | to_experts | from_experts
    axes: Axes
    result: Sharding
    source_dim: int = -1
    target_dim: int = -1
