"""One rank among the others: its process groups, its peers, and the calls that collectives are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from ...base.frozen import record
from ...ir.op import Op
from ...ir.ops.attributes.moves import MoveAttrs
from ...ir.peers import Peers, peers
from ...ir.segment import Segment
from ...ir.sharding import Axes, Sharding
from ..shards import Coordinates, Shards
from .groups import Group, Position, Ranks
from .ops import Tensor

# torch 2.13 gives these new names.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass
class Communicator:
    """This process's rank among the others. `routes`: of every permute, made once."""

    shards: Shards
    ranks: Ranks
    groups: Mapping[Axes, Group]
    routes: dict[tuple[str, str], Peers] = field(default_factory=dict)

    def exchange(self, segment: Segment, op: Op) -> Exchange:
        have, got = segment.sharding_of(op.inputs[0]), op.sharding
        assert have is not None and got is not None
        return Exchange(self, segment, op, have, got, self.groups[self.ranks.graph.the_mesh.sort(op.axes)])

    def peers(self, segment: Segment, op: Op) -> Peers:
        key = (segment.name, op.name)
        if key not in self.routes:
            self.routes[key] = peers(segment, op, self.ranks.graph.the_mesh)
        return self.routes[key]

    def swap(self, value: Tensor, targets: list[int], source: Position | None) -> Tensor:
        value = value.contiguous()
        out = torch.empty_like(value) if source is not None else value
        calls = [dist.P2POp(dist.isend, value, target) for target in targets]
        if source is not None:
            calls.append(dist.P2POp(dist.irecv, out, self.ranks.world(source)))
        for work in dist.batch_isend_irecv(calls) if calls else []:
            work.wait()
        return out


@record
class Exchange:
    """One collective of this rank. `have`, `got`: layouts before and after."""

    comm: Communicator
    segment: Segment
    op: Op
    have: Sharding
    got: Sharding
    group: Group

    @property
    def shards(self) -> Shards:
        return self.comm.shards

    @property
    def rank(self) -> Coordinates:
        return self.comm.ranks.coordinates

    @property
    def source_dim(self) -> int:
        """The dimension that is gathered."""
        return self.op.dims.index(self.op.of(MoveAttrs).source_dim)

    @property
    def target_dim(self) -> int:
        """The dimension that is split."""
        return self.op.dims.index(self.op.of(MoveAttrs).target_dim)

    def moved(self, layout: Sharding, dim: int) -> Axes:
        """The axes of the group, as they split a dimension."""
        return layout.dims[dim][-len(self.op.axes) :]

    def blocks(self, axes: Axes) -> list[int]:
        """The block of each member, in the order of the process group."""
        return [self.shards.block(axes, member) for member in self.group.members]

    def reduced(self, value: Tensor, by: Any = None) -> Tensor:
        out = value.contiguous().clone()
        dist.all_reduce(out, op=by or dist.ReduceOp.SUM, group=self.group.handle)
        return out

    def all_of(self, value: Tensor) -> list[Tensor]:
        """Every member's tensor, in the order of the process group."""
        value = value.contiguous()
        out = value.new_empty((len(self.group.members), *value.shape))
        all_gather(out.flatten(0, 1) if value.ndim else out, value, group=self.group.handle)
        return list(out)

    def gathered(self, value: Tensor, dim: int, axes: Axes) -> Tensor:
        pieces = dict(zip(self.blocks(axes), self.all_of(value), strict=True))
        return torch.cat([pieces[i] for i in range(len(pieces))], dim=dim)

    def scattered(self, value: Tensor, dim: int, axes: Axes) -> Tensor:
        blocks = self.blocks(axes)
        parts = value.chunk(len(blocks), dim=dim)
        send = torch.cat([parts[b].contiguous()[None] for b in blocks])
        out = send.new_empty((1, *send.shape[1:]))
        reduce_scatter(out, send, group=self.group.handle)
        return out[0]
