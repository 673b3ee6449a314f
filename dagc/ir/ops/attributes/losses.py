"""Attributes of losses and of what they are made of."""

from __future__ import annotations

from .attrs import Attrs, count_field, number_field, word_field
from .experts import SCORES


class RowMaxAttrs(Attrs):
    """Of the largest number of a row, without its index."""


class ShareAttrs(Attrs):
    sequences: int = count_field(
        "sequences over which shares are taken (0: all of a micro-batch)", low=0, made=True, default=0
    )


class ScoreAttrs(Attrs):
    score: str = word_field("router score", *SCORES, default="softmax")


class LabelsAttrs(Attrs):
    ahead: int = count_field("how many tokens ahead of each", high=1e6, made=True, default=1)


class LossAttrs(Attrs):
    tokens: int = count_field("tokens of a step, over which the mean is taken", high=1e15, made=True, default=1)
    factor: float = number_field("of it in the loss of the step", made=True, default=1.0)
