"""Attributes of slices and collectives."""

from __future__ import annotations

from typing import ClassVar

from ...sharding import Axes
from .attrs import Attrs, axes_field, count_field, dim_field, word_field


class SliceAttrs(Attrs):
    target_dim: str = dim_field("dimension that is split", default="")
    axes: Axes = axes_field("axes that split it", default=())


class CollectiveAttrs(Attrs):
    """Of ops whose ranks exchange messages."""


class MoveAttrs(CollectiveAttrs):
    source_dim: str = dim_field("dimension that is gathered", default="")
    target_dim: str = dim_field("dimension that is split", default="")
    reduce: str = word_field("how partial values are reduced", "sum", "max", made=True, default="sum")


class RingTurnAttrs(CollectiveAttrs):
    runtime_kind: ClassVar[str] = "permute"
    steps: int = count_field("messages that each rank passes on, one after another", made=True)


class SoftmaxMergeAttrs(CollectiveAttrs):
    """Of (row sums, row maxima, maxima over all pieces), or of (outputs, shares of the row sums)."""

    runtime_kind: ClassVar[str] = "all_reduce"


class SoftmaxScatterAttrs(CollectiveAttrs):
    """Of (outputs, shares of the row sums)."""

    runtime_kind: ClassVar[str] = "reduce_scatter"
    target_dim: str = dim_field("dimension that is split", default="")
