"""One message between stages: the residual stream as it is, or with what goes beside it as the bytes of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

Parts = Sequence[tuple[tuple[int, ...], Any]]
"""Shape and dtype of each value of a message."""


def packed(values: Sequence[Any], parts: Parts) -> Any:
    cast = [value.to(dtype).contiguous() for value, (_, dtype) in zip(values, parts, strict=True)]
    return cast[0] if len(cast) == 1 else torch.cat([value.reshape(-1).view(torch.uint8) for value in cast])


def room(parts: Parts, device: Any) -> Any:
    """For such a message."""
    shape, dtype = parts[0] if len(parts) == 1 else ((sum(_sizes(parts)),), torch.uint8)
    return torch.empty(shape, dtype=dtype, device=device)


def unpacked(message: Any, parts: Parts) -> list[Any]:
    if len(parts) == 1:
        return [message]
    pieces: Any = zip(torch.split(message, _sizes(parts)), parts, strict=True)
    return [piece.clone().view(dtype).reshape(shape) for piece, (shape, dtype) in pieces]


def _sizes(parts: Parts) -> list[int]:
    """Bytes of each."""
    return [math.prod(shape) * dtype.itemsize for shape, dtype in parts]
