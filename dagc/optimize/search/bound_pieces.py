"""The pieces that a plan which was costed shows to bounds: seconds of its ops and moves, by what decides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...base.frozen import record
from ...cost.records import Costs, OpCost, value_at
from ...ir.graph import Graph
from ...ir.op import Op
from ...ir.ops.attributes.experts import DispatchAttrs, ExchangeAttrs
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.segment import Segment
from .objectives import Floats

ATTENTION, ROUTED, EXCHANGE = 0, 1, 2
"""Sides of a layer: what attention's degrees decide, what those of the experts do, and what both do: taking tokens there and back."""

BEFORE, INTO, AFTER = 0, 1, 2
"""Moves before a layer's experts, those that bring tokens to experts and back, and those of their results."""


@record(slots=False)
class Layer:
    """A segment as it is before collectives: ops in program order, each with its side and where its inputs come from. `edges`: (from,
    to) of values that may have to move, `to` empty for the result; `side` of each: whether it is before the experts."""

    name: str
    repeat: int
    input: str
    output: str
    ops: tuple[tuple[str, int], ...]
    edges: tuple[tuple[str, str], ...]
    sides: tuple[int, ...]

    @staticmethod
    def of(segment: Segment, own: frozenset[str]) -> Layer:
        """`own`: ops of the segment that are no collectives, in a graph before these were inserted."""
        ops: list[tuple[str, int]] = []
        edges: list[tuple[str, str]] = []
        sides: list[int] = []
        side, origin = ATTENTION, dict.fromkeys((segment.input, *segment.beside), segment.input)
        for op in segment.ops:
            inputs = [n for n in op.inputs if not segment.is_weight(n)]
            if segment.is_weight(op.name):
                continue  # a copy of a weight, which no bound counts
            if op.name not in own:
                for name in (op.name, *(v.name for v in op.more)):
                    origin[name] = origin[inputs[0]]
                continue
            side = ROUTED if isinstance(op.attrs, DispatchAttrs) else side
            for source in dict.fromkeys(origin[n] for n in inputs):
                edges.append((source, op.name))
                sides.append(side)
            for name in (op.name, *(v.name for v in op.more)):
                origin[name] = op.name
            ops.append((op.name, _side(op)))
        edges.append((origin[segment.output], ""))
        sides.append(side)
        return Layer(
            segment.name, segment.repeat, segment.input, origin[segment.output], tuple(ops), tuple(edges), tuple(sides)
        )


def _side(op: Op) -> int:
    if isinstance(op.attrs, ExchangeAttrs):
        return EXCHANGE
    return ROUTED if op.scope == "experts" else ATTENTION


@record
class Stored:
    """Bytes that a rank would store with one stage: weights outside of experts, of experts, and the cache of one lane of one micro-batch."""

    dense_B: float
    routed_B: float
    cache_B: float


@record(slots=False)
class Learnt:
    """What a plan shows. `pieces`: one for each table; None: not known."""

    layers: tuple[Layer, ...]
    pieces: tuple[Floats | None, ...]
    stored: Stored | None = None


def pieces_of(graph: Graph, costs: Costs, own: Mapping[str, frozenset[str]]) -> Learnt:
    """The layers of a plan that was costed, and its pieces, one for each table. `costs`: of its first pass, which is that of the shortest
    context; `own`: ops by segment that are no collectives."""
    layers = tuple(Layer.of(s, own[s.name]) for s in graph.segments)
    moves = [_moves(layer, graph.segment(layer.name), costs) for layer in layers]
    computed = [None] * len(OPS) if fuses(graph) else _computed(layers, costs)
    moved = [np.concatenate([each[k] for each in moves], axis=1) for k in range(len(moves[0]))]
    return Learnt(layers, tuple(piece for pair in zip(computed, moved, strict=True) for piece in pair))


def fuses(graph: Graph) -> bool:
    """Whether ops run as one kernel: what stays on the chip depends on where exchanges are, and so is another plan's. Of a graph without
    collectives it is the most."""
    return any(op.kernel for segment in graph.segments for op in segment.ops)


def ops_of(graph: Graph, costs: Costs, own: Mapping[str, frozenset[str]], stored: Stored) -> Learnt:
    """The same of a graph without collectives: ops alone, and what is stored."""
    layers = tuple(Layer.of(s, own[s.name]) for s in graph.segments)
    return Learnt(layers, tuple(piece for each in _computed(layers, costs) for piece in (each, None)), stored)


def _computed(layers: Sequence[Layer], costs: Costs) -> list[Floats]:
    """Ops of all layers, by side."""
    found = [_ops(layer, costs) for layer in layers]
    return [np.concatenate([each[k] for each in found], axis=1) for k in (ATTENTION, ROUTED, EXCHANGE)]


OPS = (0, 2, 4)
"""Tables of ops; those between are of moves."""


def _ops(layer: Layer, costs: Costs) -> list[Floats]:
    """Of a layer: ops of attention, of experts, and those that take tokens to experts and back: seconds, zeros where another one has it, and
    two sums of what one rank computes.

    Each side counts with the rank that works longest on it. Where ranks of attention differ, in the place of their tokens, so do the
    tokens, and no expert begins before it has the tokens of all ranks that share it. One and the same rank computes as long as the
    longest of one side and the least of the other."""
    found = [costs.ops[layer.name, name] for name, _ in layer.ops]
    out = [np.zeros((2, len(layer.ops) + SUMS)) for _ in (ATTENTION, ROUTED, EXCHANGE)]
    for row, arrays in enumerate(
        ([c.time_s for c in found], [c.floor_s if c.family else c.time_s for c in found]),
    ):
        for side in (ATTENTION, ROUTED, EXCHANGE):
            at = [k for k, (_, s) in enumerate(layer.ops) if s == side]
            own = [arrays[k] for k in at]
            rank = None if side == EXCHANGE else _rank([found[k].time_s for k in at])
            out[side][row, at] = [_at(each, rank) for each in own]
            most, least = _totals(own)
            out[side][row, len(layer.ops) :] = {
                ATTENTION: (most, least), ROUTED: (least, most), EXCHANGE: (least, least),
            }[side]  # fmt: skip
    return out


LAST = "last"
"""The op that picks a sequence's last token."""

SUMS = 2


def _totals(arrays: Sequence[Floats]) -> tuple[float, float]:
    """What the busiest rank computes in all, and the idlest."""
    if not arrays:
        return 0.0, 0.0
    total = np.sum(np.broadcast_arrays(*arrays), axis=0)
    return float(total.max()), float(total.min())


def _moves(layer: Layer, segment: Segment, costs: Costs) -> list[Floats]:
    """Of a layer: moves before the experts, those that bring tokens there and back, and those after: seconds, zeros where another one has
    it, and the sum of all on the links."""
    own = {name for name, _ in layer.ops}
    edge = {e: k for k, e in enumerate(layer.edges)}
    moves = [np.zeros(len(layer.edges) + 1) for _ in (BEFORE, INTO, AFTER)]
    routed = {name for name, own_side in layer.ops if own_side != ATTENTION}
    given = (segment.input, *segment.beside)
    origin, delay, side = dict.fromkeys(given, segment.input), dict.fromkeys(given, 0.0), ATTENTION
    sent: dict[str, dict[str, float]] = {name: {} for name in given}
    counted: set[str] = set()

    def taken(name: str, to: str) -> None:
        """A value where it is needed: what moved it there counts on the side of the first that takes it."""
        k = edge[origin[name], to]
        part = moves[BEFORE if side == ATTENTION else INTO if to in routed else AFTER]
        part[k] = max(part[k], delay[name])
        part[-1] += sum(time_s for op, time_s in sent[name].items() if op not in counted)
        counted.update(sent[name])

    for op in segment.ops:
        inputs = [n for n in op.inputs if not segment.is_weight(n)]
        if segment.is_weight(op.name):
            continue
        names = (op.name, *(v.name for v in op.more))
        if op.name in own:
            side = ROUTED if isinstance(op.attrs, DispatchAttrs) else side
            for name in inputs:
                taken(name, op.name)
            origin |= dict.fromkeys(names, op.name)
            delay |= dict.fromkeys(names, 0.0)
            sent |= {name: {} for name in names}
            continue
        time_s = 0.0 if op.kind == LAST else _least(costs.ops[segment.name, op.name])  # no move
        before = {k: v for n in inputs for k, v in sent[n].items()}
        hidden = isinstance(op.attrs, RingTurnAttrs)  # all but its end
        origin |= dict.fromkeys(names, origin[inputs[0]])
        delay |= dict.fromkeys(names, max(delay[n] for n in inputs) + (0.0 if hidden else time_s))
        sent |= dict.fromkeys(names, before | ({op.name: time_s} if op.is_collective else {}))
    taken(segment.output, "")
    return [np.stack([one, one]) for one in moves]


def _least(cost: OpCost) -> float:
    return float(cost.time_s.min())


def _rank(arrays: Sequence[Floats]) -> tuple[int, ...] | None:
    """The rank that works longest on these ops."""
    if not arrays:
        return None
    total = np.sum(np.broadcast_arrays(*arrays), axis=0)
    return tuple(int(k) for k in np.unravel_index(int(total.argmax()), total.shape))


def _at(array: Floats, rank: tuple[int, ...] | None) -> float:
    return float(array.min()) if rank is None else value_at(array, rank)
