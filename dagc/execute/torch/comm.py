"""Collectives of one rank over torch.distributed: each is the call that its kind names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from ...ir.graph import Graph, Op, Segment
from ...ir.ops.attributes import MoveAttrs, RingTurnAttrs, SliceAttrs, SoftmaxMergeAttrs
from ...ir.peers import Peers, peers
from ...ir.sharding import Axes, Sharding
from .launch import LaunchError
from .ops import Best, Ragged, Routed, Softmax, Tensor, ordered

if TYPE_CHECKING:
    from ..execute import Machine
    from ..routed import RoutedRows

Position = tuple[int, ...]

# torch 2.13 gives these new names.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass
class Ranks:
    """World rank of every place of the mesh: GPU ids in order. `at`: [stage, *mesh] of this process."""

    graph: Graph
    rank: int
    number: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = field(init=False)
    at: Position = field(init=False)

    def __post_init__(self) -> None:
        mesh = self.graph.the_mesh
        gpus = np.asarray([s.gpus for s in self.graph.stages])
        self.number = np.searchsorted(np.sort(gpus.ravel()), gpus).reshape(mesh.stages, *mesh.shape)
        self.at = tuple(int(i) for i in np.argwhere(self.number == self.rank)[0])

    @property
    def coordinates(self) -> dict[str, int]:
        return self.named(self.at[1:])

    def named(self, place: Position) -> dict[str, int]:
        return {name: i for (name, _), i in zip(self.graph.the_mesh.atoms, place, strict=True)}

    def world(self, place: Position) -> int:
        """World rank of a place on this process's stage."""
        return int(self.number[(self.at[0], *place)])


@dataclass
class Group:
    """Members in the order of their world ranks, which is that of the process group."""

    handle: Any
    members: list[dict[str, int]]
    index: int


def make_groups(ranks: Ranks) -> dict[Axes, Group]:
    """Every process makes every group, its own and the others', in one order."""
    mesh = ranks.graph.the_mesh
    wanted = sorted({mesh.sort(op.axes) for s in ranks.graph.segments for op in s.ops if op.axes})
    found: dict[Axes, Group] = {}
    for axes in wanted:
        position = [1 + mesh.index[a] for a in axes]
        last = range(ranks.number.ndim - len(position), ranks.number.ndim)
        for row in np.moveaxis(ranks.number, position, last).reshape(-1, mesh.size(axes)).tolist():
            handle = dist.new_group(sorted(row))
            if ranks.rank in row:
                places = [tuple(int(i) for i in np.argwhere(ranks.number == r)[0][1:]) for r in sorted(row)]
                found[axes] = Group(handle, [ranks.named(p) for p in places], sorted(row).index(ranks.rank))
    return found


@dataclass
class Communicator:
    machine: Machine
    ranks: Ranks
    groups: Mapping[Axes, Group]
    routes: dict[tuple[str, str], Peers] = field(default_factory=dict)

    def run(self, segment: Segment, op: Op, value: object, stats: Sequence[object]) -> object:
        """What this rank has after a collective. `stats`: what it has of the op's further inputs."""
        if isinstance(value, Softmax):
            return self.softmax(op, value, stats)
        if isinstance(value, Best):
            if op.kind == "all_reduce":
                return self.best(op, value)
            return Best(self.moved(segment, op, value.value), self.moved(segment, op, value.index))
        if isinstance(value, Routed):
            return Routed(self.moved(segment, op, value.experts), self.moved(segment, op, value.weights))
        if isinstance(value, Ragged):
            return self.ragged(segment, op, value)
        return self.moved(segment, op, value)

    def group(self, op: Op) -> Group:
        return self.groups[self.ranks.graph.the_mesh.sort(op.axes)]

    # -- tensors ---------------------------------------------------------------------------------

    def moved(self, segment: Segment, op: Op, value: Tensor) -> Tensor:
        have, got = segment.sharding_of(op.inputs[0]), op.sharding
        assert have is not None and got is not None
        count = len(op.axes)
        if op.kind == "all_reduce":
            return self.reduced(op, value)
        if op.kind == "permute":
            return (
                self.turn(segment, op, value)
                if isinstance(op.attrs, RingTurnAttrs)
                else self.permuted(segment, op, value)
            )
        move = op.of(MoveAttrs)
        source = op.dims.index(move.source_dim) if move.source_dim else -1
        target = op.dims.index(move.target_dim) if move.target_dim else -1
        if op.kind == "all_gather":
            return self.gathered(op, value, source, have.dims[source][-count:])
        if op.kind == "reduce_scatter":
            return self.scattered(op, value, target, got.dims[target][-count:])
        return self.exchanged(op, value, source, target, have.dims[source][-count:], got.dims[target][-count:])

    def blocks(self, op: Op, axes: Axes) -> list[int]:
        """The block of each member, in the order of the process group."""
        return [self.machine.block(axes, member) for member in self.group(op).members]

    def reduced(self, op: Op, value: Tensor, by: Any = None) -> Tensor:
        out = value.contiguous().clone()
        dist.all_reduce(out, op=by or dist.ReduceOp.SUM, group=self.group(op).handle)
        return out

    def all_of(self, op: Op, value: Tensor) -> list[Tensor]:
        """Every member's tensor, in the order of the process group."""
        value = value.contiguous()
        out = value.new_empty((len(self.group(op).members), *value.shape))
        all_gather(out.flatten(0, 1) if value.ndim else out, value, group=self.group(op).handle)
        return list(out)

    def gathered(self, op: Op, value: Tensor, dim: int, axes: Axes) -> Tensor:
        pieces = dict(zip(self.blocks(op, axes), self.all_of(op, value), strict=True))
        return torch.cat([pieces[i] for i in range(len(pieces))], dim=dim)

    def scattered(self, op: Op, value: Tensor, dim: int, axes: Axes) -> Tensor:
        blocks = self.blocks(op, axes)
        parts = value.chunk(len(blocks), dim=dim)
        send = torch.cat([parts[b].contiguous()[None] for b in blocks])
        out = send.new_empty((1, *send.shape[1:]))
        reduce_scatter(out, send, group=self.group(op).handle)
        return out[0]

    def exchanged(self, op: Op, value: Tensor, source: int, target: int, before: Axes, after: Axes) -> Tensor:
        parts = value.chunk(len(self.group(op).members), dim=target)
        send = torch.cat([parts[b].contiguous()[None] for b in self.blocks(op, after)])
        out = torch.empty_like(send)
        dist.all_to_all_single(out, send, group=self.group(op).handle)
        pieces = dict(zip(self.blocks(op, before), out, strict=True))
        return torch.cat([pieces[i] for i in range(len(pieces))], dim=source)

    def peers(self, segment: Segment, op: Op) -> Peers:
        key = (segment.name, op.name)
        if key not in self.routes:
            self.routes[key] = peers(segment, op, self.ranks.graph.the_mesh)
        return self.routes[key]

    def permuted(self, segment: Segment, op: Op, value: Tensor) -> Tensor:
        found, place = self.peers(segment, op), self.ranks.at[1:]
        source = found.source.get(place)
        return self.swap(value, [self.ranks.world(t) for t in found.targets[place]], source)

    def swap(self, value: Tensor, targets: list[int], source: Position | None) -> Tensor:
        value = value.contiguous()
        out = torch.empty_like(value) if source is not None else value
        calls = [dist.P2POp(dist.isend, value, target) for target in targets]
        if source is not None:
            calls.append(dist.P2POp(dist.irecv, out, self.ranks.world(source)))
        for work in dist.batch_isend_irecv(calls) if calls else []:
            work.wait()
        return out

    def turn(self, segment: Segment, op: Op, value: Tensor) -> Tensor:
        """A turn of the ring: every block comes past, one step at a time."""
        found, place = self.peers(segment, op), self.ranks.at[1:]
        split = next(axes for axes in op.sharding.dims if set(op.axes) <= set(axes))  # type: ignore[union-attr]
        order = tuple(a for a in split if a in op.axes)
        size = len(self.group(op).members)
        mine = self.machine.block(order, self.ranks.coordinates)
        blocks = {mine: value}
        for step in range(op.of(RingTurnAttrs).steps):
            value = self.swap(value, [self.ranks.world(t) for t in found.targets[place]], found.source[place])
            blocks[(mine - 1 - step) % size] = value
        return torch.cat([blocks[i] for i in range(size)], dim=op.dims.index("context"))

    # -- pieces of a softmax, and the largest of several -------------------------------------------

    def softmax(self, op: Op, part: Softmax, stats: Sequence[object]) -> object:
        merged = op.of(SoftmaxMergeAttrs).part
        if merged == "row_max":
            return self.reduced(op, part.maxima, dist.ReduceOp.MAX)
        if merged == "row_sum":
            peak = stats[0]
            return peak, self.reduced(op, part.sums * torch.exp(part.maxima - peak))
        pair = stats[0]
        assert isinstance(pair, tuple)
        peak, total = pair
        return self.reduced(op, part.output * (torch.exp(part.maxima - peak) / total)[..., None])

    def best(self, op: Op, value: Best) -> Best:
        values, indices = torch.stack(self.all_of(op, value.value)), torch.stack(self.all_of(op, value.index))
        top = values.amax(dim=0)
        last = torch.iinfo(indices.dtype).max
        return Best(top, torch.where(values == top, indices, last).amin(dim=0))

    # -- routed tokens -----------------------------------------------------------------------------

    def ragged(self, segment: Segment, op: Op, value: Ragged) -> Ragged:
        """Each member gets the rows of its experts whose tokens are at home where its layout says."""
        inner = self.machine.rows(segment, op.inputs[0]).inner(op.dims)
        if {op.of(MoveAttrs).source_dim, op.of(MoveAttrs).target_dim} & set(inner):
            return value.with_data(self.widths(segment, op, value.data, inner))
        if op.kind == "permute":
            self.refuse_other_widths(segment, op)
        group = self.group(op)
        sent = [self.rows_of(segment, op, value, member) for member in group.members]
        counts = torch.tensor([len(p) for p, _, _ in sent], device=value.data.device)
        coming = torch.empty_like(counts)
        dist.all_to_all_single(coming, counts, group=group.handle)
        physical, keys, data = (torch.cat(parts) for parts in zip(*sent, strict=True))
        labels = torch.cat([physical[:, None], keys], dim=1)
        sizes = (counts.tolist(), coming.tolist())
        labels, data = (self.swapped(group, x, *sizes) for x in (labels, data))
        held = self.held(segment, op, self.ranks.coordinates)
        return ordered(labels[:, 0], labels[:, 1:], data, held, added=op.kind in ("all_reduce", "reduce_scatter"))

    def refuse_other_widths(self, segment: Segment, op: Op) -> None:
        """A row travels as its sender holds it."""
        rows, have = self.machine.rows(segment, op.inputs[0]), segment.sharding_of(op.inputs[0])
        assert have is not None and op.sharding is not None
        boxes = ([rows.box(op.dims, layout, r) for r in self.machine.ranks] for layout in (have, op.sharding))
        if next(boxes) != next(boxes):
            raise LaunchError(f"`dagc run` does not move the width of routed rows by permute (op `{op.name}`)")

    def widths(self, segment: Segment, op: Op, data: Tensor, inner: tuple[str, ...]) -> Tensor:
        """Members that hold the same rows gather their parts of each, or scatter sums of it."""
        have, got = segment.sharding_of(op.inputs[0]), op.sharding
        assert have is not None and got is not None
        move = op.of(MoveAttrs)
        layout, name = (have, move.source_dim) if op.kind == "all_gather" else (got, move.target_dim)
        if op.kind not in ("all_gather", "reduce_scatter"):
            raise LaunchError(f"`dagc run` does not move the width of routed rows by {op.kind} (op `{op.name}`)")
        axes = layout.dims[op.dims.index(name)][-len(op.axes) :]
        return (self.gathered if op.kind == "all_gather" else self.scattered)(op, data, 1 + inner.index(name), axes)

    def swapped(self, group: Group, rows: Tensor, out: list[int], coming: list[int]) -> Tensor:
        found = rows.new_empty((sum(coming), rows.shape[1]))
        dist.all_to_all_single(found, rows.contiguous(), coming, out, group=group.handle)
        return found

    def held(self, segment: Segment, op: Op, member: Mapping[str, int]) -> range:
        """Physical experts of a member in the op's layout."""
        assert op.sharding is not None
        return self.machine.rows(segment, op.inputs[0]).experts(op.dims, op.sharding, member)

    def rows_of(
        self, segment: Segment, op: Op, value: Ragged, member: Mapping[str, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert op.sharding is not None
        mine = self.belong(segment, op, op.sharding, value, member)
        if op.kind == "permute" and member != self.ranks.coordinates:
            mine &= ~self.lent(segment, op, value, member)
        return value.physical[mine], value.keys[mine], value.data[mine]

    def lent(self, segment: Segment, op: Op, value: Ragged, member: Mapping[str, int]) -> Tensor:
        """Of the rows of this rank those that `member` has already, or has from an earlier one of the group: members of
        a permute may hold common rows, and of those the first sends."""
        have, group = segment.sharding_of(op.inputs[0]), self.group(op)
        assert have is not None
        holders = [*group.members[: group.index], member]
        return torch.stack([self.belong(segment, op, have, value, holder) for holder in holders]).any(dim=0)

    def belong(self, segment: Segment, op: Op, layout: Sharding, value: Ragged, member: Mapping[str, int]) -> Tensor:
        """Which rows a layout of the op's dims gives a member."""
        rows = self.machine.rows(segment, op.inputs[0])
        held = rows.experts(op.dims, layout, member)
        mine = (value.physical >= held.start) & (value.physical < held.stop)
        for axis in layout.dims[op.dims.index(rows.slot)]:
            mine &= self.coordinate(rows, axis, value.keys) == member[axis]
        return mine

    def coordinate(self, rows: RoutedRows, axis: str, keys: Tensor) -> Tensor:
        """`RoutedRows.coordinate` of keys on the device."""
        if axis not in rows.homes:
            stride, size = rows.digit(axis)
            return rows.number(keys, self.machine.offset) // stride % size
        column, table = rows.homes[axis]
        first = self.machine.offset if column == 0 else 0
        return torch.as_tensor(table, device=keys.device)[keys[:, column] - first]

    def kept(self, segment: Segment, op: Op, value: Ragged) -> Ragged:
        """A slice: the rank's own rows of what it holds, or its part of each."""
        rows, have = self.machine.rows(segment, op.inputs[0]), segment.sharding_of(op.inputs[0])
        assert have is not None and op.sharding is not None
        if op.of(SliceAttrs).target_dim in rows.inner(op.dims):
            boxes = (rows.box(op.dims, layout, self.ranks.coordinates) for layout in (have, op.sharding))
            edges = zip(*boxes, strict=True)
            part = tuple(slice(new.start - old.start, new.stop - old.start) for old, new in edges)
            return value.with_data(value.data[(slice(None), *part)])
        physical, keys, data = self.rows_of(segment, op, value, self.ranks.coordinates)
        return Ragged(physical, keys, data, self.held(segment, op, self.ranks.coordinates))
