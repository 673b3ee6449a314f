"""Attributes of ops that take tokens in order."""

from __future__ import annotations

from .attrs import Attrs, count_field, flag_field


class DeltaAttrs(Attrs):
    correct: bool = flag_field("what a key gave before is taken away first, as the delta rule does", default=True)


class DeltaGradAttrs(DeltaAttrs):
    operand: int = count_field("operand whose gradient it is", low=0, high=63, made=True, default=0)
