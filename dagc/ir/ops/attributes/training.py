"""Attributes of what a training step does with weights and their gradients."""

from __future__ import annotations

from ...sharding import Axes
from .attrs import Attrs, axes_field, dim_field, flag_field, number_field


class WeightAttrs(Attrs):
    """Of what becomes of a weight's gradients."""

    weight: str = dim_field("weight that it is of", default="")


class AccumulateAttrs(WeightAttrs):
    """Of the sum of them over micro-batches."""

    over: Axes = axes_field(
        "axes of stages that have copies of the weight, each with the gradients of its own layers", default=()
    )


class StoreAttrs(WeightAttrs):
    """Of the new weight in its place."""


class QuantiseAttrs(WeightAttrs):
    """Of a new weight (named) or of what a product reads."""

    moved: bool = flag_field("ranks that share out a weight gather it quantised", made=True, default=False)


class FetchAttrs(Attrs):
    """Of a stored weight, as its owners have it."""

    kept: bool = flag_field("what is gathered of it forward is there on the way back", made=True, default=False)


class AdamAttrs(WeightAttrs):
    rate: float = number_field("step size", high=1.0, made=True, default=1e-3)
    mean: float = number_field("share that the mean keeps", high=1.0, open_low=False, made=True, default=0.9)
    square: float = number_field("share that the mean square keeps", high=1.0, open_low=False, made=True, default=0.95)
    eps: float = number_field("added to the root of the mean square", open_low=False, made=True, default=1e-8)
    decay: float = number_field("weight decay", open_low=False, made=True, default=0.1)
