"""Bytes that collectives really moved in a run, counted rank by rank, against what the compiler says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose, prod

import numpy as np

from ..base.dtypes import DTYPE_BYTES
from ..cost.records import Costs, OpCost
from ..ir.graph import Graph
from ..ir.handed_on import sent
from ..ir.op import Op
from ..ir.ops.attributes.moves import RingTurnAttrs
from ..ir.requests import request_moves
from ..ir.segment import Segment
from ..ir.sharding import Sharding
from .record import Moved, Record, kept_of
from .routed import RoutedRows
from .shards import Shards
from .twin import scale
from .values import Ints, Ragged


def count(shards: Shards, segment: Segment, op: Op, inputs: Sequence[object], results: Sequence[object]) -> Moved:
    """What each rank's buffers and blocks say of one call, by the first of what it moves.

    An all-gather, all-to-all or permute moves the elements of a rank's result that it did not have; a reduce-scatter
    one block of the result from every other member; an all-reduce is a reduce-scatter and an all-gather.
    """
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    if op.is_across:
        return _across(shards, segment, op, inputs, results)
    group = shards.mesh.size(op.axes)
    moved = Moved(isinstance(inputs[0], Ragged))
    for rank, before, after in zip(shards.at(op.on), inputs, results, strict=True):
        held, made = _elements(before), _elements(after)
        if isinstance(op.attrs, RingTurnAttrs):
            wire = made - held  # every block but its own has passed
        elif op.runtime_kind == "all_reduce":
            wire = 2.0 * held * (group - 1) / group
        elif op.runtime_kind == "reduce_scatter":
            wire = made * (group - 1)
        elif isinstance(before, Ragged) and isinstance(after, Ragged):
            rows = shards.rows(segment, op.inputs[0])
            boxes = rows.box(op.dims, have, rank), rows.box(op.dims, got, rank)
            wire = made - kept(rows, before, after, boxes, shards.offset)
        else:
            whole = shards.whole(segment, op.dims, op.scope)
            wire = made - _overlap(shards.parts(whole, have.dims, rank), shards.parts(whole, got.dims, rank))
        moved.payload.append(made if op.kind == "permute" else held)
        moved.wire.append(wire)
    if moved.routed and op.kind != "permute":  # of a permute the busiest rank's is stated
        moved.crossing = crossing(shards, segment, op)
    return moved


def _across(shards: Shards, segment: Segment, op: Op, inputs: Sequence[object], results: Sequence[object]) -> Moved:
    """From one set of ranks to another: what each taker got, and what each sender sent of it. Those that have the same elements
    send equal parts of them."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    places = [_places(shards, segment, op, at, values) for at, values in ((have, inputs), (got, results))]
    rows = np.unique(np.concatenate([codes for end in places for codes, _ in end]))
    routed = isinstance(inputs[0], Ragged)
    inner = op.dims[2:] if routed else op.dims
    counts = np.zeros((2, len(rows), *shards.whole(segment, inner, op.scope)))
    at = [[(np.searchsorted(rows, codes), *box) for codes, box in end] for end in places]
    for end, ranks in zip(counts, at, strict=True):
        for place in ranks:
            end[place] += 1
    copies, asked = counts
    each = np.divide(asked, copies, out=np.zeros_like(asked), where=copies > 0)
    sent = [float(each[place].sum()) for place in at[0]]
    return Moved(routed, None, list(map(_elements, results)), sent, across=True)


def _places(
    shards: Shards, segment: Segment, op: Op, layout: Sharding, values: Sequence[object]
) -> list[tuple[Ints, tuple[slice, ...]]]:
    """Of each rank its rows by number, and its part of a row; of a plain array one row."""
    found = []
    for rank, value in zip(shards.at(layout.on), values, strict=True):
        if isinstance(value, Ragged):
            rows = shards.rows(segment, op.inputs[0])
            codes = rows.code(value.physical, value.keys, shards.offset)
            found.append((codes, rows.box(op.dims, layout, rank)))
        else:
            whole = shards.whole(segment, op.dims, op.scope)
            found.append((np.zeros(1, dtype=np.int64), shards.parts(whole, layout.dims, rank)))
    return found


def _run(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


def crossing(shards: Shards, segment: Segment, op: Op) -> float:
    """Wire over payload, by all rows that there could be: each choice of each token at each expert."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    rows, group = shards.rows(segment, op.inputs[0]), shards.mesh.size(op.axes)
    keys = rows.every_key(shards.offset)
    payload = wire = 0.0
    for rank in shards.at(op.on):
        before, after = ([_run(rows.experts(op.dims, at, rank)), *rows.box(op.dims, at, rank)] for at in (have, got))
        held, made = (rows.mine(op.dims, at, rank, keys, shards.offset) for at in (have, got))
        had = float(held.sum()) * prod(edges.stop - edges.start for edges in before)
        has = float(made.sum()) * prod(edges.stop - edges.start for edges in after)
        common = (held & made).sum() * _overlap(before, after)
        payload += had
        if op.kind == "all_reduce":
            wire += 2.0 * had * (group - 1) / group
        else:
            wire += has * (group - 1) if op.kind == "reduce_scatter" else has - float(common)
    return wire / payload


def _elements(value: object) -> float:
    if isinstance(value, Ragged):
        return float(value.data.size)
    return float(value.size) if isinstance(value, np.ndarray) else 0.0


def _overlap(before: Sequence[slice], after: Sequence[slice]) -> float:
    """Elements of the rank's result that it had before."""
    return float(prod(max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in zip(before, after, strict=True)))


def kept(rows: RoutedRows, before: Ragged, after: Ragged, boxes: tuple[tuple[slice, ...], ...], offset: int) -> float:
    """Elements of the rows that a rank has both before and after a move. `boxes`: its part of a row before, after."""
    had, has = (rows.code(value.physical, value.keys, offset) for value in (before, after))
    return float(np.isin(has, had).sum()) * _overlap(*boxes)


def compare_requests(shards: Shards, record: Record, stated: Mapping[str, OpCost], costed: Graph) -> list[str]:
    """The scatter and the gather, where their counted bytes are not the stated ones at any call of any group, and those that are
    stated and never ran. `costed`: as in `compare_bytes`."""
    wrong = []
    moves = {move.kind: move for move in request_moves(shards.graph)}
    for kind in sorted(set(stated) | set(record.requests)):
        calls, cost, move = record.requests.get(kind, []), stated.get(kind), moves.get(kind)
        if not calls or cost is None or move is None:
            wrong.append(kind)
            continue
        here, plan = shards.graph.segment(move.segment), costed.segment(move.segment)
        scope, dims = here.scope_of(move.value), here.dims_of(move.value)
        each_B = DTYPE_BYTES[here.dtype_of(move.value)] * scale(plan, here, dims, scope)
        if not all(_equal(c.payload * each_B, cost.payload_B) and _equal(c.wire * each_B, cost.wire_B) for c in calls):
            wrong.append(kind)
    return wrong


def compare_bytes(shards: Shards, record: Record, costs: Costs, costed: Graph) -> list[str]:
    """Collectives and sends whose counted bytes are not those of the cost pass, at any call; and those that it counts
    and that never ran. On every rank the payload, and on the busiest one the bytes on the wire, are equal; of routed
    rows the mean payload is, the part of it that crosses the wire where every row is equally likely, and with balanced choices
    the mean wire. `costed`: the graph that was costed; where its
    sizes are not those that ran, what was counted is taken as often as it has elements."""
    wrong = []
    trains = shards.graph.embedding.upstream is not None
    for edge in shards.graph.sends:
        for back in (False, True) if trains else (False,):
            ends = (edge.target, edge.source) if back else (edge.source, edge.target)
            sizes_B = []
            for name, here, value, _ in sent(shards.graph, edge, back=back):
                plan, dims, scope = costed.segment(here.name), here.dims_of(value), here.scope_of(value)
                each_B = DTYPE_BYTES[here.dtype_of(value)] * scale(plan, here, dims, scope)
                sizes_B.append([size * each_B for size in record.sent.get((*ends, name), [])])
            calls_B = [sum(call) for call in zip(*sizes_B, strict=True)]
            stated = (costs.returns or costs.edges) if back else costs.edges
            if not calls_B or not all(_equal(call_B, stated[edge.source].payload_B) for call_B in calls_B):
                wrong.append(f"send {ends[0]} -> {ends[1]}")
    counted = {key for key, cost in costs.ops.items() if cost.group is not None}
    for segment, name in sorted(counted | set(record.traffic)):
        calls = record.traffic.get((segment, name), [])
        if (segment, name) not in counted or not calls:
            wrong.append(f"{segment}/{name}")
            continue
        here, op = shards.graph.segment(segment), shards.graph.segment(segment).by_name[name]
        each_B = DTYPE_BYTES[here.dtype_of(op.inputs[0])] * scale(costed.segment(segment), here, op.dims, op.scope)
        cost = costs.ops[segment, name]
        more, even = kept_of(here, op, record, len(calls)), shards.inputs.balanced and not record.kept
        if not all(_right(moved, cost, each_B * n, even) for moved, n in zip(calls, more, strict=True)):
            wrong.append(f"{segment}/{name}")
    return wrong


def _right(moved: Moved, cost: OpCost, each_B: float, balanced: bool) -> bool:
    payload, wire = np.asarray(moved.payload) * each_B, np.asarray(moved.wire) * each_B
    if moved.across:
        return _equal(payload.mean(), cost.payload_B) and _equal(wire.mean(), cost.wire_B)
    if moved.routed:
        stated = cost.wire_B if moved.crossing is not None else 0.0
        likely = isclose(cost.payload_B * (moved.crossing or 0.0), stated, rel_tol=1e-9)
        return likely and _equal(payload.mean(), cost.payload_B) and (not balanced or _equal(wire.mean(), cost.wire_B))
    return bool(np.all(np.isclose(payload, cost.payload_B, rtol=1e-12))) and _equal(wire.max(), cost.wire_B)


def _equal(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=1e-12)
