"""Tensors that stay on a rank's device from pass to pass: its weights, the caches and states that a pass finds, and tables
that depend on the layout alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...ir.graph import Op, Segment
from ...ir.ops.kind import Tokens
from ...ir.ops.op_set import OPS
from ..shards import Coordinates, Shards


@dataclass
class Resident:
    shards: Shards
    rank: Coordinates
    device: Any
    dtype: Any
    kept: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def real(self, array: Any) -> Any:
        """An array of real numbers, in the precision of the run."""
        return torch.as_tensor(np.ascontiguousarray(array), device=self.device, dtype=self.dtype)

    def exact(self, array: Any) -> Any:
        """An array of whole numbers or of truth values."""
        return torch.as_tensor(array, device=self.device)

    def weight(self, segment: Segment, layer: int, name: str) -> Any:
        """A shard; of routed experts a mapping physical expert -> its matrix."""

        def make() -> Any:
            part = self.shards.weight(segment, layer, name, self.rank)
            self.shards.wholes.clear()
            return {p: self.real(w) for p, w in part.items()} if isinstance(part, dict) else self.real(part)

        return self.once(("weight", layer, name), make)

    def prepare(self, segment: Segment, layer: int, op: Op) -> None:
        """What a decode step finds in the cache is not part of its time."""
        if OPS[op.kind].tokens is Tokens.CACHE and segment.sizes["seq"] != segment.sizes["context"]:
            self.cache(segment, layer, op)
        elif OPS[op.kind].state is not None:
            self.state(segment, layer, op)

    def state(self, segment: Segment, layer: int, op: Op) -> Any:
        """What a sequential op remembers before the pass, in its own precision."""
        model = op.kind == "conv"  # the last inputs; the matrices of the delta rule are fp32 at least
        dtype = self.dtype if model else torch.promote_types(self.dtype, torch.float32)
        key = ("state", layer, op.name, self.shards.offset)
        return self.once(key, lambda: self.real(self.shards.state(segment, layer, op, self.rank)).to(dtype))

    def cache(self, segment: Segment, layer: int, op: Op) -> Any:
        """The rank's part of the cache, with room for the new tokens."""
        key = ("cache", layer, op.name, self.shards.offset)
        return self.once(key, lambda: self.real(self.shards.cache(segment, layer, op, self.rank)))
