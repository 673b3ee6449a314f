"""Attributes of ops that work number by number or row by row."""

from __future__ import annotations

from math import inf

from ....base.schema.attribute import LARGE
from .attrs import Attrs, count_field, number_field


class ScaleAttrs(Attrs):
    factor: float = number_field("multiplies every number", low=-inf, high=inf)


class DropoutGradAttrs(Attrs):
    rate: float = number_field("share of the numbers that are put to nothing", open_low=False, high=1.0, made=True)


class DropoutAttrs(DropoutGradAttrs):
    number: int = count_field("which of the layer's it is", low=0, made=True, default=0)


class ShiftAttrs(Attrs):
    by: float = number_field("is added to every number", low=-inf, high=inf)


class ClampAttrs(Attrs):
    low: float = number_field("lower bound", default=-inf, low=-LARGE, open_low=False)
    high: float = number_field("upper bound", default=inf, low=-LARGE, open_low=False)


class NormAttrs(Attrs):
    eps: float = number_field("added to the mean square", default=1e-6, open_low=False)


class PartAttrs(Attrs):
    first: int = count_field("entry of the last dimension with which it begins", low=0, high=1e9, default=0)


class SinkhornAttrs(Attrs):
    iterations: int = count_field(
        "times that columns are divided by their sums, rows between", default=20, low=1, high=1000
    )
    eps: float = number_field("added to the softmax of rows, and to each sum", default=1e-6, open_low=False)


class OperandAttrs(Attrs):
    """Of the gradient of an op that takes several operands."""

    operand: int = count_field("operand whose gradient it is", low=0, high=63, made=True, default=0)
