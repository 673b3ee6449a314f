"""bound: a time that no plan of a row can beat, put together from pieces of plans that were costed.

Passes that split work only annotate, and one pass inserts collectives. So what an op of attention takes follows from the degrees
of attention and the sequences on a rank alone; what an op of experts takes from the degrees of experts, and which tokens their ranks
have; what a collective before the experts takes from attention and where the groups of experts cut it. Each of these is read off
the first costed plan that has it, and holds for all rows of the same key (tests compare random plans of equal keys). What no costed
plan has shown yet counts as nothing. Pieces are laid out as the scheduler does, with fewer ops and without waiting for other ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...base.axes import AXES, DATA, EXPERT, EXPERT_TENSOR, SEQUENCE, STAGES, TENSOR
from ...base.frozen import record
from ...cost.records import Costs, OpCost
from ...ir.graph import Graph
from ...ir.op import Op
from ...ir.ops.attributes.experts import ExchangeAttrs
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.segment import Segment
from .objectives import Floats
from .rules import PARTS, Facts, batching
from .space import Flags, Ints, Pause, Rows, never, packed

ATTENTION, ROUTED, EXCHANGE = 0, 1, 2
"""Sides of a layer: what attention's degrees decide, what those of the experts do, and what both do: taking tokens there and back."""
BEFORE, INTO, AFTER = 0, 1, 2
"""Moves before a layer's experts, those that bring tokens to experts and back, and those of their results."""
IN_KEYS = {
    "gpus", STAGES, "replicas", DATA, SEQUENCE, TENSOR, EXPERT, "attention.dp", "attention.sp", "attention.tp", "experts.ep", "experts.tp",
    "microbatches", "overlap", "dispatch", "sp_method", "sequence_parallel", "sequences", "dcp",
    "stages", "schedule", "virtual", "recompute", "zero", "grad_overlap", "exchange_overlap",
}  # fmt: skip
"""Choices that enter keys by what they do; all others enter as they are."""


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
            side = ROUTED if op.kind == "dispatch" else side
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


@dataclass
class Table:
    """Pieces by cell: a group of rows and, in it, a number of tokens. Where `rising`, a cell says something of others of its group: more
    tokens take no less than the floor of fewer, and fewer no less than their share of the floor of more, since weights are read by
    few tokens as by many. The floor: times of the roofline, and of measured kernels, whose times may fall a little, that of the
    datasheet."""

    groups: Ints
    tokens: Floats
    rising: bool
    cell: Ints = field(init=False)
    columns: Floats = field(init=False)
    """[pieces, cells]"""

    def __post_init__(self) -> None:
        levels, level = np.unique(self.tokens, return_inverse=True)
        pairs, self.cell = np.unique(self.groups * len(levels) + level, return_inverse=True)
        self.level, self.group = levels[pairs % len(levels)], pairs // len(levels)  # of cells
        self.exact = np.zeros(len(pairs), dtype=bool)
        self.total = np.zeros(len(pairs))
        self.columns = np.zeros((0, len(pairs)))

    def widen(self, pieces: int) -> None:
        self.columns = np.zeros((pieces, len(self.exact)))

    def known(self, row: int) -> bool:
        return bool(self.exact[self.cell[row]])

    def put(self, row: int, found: Floats) -> Flags | None:
        """Rows of which more is known now; None: none. `found`: seconds and their floors [2, pieces]."""
        own = self.cell[row]
        if self.exact[own]:
            return None
        new = np.zeros(len(self.exact), dtype=bool)
        if self.rising:
            # Pieces are of one rank, so all of one cell or all of another.
            scale = np.minimum(self.level / self.level[own], 1.0)
            new = (self.group == self.group[own]) & ~self.exact & (scale * found[1].sum() > self.total)
            self.columns[:, new] = found[1][:, None] * scale[new]
            self.total[new] = scale[new] * found[1].sum()
        self.columns[:, own] = found[0]
        self.exact[own] = new[own] = True
        return new[self.cell]

    def at(self, rows: Ints) -> Floats:
        """[pieces, rows]"""
        return np.take(self.columns, self.cell[rows], axis=1)


@dataclass
class Bounds:
    """Of the rows of one space: `time_s` is the least that all passes of each may take. `strides`: by tp where heads cut its axis, as
    flags of strides."""

    rows: Rows
    facts: Facts
    strides: Mapping[int, int] | None = None
    pause: Pause = never
    time_s: Floats = field(init=False)
    layers: list[Layer] = field(default_factory=list)
    tables: list[Table] = field(init=False)

    def __post_init__(self) -> None:
        rows, facts = self.rows, self.facts
        count = len(rows)
        self.time_s = np.zeros(count)
        each, lanes, micro = (np.broadcast_to(a, (count,)) for a in batching(rows, facts))
        self.lanes, self.micro = lanes, micro
        self.stages = np.broadcast_to(rows.number(STAGES), (count,))
        chunk = np.broadcast_to(rows.number("chunk"), (count,))
        self.passes = np.maximum(facts.new // chunk, 1) if not facts.phase.generates else np.ones(count, dtype=np.int64)
        self.tables = [
            Table(
                _numbered(columns, self.pause), np.broadcast_to(np.asarray(tokens, dtype=np.float64), (count,)), rising
            )
            for columns, tokens, rising in keys(rows, facts, each, self.strides)
        ]
        self.tables, self.memory = self.tables[:-2], self.tables[-2:]
        self.memory[0].widen(2)
        self.memory[1].widen(1)
        self.room_B = np.full(count, np.inf)
        for name, own in facts.pools.items():
            at = np.broadcast_to(rows.is_("hardware", name) if len(facts.pools) > 1 else True, (count,))
            engine = facts.phase.memory
            most_B = own.memory_B * (engine.fraction if engine.of == "all" else 1.0)
            self.room_B[at] = most_B - own.reserve_B
        self.over_B = -self.room_B

    def learn(self, row: int, learnt: Learnt) -> None:
        """From a plan that was costed, or glanced at: what `pieces_of` or `ops_of` finds of it."""
        layers, pieces = learnt.layers, learnt.pieces
        if learnt.stored is not None:
            self._store(row, learnt.stored)
        if not self.layers:
            self.layers = list(layers)
            ops = sum(len(one.ops) + SUMS for one in layers)
            edges = sum(len(one.edges) + 1 for one in layers)
            for k, table in enumerate(self.tables):
                table.widen(ops if k in OPS else edges)
        touched = np.zeros(len(self.rows), dtype=bool)
        for table, piece in zip(self.tables, pieces, strict=True):
            more = None if piece is None else table.put(row, piece)
            touched = touched if more is None else touched | more
        at = np.flatnonzero(touched)
        if len(at):
            self.time_s[at] = self.times(at)

    def news(self, row: int) -> News:
        """Cells that a row would tell of and nobody knows."""
        return frozenset((k, int(t.cell[row])) for k, t in enumerate(self.tables) if not t.known(row))

    @property
    def too_full(self) -> Flags:
        """Rows whose weights and cache alone do not fit."""
        return self.over_B > 0

    def _store(self, row: int, stored: Stored) -> None:
        """Weights lie on stages, all of which have as much as their mean on some."""
        dense, routed = self.memory
        changed = np.zeros(len(self.rows), dtype=bool)
        for table, found in ((dense, (stored.dense_B, stored.cache_B)), (routed, (stored.routed_B,))):
            more = table.put(row, np.asarray([found, found]))
            changed = changed if more is None else changed | more
        at = np.flatnonzero(changed)
        (dense_B, cache_B), (routed_B,) = dense.at(at), routed.at(at)
        held_B = (dense_B + routed_B + cache_B * self.micro[at] * self.lanes[at]) / self.stages[at]
        self.over_B[at] = held_B * (1.0 - 1e-9) - self.room_B[at]

    def unseen(self, row: int) -> News:
        """Groups of ops that a glance at a row would tell something of."""
        return frozenset(
            (k, int(t.groups[row])) for k, t in enumerate(self.tables) if k in OPS[:2] and not t.known(row)
        )

    def known(self, row: int) -> bool:
        """Whether every piece of a row was seen."""
        return all(table.known(row) for table in self.tables)

    def times(self, at: Ints) -> Floats:
        """The least seconds of all whole passes of some rows."""
        out = np.empty(len(at))
        for start in range(0, len(at), BLOCK):
            some = at[start : start + BLOCK]
            found = [table.at(some) for table in self.tables]
            one = self.one_pass(found[0] + found[2] + found[4], found[1] + found[3] + found[5], some)
            out[start : start + BLOCK] = self.passes[some] * one
        return out

    def one_pass(self, compute: Floats, move: Floats, at: Ints) -> Floats:
        """Seconds of one pass: `compute` [ops and two sums of each layer, rows], `move` [edges and a sum of each layer, rows]."""
        chain, tail, first, second, sent = (np.zeros(len(at)) for _ in range(5))
        op_at = edge_at = 0
        for layer in self.layers:
            own = compute[op_at : op_at + len(layer.ops)]
            moved = move[edge_at : edge_at + len(layer.edges)]
            chain += layer.repeat * _laid_out(layer, own, moved)
            tail = np.maximum(tail, moved[-1])
            first += layer.repeat * compute[op_at + len(layer.ops)]
            second += layer.repeat * compute[op_at + len(layer.ops) + 1]
            sent += layer.repeat * move[edge_at + len(layer.edges)]
            op_at += len(layer.ops) + SUMS
            edge_at += len(layer.edges) + 1
        lanes, micro, stages = self.lanes[at], self.micro[at], self.stages[at]
        streams = lanes * np.maximum(np.maximum(first, second), sent)
        if self.facts.phase.generates:
            around = np.maximum(chain, streams)
            step: Floats = np.maximum(around, micro * around / stages)
            return step
        # A stage computes for one micro-batch after the other, each from its first op to its last, whatever it waits for in between. On
        # any stage all of them do, after the stages before it and before those behind; the mean over stages.
        each = np.maximum(chain - stages * tail, streams)
        makespan: Floats = np.maximum(chain, micro * each / stages + chain * (1.0 - 1.0 / stages))
        return makespan


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


News = frozenset[tuple[int, int]]
"""What nobody knows yet: tables and their cells or groups."""
OPS = (0, 2, 4)
"""Tables of ops; those between are of moves."""
BLOCK = 2048
"""Rows that are bounded at once: their pieces stay in a core's cache."""


def _laid_out(layer: Layer, compute: Floats, move: Floats) -> Floats:
    """When the result of a layer is ready, ops in program order."""
    zero = np.zeros(compute.shape[1])
    ready = {layer.input: zero}
    edge, free = 0, zero
    for k, (name, _) in enumerate(layer.ops):
        start = free
        while edge < len(layer.edges) and layer.edges[edge][1] == name:
            start = np.maximum(start, ready[layer.edges[edge][0]] + move[edge])
            edge += 1
        free = start + compute[k]
        ready[name] = free
    done: Floats = ready[layer.output] + move[-1]
    return done


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
            side = ROUTED if op.kind == "dispatch" else side
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
    if rank is None:
        return float(array.min())
    return float(array[tuple(min(k, n - 1) for k, n in zip(rank, array.shape, strict=True))])


def usable(rows: Rows, facts: Facts) -> bool:
    """Whether bounds are known of such rows: mixed steps and drafters have pieces of their own."""
    paths = {d.path for d in rows.domains}
    return (
        not paths & {*PARTS}
        and not facts.phase.parts
        and facts.phase.drafter == "none"
        and not facts.phase.strategy.passes
    )


Key = tuple[Sequence[Ints | Floats], Ints | Floats, bool]
"""Columns that must be equal, tokens, and whether a piece of fewer tokens says something of more."""


def keys(rows: Rows, facts: Facts, each: Ints, strides: Mapping[int, int] | None = None) -> list[Key]:
    """Of ops of attention, moves before the experts, ops of experts, moves from there on, and ops that take tokens there and back; of what is
    stored, weights outside of experts with the cache, and experts.

    Which chains of moves there are follows from where axes are cut: by the groups of both sides, by dcp, and by heads (`strides`). Ranks of
    tp and of sp have the same tokens of a decode step, so of these axes the cuts alone matter to moves from the experts on."""
    count = len(rows)

    def column(name: str) -> Ints:
        return np.broadcast_to(rows.number(name), (count,))

    dp, sp, tp, ep = (column(name) for name in (DATA, SEQUENCE, TENSOR, EXPERT))
    etp, copies, stages, gpus = (column(name) for name in (EXPERT_TENSOR, "replicas", STAGES, "gpus"))
    if not facts.folded:
        # Experts have their own factor between those of the batch and the sequence.
        dp = dp * ep
    prompts = np.full(count, not facts.phase.generates)
    words = {
        "sp_method": (sp > 1) & prompts,
        "sequence_parallel": (tp > 1) & prompts,
        "dispatch": ep > 1,
        "dcp": (tp > 1) & ~prompts,
    }
    method, residual, dispatch, dcp = (_word(rows, name, matters) for name, matters in words.items())
    inner = ep * etp
    dense = tp * sp
    data = np.maximum(inner // dense, 1)
    batch = column("sequences")
    groups = np.maximum(dp * copies // data, 1)
    room = np.maximum(each * dp * copies // groups, 1)
    share = np.minimum(room, -(-batch // groups)) / room
    others = [p for p, d in zip(rows.places, rows.domains, strict=True) if d.path not in IN_KEYS]
    nodes = [np.full(count, own.per_node) for own in facts.pools.values()]
    powers = np.ones(count, dtype=bool)
    for one in (dp, sp, tp, ep, etp, copies, stages, *nodes):
        powers &= (one & (one - 1)) == 0
    plain = facts.phase.strategy.place is None and facts.phase.strategy.order == tuple(AXES) and facts.folded
    everything = [gpus, stages, copies, dp, ep]
    place = [np.where(powers & plain, 0, one) for one in everything]
    attention = [sp, tp, dcp, method, residual, *others]
    cut = etp | inner | tp | dense | column("dcp")
    if strides is None:
        ends = [tp, sp]
    else:
        cut = cut | np.vectorize(strides.__getitem__, otypes=[np.int64])(tp)
        ends = []
    # Strides are flags where all of them are powers of two.
    cuts = [
        np.where(powers, cut & (2 * dense - 1), -1),
        *(np.where(powers, 0, one) for one in (np.minimum(etp, dense), np.minimum(inner, dense))),
    ]
    sent = np.broadcast_to(rows.is_("dispatch", "all_to_all"), (count,)) & (ep > 1) & (inner > dense)
    uneven = [np.where(powers, 0, one) for one in (tp, sp, dcp)]
    if facts.phase.generates:
        routed, tokens = [ep, etp, sent.astype(np.int64), share, *others], each * data
    else:
        # Of a prompt, ranks of sp have different tokens, and so have ranks of tp where the residual stream is split.
        split = np.broadcast_to(rows.is_("sequence_parallel", True), (count,))
        near = np.minimum(inner, dense)
        here = np.where(split, near, np.maximum(near // tp, 1))
        routed = [ep, etp, dispatch, share, here * data, *others]
        tokens = each * data * here / np.where(split, dense, sp)
    layout = [ep, etp, dispatch, share, dp * copies, sp, tp, dcp, method, residual, *others, *place]
    regular = plain and facts.folded
    moved = layout
    if regular:
        apart = [] if facts.phase.generates else [tp, sp, residual]
        moved = [ep, etp, dispatch, share, data, dense, *apart, *ends, *cuts, *uneven, *others, *place]
    return [
        (attention, each, True),
        ([*attention, *cuts, *place], each, False),
        (routed, tokens, True) if regular else (layout, each, True),
        (moved, each, False),
        (moved, each, True),
        (moved, each, False),
        ([*attention, *cuts[1:], *uneven, *place], each, True),
        ([ep, etp, *others] if regular else layout, np.zeros(count), False),
    ]


def _word(rows: Rows, name: str, matters: Flags) -> Ints:
    at = next((k for k, d in enumerate(rows.domains) if d.path == name), None)
    found = rows.places[at] if at is not None else np.zeros(len(rows), dtype=np.int64)
    return np.where(matters, found, -1)


def _numbered(columns: Sequence[Ints | Floats], pause: Pause) -> Ints:
    """Equal rows of columns have equal numbers, from zero. Raises Late."""
    whole = [
        c if np.issubdtype(c.dtype, np.integer) else np.unique(c, return_inverse=True)[1]
        for c in map(np.asarray, columns)
    ]
    number = packed([column.astype(np.int64, copy=False) for column in whole], pause)
    pause()
    return np.unique(number, return_inverse=True)[1].astype(np.int64, copy=False)
