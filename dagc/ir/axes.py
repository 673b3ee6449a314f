"""Which named dimensions an axis of a strategy splits."""

from __future__ import annotations

from typing import Literal

from .routed_dims import stem

Dispatch = Literal["all_to_all", "allgather"]
"""How tokens reach experts on other ranks: exchanged, or seen by all."""
Method = Literal["allgather", "ring", "ulysses"]
"""How attention sees a context that is split: keys and values gathered, passed around a ring, or heads exchanged."""

TENSOR_DIMS = ("heads", "kv_heads", "key_heads", "group", "value_group", "ffn", "shared_ffn", "vocab")
"""Dimensions that tensor parallelism splits, in the order in which they take the axis."""

HEADS = ("kv_heads", "heads", "group", "key_heads", "value_group")
"""Dimensions of heads, in the order in which an exchange over the sequence axis looks for one that divides."""


def is_tensor_dim(dim: str) -> bool:
    return stem(dim) in TENSOR_DIMS


def priority(dim: str) -> int:
    return TENSOR_DIMS.index(stem(dim))
