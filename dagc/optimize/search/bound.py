"""bound: a time that no plan of a row can beat, put together from pieces of plans that were costed.

Passes that split work only annotate, and one pass inserts collectives. So what an op of attention takes follows from the degrees
of attention and the sequences on a rank alone; what an op of experts takes from the degrees of experts, and which tokens their ranks
have; what a collective before the experts takes from attention and where the groups of experts cut it. Each of these is read off
the first costed plan that has it, and holds for all rows of the same key (tests compare random plans of equal keys). What no costed
plan has shown yet counts as nothing. Pieces are laid out as the scheduler does, with fewer ops and without waiting for other ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...base.axes import STAGES
from .bound_keys import keys, numbered
from .bound_pieces import OPS, SUMS, Layer, Learnt, Stored
from .objectives import Floats
from .rules import Facts, batching
from .space import Flags, Ints, Pause, Rows, never


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
                numbered(columns, self.pause), np.broadcast_to(np.asarray(tokens, dtype=np.float64), (count,)), rising
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


News = frozenset[tuple[int, int]]
"""What nobody knows yet: tables and their cells or groups."""

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
