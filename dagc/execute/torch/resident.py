"""Tensors that stay on a rank's device from pass to pass: its weights, the caches and states that a pass finds, and tables
that depend on the layout alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...base.dtypes import INDICES
from ...ir.op import Op
from ...ir.ops.attributes.training import AdamAttrs
from ...ir.ops.kind import Tokens
from ...ir.ops.op_set import OPS
from ...ir.segment import Segment
from ..failure import CannotRun
from ..shards import Coordinates, Shards


@dataclass
class Resident:
    shards: Shards
    rank: Coordinates
    device: Any
    dtype: Any
    kept: dict[tuple[object, ...], Any] = field(default_factory=dict)
    replaced: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def real(self, array: Any) -> Any:
        """An array of real numbers, in the precision of the run."""
        return torch.as_tensor(np.ascontiguousarray(array), device=self.device, dtype=self.dtype)

    @property
    def sums(self) -> Any:
        """The dtype of what an optimizer works with, and of sums of gradients: fp32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    def exact(self, array: Any) -> Any:
        """An array of whole numbers or of truth values."""
        return torch.as_tensor(array, device=self.device)

    def weight(self, segment: Segment, layer: int, name: str) -> Any:
        """A shard; of routed experts a mapping physical expert -> its matrix."""

        def make() -> Any:
            part = self.shards.weight(segment, layer, name, self.rank)
            self.shards.wholes.clear()
            if segment.weight[name].dtype in INDICES:
                return self.exact(np.asarray(part, dtype=np.int64))
            return {p: self.real(w) for p, w in part.items()} if isinstance(part, dict) else self.real(part)

        return self.once(("weight", layer, name), make)

    def master(self, segment: Segment, layer: int, op: Op) -> Any:
        """The optimizer's own copy of the rank's part of a weight."""

        def make() -> Any:
            part = self.shards.master(segment, layer, op, self.rank)
            self.shards.wholes.clear()
            return torch.as_tensor(np.ascontiguousarray(part), device=self.device, dtype=self.sums)

        return self.once(("master", layer, op.name), make)

    def store(self, segment: Segment, layer: int, name: str, value: Any) -> None:
        """A new weight in place of the old one, in its layout: what is read from now on."""
        key = ("weight", layer, name)
        old = self.weight(segment, layer, name)
        if value.shape != self.stored(segment, layer, name).shape:
            raise CannotRun(f"the new weight {name} is {list(value.shape)} on this rank, the old one was not")
        at = self._experts_at(segment, name)
        self.replaced.setdefault(key, old)
        self.kept[key] = dict(zip(old, value.unbind(at), strict=True)) if isinstance(old, dict) else value

    def stored(self, segment: Segment, layer: int, name: str) -> Any:
        """A weight as one tensor, whatever it is read as."""
        value = self.weight(segment, layer, name)
        return torch.stack(list(value.values()), self._experts_at(segment, name)) if isinstance(value, dict) else value

    def _experts_at(self, segment: Segment, name: str) -> int:
        """Where a weight of routed experts has these."""
        weight = segment.weight[name]
        return weight.dims.index(self.shards.rows(segment, name).expert) if weight.scope == "experts" else 0

    def as_before(self) -> None:
        """The weights that were there before the step."""
        self.kept |= self.replaced
        self.replaced.clear()

    def prepare(self, segment: Segment, layer: int, op: Op) -> None:
        """What a decode step finds in the cache, and an optimizer in its copy of a weight, is not part of their time."""
        if OPS[op.kind].tokens is Tokens.CACHE and segment.sizes["seq"] != segment.sizes["context"]:
            self.cache(segment, layer, op)
        elif OPS[op.kind].state is not None:
            self.state(segment, layer, op)
        elif isinstance(op.attrs, AdamAttrs):
            self.master(segment, layer, op)

    def state(self, segment: Segment, layer: int, op: Op) -> Any:
        """What a sequential op remembers before the pass, in its own precision."""
        model = op.kind == "conv"  # the last inputs; the matrices of the delta rule are fp32 at least
        dtype = self.dtype if model else self.sums
        key = ("state", layer, op.name, self.shards.offset)
        return self.once(key, lambda: self.real(self.shards.state(segment, layer, op, self.rank)).to(dtype))

    def cache(self, segment: Segment, layer: int, op: Op) -> Any:
        """The rank's part of the cache, with room for the new tokens."""
        key = ("cache", layer, op.name, self.shards.offset)
        return self.once(key, lambda: self.real(self.shards.cache(segment, layer, op, self.rank)))
