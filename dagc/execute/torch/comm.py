"""Collectives of one rank over torch.distributed: each is the call that its kind names. One line per kind in `COLLECTIVES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ...ir.op import Op
from ...ir.ops.attributes.moves import MoveAttrs, RingTurnAttrs, SoftmaxScatterAttrs
from ...ir.segment import Segment
from ..failure import CannotRun
from ..values import Ragged
from .communicator import Communicator, Exchange
from .ops import Tensor
from .row_moves import move_rows


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
    """A ring turn: every block comes past, one step at a time."""
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


def _all_reduce(exchange: Exchange, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Sums, maxima, or the largest value of several with its index; of equal ones the first."""
    largest = exchange.op.of(MoveAttrs).reduce == "max"
    if len(operands) == 1:
        return (exchange.reduced(operands[0], dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM),)
    indices, values = (torch.stack(exchange.all_of(operand)) for operand in operands)
    top = values.amax(dim=0)
    last = torch.iinfo(indices.dtype).max
    return torch.where(values == top, indices, last).amin(dim=0), top


def _softmax_merge(exchange: Exchange, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """As in `numpy.collectives`."""
    if len(operands) == 2:
        return (exchange.reduced(operands[0] * operands[1][..., None]),)
    sums, maxima, peak = operands
    factor = torch.exp(maxima - peak)
    total = exchange.reduced(sums * factor)
    return total, factor / total


def _softmax_scatter(exchange: Exchange, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    dim = exchange.op.dims.index(exchange.op.of(SoftmaxScatterAttrs).target_dim)
    return (exchange.scattered(operands[0] * operands[1][..., None], dim, exchange.moved(exchange.got, dim)),)


def _each(move: Callable[[Exchange, Tensor], Tensor]) -> Callable[[Exchange, Sequence[Any]], tuple[Any, ...]]:
    """Every operand moves in the same way."""

    def exchanged(exchange: Exchange, operands: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(move(exchange, operand) for operand in operands)

    return exchanged


COLLECTIVES: Mapping[str, Callable[[Exchange, Sequence[Any]], tuple[Any, ...]]] = {
    "all_reduce": _all_reduce,
    "all_gather": _each(_all_gather),
    "reduce_scatter": _each(_reduce_scatter),
    "all_to_all": _each(_all_to_all),
    "permute": _each(_permute),
    "ring_turn": _each(_ring),
    "softmax_merge": _softmax_merge,
    "softmax_scatter": _softmax_scatter,
}


def collective(comm: Communicator, segment: Segment, op: Op, operands: Sequence[Any]) -> tuple[Any, ...]:
    """What this rank has of each result of a collective. Raises CannotRun."""
    exchange = comm.exchange(segment, op)
    if isinstance(operands[0], Ragged):
        return (move_rows(exchange, operands[0]),)
    move = COLLECTIVES.get(op.kind)
    if move is None:
        raise CannotRun(f"no exchange for `{op.kind}`")
    return move(exchange, operands)[: len(op.results)]
