"""Shardings of named-dimension tensors and the single moves between them."""

from __future__ import annotations

from ..base.frozen import record

Axes = tuple[str, ...]


@record
class Sharding:
    """The layout of one tensor on the mesh.

    `dims`: per tensor dimension the ordered mesh axes that split it, major first. `partial`: axes over
    which the value is partial; `reduce` names the reduction it needs: sum, max, or softmax (the merge of
    attention computed over pieces of the context).
    """

    dims: tuple[Axes, ...]
    partial: Axes = ()
    reduce: str = "sum"

    @property
    def used(self) -> frozenset[str]:
        """Every axis that splits a dimension or is partial."""
        return frozenset(a for axes in self.dims for a in axes) | frozenset(self.partial)

    def with_dim(self, index: int, axes: Axes) -> Sharding:
        return Sharding((*self.dims[:index], axes, *self.dims[index + 1 :]), self.partial, self.reduce)

    def resolved(self, axes: Axes | None = None) -> Sharding:
        """The same layout after the reduction over `axes` (all when None)."""
        left = () if axes is None else tuple(a for a in self.partial if a not in axes)
        return Sharding(self.dims, left, self.reduce if left else "sum")


@record
class Move:
    """One step of a reshard: `kind` over `axes`; source and target dimension indices where they apply.

    A permute sends each rank its block of the result from a rank that has it: its message is the result's size."""

    kind: str  # slice | all_gather | reduce_scatter | all_to_all | all_reduce | permute
    axes: Axes
    result: Sharding
    source_dim: int = -1
    target_dim: int = -1
