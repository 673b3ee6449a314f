"""Routed rows between ranks over torch.distributed: each member of a group gets the rows of its experts whose tokens are at
home where its layout says."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ...base.collectives import REDUCTIONS
from ...ir.op import Op
from ...ir.ops.attributes.moves import MoveAttrs, SliceAttrs
from ...ir.segment import Segment
from ...ir.sharding import Sharding
from ..routed import RoutedRows
from ..shards import Coordinates, Shards
from ..values import Ragged
from .communicator import Exchange
from .groups import Group
from .ops import Tensor, ordered
from .processes import LaunchError


def move_rows(exchange: Exchange, value: Ragged) -> Ragged:
    """Rows to the members that have them next, or parts of rows between members with the same ones."""
    op, shards, group = exchange.op, exchange.shards, exchange.group
    inner = shards.rows(exchange.segment, op.inputs[0]).inner(op.dims)
    if {op.of(MoveAttrs).source_dim, op.of(MoveAttrs).target_dim} & set(inner):
        return value.with_data(_widths(exchange, value.data, inner))
    if op.kind == "permute":
        _refuse_other_widths(exchange)
    sent = [_sent_to(exchange, value, member) for member in group.members]
    counts = torch.tensor([len(p) for p, _, _ in sent], device=value.data.device)
    coming = torch.empty_like(counts)
    dist.all_to_all_single(coming, counts, group=group.handle)
    physical, keys, data = (torch.cat(parts) for parts in zip(*sent, strict=True))
    labels = torch.cat([physical[:, None], keys], dim=1)
    sizes = (counts.tolist(), coming.tolist())
    labels, data = (_swapped(group, x, *sizes) for x in (labels, data))
    experts = _experts(shards, exchange.segment, op, exchange.got, exchange.rank)
    return ordered(labels[:, 0], labels[:, 1:], data, experts, added=op.kind in REDUCTIONS)


def kept_rows(shards: Shards, segment: Segment, op: Op, rank: Coordinates, value: Ragged) -> Ragged:
    """A slice: the rank's own rows of what it has, or its part of each."""
    rows, have = shards.rows(segment, op.inputs[0]), segment.sharding_of(op.inputs[0])
    assert have is not None and op.sharding is not None
    if op.of(SliceAttrs).target_dim in rows.inner(op.dims):
        edges = zip(rows.box(op.dims, have, rank), rows.box(op.dims, op.sharding, rank), strict=True)
        part = tuple(slice(new.start - old.start, new.stop - old.start) for old, new in edges)
        return value.with_data(value.data[(slice(None), *part)])
    mine = _belong(shards, segment, op, op.sharding, value, rank)
    experts = _experts(shards, segment, op, op.sharding, rank)
    return Ragged(value.physical[mine], value.keys[mine], value.data[mine], experts)


def _refuse_other_widths(exchange: Exchange) -> None:
    """A row travels in its sender's layout."""
    op, shards = exchange.op, exchange.shards
    rows = shards.rows(exchange.segment, op.inputs[0])
    if any(rows.box(op.dims, exchange.have, r) != rows.box(op.dims, exchange.got, r) for r in shards.ranks):
        raise LaunchError(f"`dagc run` does not move the width of routed rows by permute (op `{op.name}`)")


def _widths(exchange: Exchange, data: Tensor, inner: tuple[str, ...]) -> Tensor:
    """Members with the same rows gather their parts of each, or scatter sums of it."""
    op = exchange.op
    if op.kind == "all_gather":
        dim = exchange.source_dim
        return exchange.gathered(data, 1 + inner.index(op.dims[dim]), exchange.moved(exchange.have, dim))
    if op.kind == "reduce_scatter":
        dim = exchange.target_dim
        return exchange.scattered(data, 1 + inner.index(op.dims[dim]), exchange.moved(exchange.got, dim))
    raise LaunchError(f"`dagc run` does not move the width of routed rows by {op.kind} (op `{op.name}`)")


def _swapped(group: Group, rows: Tensor, out: list[int], coming: list[int]) -> Tensor:
    received = rows.new_empty((sum(coming), *rows.shape[1:]))
    dist.all_to_all_single(received, rows.contiguous(), coming, out, group=group.handle)
    return received


def _experts(shards: Shards, segment: Segment, op: Op, layout: Sharding, member: Coordinates) -> range:
    """Physical experts that a layout of the op's dims gives a member."""
    return shards.rows(segment, op.inputs[0]).experts(op.dims, layout, member)


def _sent_to(exchange: Exchange, value: Ragged, member: Coordinates) -> tuple[Tensor, Tensor, Tensor]:
    """(physical experts, keys, data) of this rank's rows that a member gets."""
    mine = _belong(exchange.shards, exchange.segment, exchange.op, exchange.got, value, member)
    if exchange.op.kind == "permute" and member != exchange.rank:
        mine &= ~_lent(exchange, value, member)
    return value.physical[mine], value.keys[mine], value.data[mine]


def _lent(exchange: Exchange, value: Ragged, member: Coordinates) -> Tensor:
    """Of the rows of this rank those that `member` has already, or has from an earlier one of the group: members of a
    permute may have common rows, and of those the first sends."""
    holders = [*exchange.group.members[: exchange.group.index], member]
    shards, segment, op = exchange.shards, exchange.segment, exchange.op
    return torch.stack([_belong(shards, segment, op, exchange.have, value, h) for h in holders]).any(dim=0)


def _belong(shards: Shards, segment: Segment, op: Op, layout: Sharding, value: Ragged, member: Coordinates) -> Tensor:
    """Which rows a layout of the op's dims gives a member."""
    rows, experts = shards.rows(segment, op.inputs[0]), _experts(shards, segment, op, layout, member)
    mine = (value.physical >= experts.start) & (value.physical < experts.stop)
    for axis in layout.dims[op.dims.index(rows.slot)]:
        mine &= _coordinate(rows, axis, value.keys, shards.offset) == member[axis]
    return mine


def _coordinate(rows: RoutedRows, axis: str, keys: Tensor, offset: int) -> Tensor:
    """`RoutedRows.coordinate` of keys on the device."""
    if axis not in rows.homes:
        stride, size = rows.digit(axis)
        return rows.number(keys, offset) // stride % size
    column, table = rows.homes[axis]
    return torch.as_tensor(table, device=keys.device)[keys[:, column] - (offset if column == 0 else 0)]
