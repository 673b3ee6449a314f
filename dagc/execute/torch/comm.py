"""Collectives of one rank over torch.distributed: each is the call that its kind names. One line per kind in `COLLECTIVES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ...ir.graph import Op, Segment
from ...ir.ops.attributes import RingTurnAttrs, SoftmaxMergeAttrs
from ..failure import CannotRun
from ..values import Best, Ragged, Routed, Softmax
from .exchange import Communicator, Exchange
from .ops import Tensor
from .row_moves import move_rows


def _all_reduce(exchange: Exchange, value: Tensor) -> Tensor:
    return exchange.reduced(value)


def _all_gather(exchange: Exchange, value: Tensor) -> Tensor:
    dim = exchange.source_dim
    return exchange.gathered(value, dim, exchange.moved(exchange.have, dim))


def _reduce_scatter(exchange: Exchange, value: Tensor) -> Tensor:
    dim = exchange.target_dim
    return exchange.scattered(value, dim, exchange.moved(exchange.got, dim))


def _all_to_all(exchange: Exchange, value: Tensor) -> Tensor:
    source, target = exchange.source_dim, exchange.target_dim
    parts = value.chunk(len(exchange.group.members), dim=target)
    blocks = exchange.blocks(exchange.moved(exchange.got, target))
    send = torch.cat([parts[b].contiguous()[None] for b in blocks])
    out = torch.empty_like(send)
    dist.all_to_all_single(out, send, group=exchange.group.handle)
    pieces = dict(zip(exchange.blocks(exchange.moved(exchange.have, source)), out, strict=True))
    return torch.cat([pieces[i] for i in range(len(pieces))], dim=source)


def _permute(exchange: Exchange, value: Tensor) -> Tensor:
    comm, place = exchange.comm, exchange.comm.ranks.at[1:]
    route = comm.peers(exchange.segment, exchange.op)
    return comm.swap(value, [comm.ranks.world(t) for t in route.targets[place]], route.source.get(place))


def _ring(exchange: Exchange, value: Tensor) -> Tensor:
    """A turn of the ring: every block comes past, one step at a time."""
    comm, op, place = exchange.comm, exchange.op, exchange.comm.ranks.at[1:]
    route = comm.peers(exchange.segment, op)
    split = next(axes for axes in exchange.got.dims if set(op.axes) <= set(axes))
    order = tuple(a for a in split if a in op.axes)
    size = len(exchange.group.members)
    mine = comm.shards.block(order, exchange.rank)
    blocks = {mine: value}
    for step in range(op.of(RingTurnAttrs).steps):
        value = comm.swap(value, [comm.ranks.world(t) for t in route.targets[place]], route.source[place])
        blocks[(mine - 1 - step) % size] = value
    return torch.cat([blocks[i] for i in range(size)], dim=op.dims.index("context"))


COLLECTIVES: Mapping[str, Callable[[Exchange, Tensor], Tensor]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "permute": _permute,
    "ring_turn": _ring,
}


def collective(comm: Communicator, segment: Segment, op: Op, value: Any, stats: Sequence[Any]) -> Any:
    """What this rank has after a collective. `stats`: what it has of the op's further inputs."""
    exchange = comm.exchange(segment, op)
    if isinstance(value, Softmax):
        return _softmax(exchange, value, stats)
    if isinstance(value, Ragged):
        return move_rows(exchange, value)
    move = COLLECTIVES.get(op.kind)
    if move is None:
        raise CannotRun(f"no exchange for `{op.kind}`")
    if isinstance(value, Best):
        if op.kind == "all_reduce":
            return _best(exchange, value)
        return Best(move(exchange, value.value), move(exchange, value.index))
    if isinstance(value, Routed):
        return Routed(move(exchange, value.experts), move(exchange, value.weights))
    return move(exchange, value)


# -- pieces of a softmax, and the largest of several -----------------------------------------------


def _softmax(exchange: Exchange, part: Softmax, stats: Sequence[Any]) -> Any:
    merged = exchange.op.of(SoftmaxMergeAttrs).part
    if merged == "row_max":
        return exchange.reduced(part.maxima, dist.ReduceOp.MAX)
    if merged == "row_sum":
        peak = stats[0]
        return peak, exchange.reduced(part.sums * torch.exp(part.maxima - peak))
    peak, total = stats[0]
    return exchange.reduced(part.output * (torch.exp(part.maxima - peak) / total)[..., None])


def _best(exchange: Exchange, value: Best) -> Best:
    values, indices = torch.stack(exchange.all_of(value.value)), torch.stack(exchange.all_of(value.index))
    top = values.amax(dim=0)
    last = torch.iinfo(indices.dtype).max
    return Best(top, torch.where(values == top, indices, last).amin(dim=0))
