"""Ranks of the simulated network, communicator groups, and the peers of a rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from ...base.frozen import record
from ...ir.peers import Peers, peers
from ...ir.requests import RequestMove, request_moves
from ...ir.sharding import Axes
from ...plan.result import PhaseResult

Ints = NDArray[np.int64]
Hole = tuple[str, ...]
"""What differs between equal ranks: ("group", axes..), ("next",), ("previous",), ("to" | "from", segment, op, ..); of the ranks
that exchange requests with the front end, by kind of request: ("root", kind), and of the root itself ("member", kind, ..)."""


@record(slots=False)
class Network:
    """`gpus[rank]`: GPU id of a rank, or -1 of a place that the phase leaves idle. `shape`: ranks of each dimension of
    the network, innermost first: GPUs of a node, nodes, or as many as there are levels of links; `levels`: which of them."""

    gpus: Ints
    shape: tuple[int, ...]
    levels: tuple[int, ...]

    @property
    def ranks(self) -> int:
        return len(self.gpus)


def network(result: PhaseResult) -> Network:
    """Domains of every level in order, and in each its GPUs in order. Where domains have unequal numbers of the phase's GPUs,
    each gets its full number and the rest is idle. A dimension of one is left out, but there are two ranks at least."""
    placed = result.graph.the_mesh.the_gpus
    gpus = np.unique(np.asarray(placed.ids, dtype=np.int64))[:, None]  # one row for each domain, of its GPUs
    number = gpus[:, 0]  # which domain a row is
    shape: list[int] = []
    inner = 1
    for size in (placed.per_node, *placed.beyond):
        number, gpus = _joined(number, gpus, size // inner)
        shape.append(gpus.shape[1] // prod(shape))
        inner = size
    shape.append(len(gpus))
    flat = gpus.ravel()
    if len(flat) == 1:
        return Network(np.append(flat, -1), (2,), (0,))
    levels = tuple(i for i, n in enumerate(shape) if n > 1)
    return Network(flat, tuple(shape[i] for i in levels), levels)


def _joined(number: Ints, gpus: Ints, count: int) -> tuple[Ints, Ints]:
    """Rows put together, `count` at most; where not every one has as many, with rows of idle places for those that lack."""
    outer, held = np.unique(number // count, return_counts=True)
    if len(set(held.tolist())) == 1:
        return outer, gpus.reshape(len(outer), -1)
    full = np.full((len(outer), count, gpus.shape[1]), -1, dtype=np.int64)
    full[np.searchsorted(outer, number // count), number % count] = gpus
    return outer, full.reshape(len(outer), -1)


@dataclass
class Ranks:
    """Every rank of a phase, as [stage, *mesh]. `groups`: ranks of each communicator, ascending; its id is its index plus
    `first`, so that all ids have the same number of digits and a rank's can be written over another's."""

    result: PhaseResult
    network: Network = field(init=False)
    number: Ints = field(init=False)
    groups: list[tuple[int, ...]] = field(init=False)
    group_of: dict[Axes, Ints] = field(default_factory=dict)
    permutes: dict[tuple[str, str], Peers] = field(default_factory=dict)
    moves: tuple[RequestMove, ...] = ()

    def __post_init__(self) -> None:
        graph = self.result.graph
        mesh = graph.the_mesh
        self.network = network(self.result)
        order = {gpu: rank for rank, gpu in enumerate(self.network.gpus.tolist()) if gpu >= 0}
        flat = [order[gpu] for gpu in self.result.gpus]
        self.number = np.asarray(flat, dtype=np.int64).reshape(mesh.stages, *mesh.shape)
        known: dict[tuple[int, ...], int] = {}
        for segment, op in ((s, op) for s in graph.segments for op in s.ops if op.axes):
            axes = mesh.sort(op.axes)
            if op.runtime_kind == "permute":
                self.permutes[segment.name, op.name] = peers(segment, op, mesh)
            elif axes not in self.group_of and mesh.size(axes) < self.network.ranks:
                self.group_of[axes] = self._grouped(axes, known)
        self.groups = list(known)
        self.moves = request_moves(graph)

    def _grouped(self, axes: Axes, known: dict[tuple[int, ...], int]) -> Ints:
        """Index of each rank's group over some axes; axes that group ranks in the same way share it."""
        mesh = self.result.graph.the_mesh
        position = [1 + mesh.index[a] for a in axes]
        last = range(self.number.ndim - len(position), self.number.ndim)
        moved = np.moveaxis(self.number, position, last)
        rows = np.sort(moved.reshape(-1, mesh.size(axes)), axis=1)
        index = np.asarray([known.setdefault(tuple(row), len(known)) for row in rows.tolist()])
        spread = np.broadcast_to(index.reshape(*moved.shape[: -len(axes)], *[1] * len(axes)), moved.shape)
        return np.ascontiguousarray(np.moveaxis(spread, last, position))

    @property
    def first(self) -> int:
        """Id of the first communicator."""
        digits = 1
        while 9 * 10**digits < len(self.groups):
            digits += 1
        return int(10**digits)

    def holes(self, at: tuple[int, ...]) -> dict[Hole, int]:
        """What is a rank's own, at its [stage, *mesh] position. A group over all ranks has no id."""
        stage, place = at[0], at[1:]
        out: dict[Hole, int] = {("group", *axes): self.first + int(ids[at]) for axes, ids in self.group_of.items()}
        if stage + 1 < len(self.number):
            out["next",] = int(self.number[(stage + 1, *place)])
        if stage > 0:
            out["previous",] = int(self.number[(stage - 1, *place)])
        for key, found in self.permutes.items():
            for i, target in enumerate(found.targets[place]):
                out["to", *key, str(i)] = int(self.number[(stage, *target)])
            if place in found.source:
                out["from", *key] = int(self.number[(stage, *found.source[place])])
        for move in self.moves:
            if move.stage == stage:
                out |= self._requests(move, at)
        return out

    def _requests(self, move: RequestMove, at: tuple[int, ...]) -> dict[Hole, int]:
        """The first of a rank's group, where the front end is; of that rank all others."""
        axes = [1 + self.result.graph.the_mesh.index[a] for a in move.axes]
        group = self.number[tuple(slice(None) if k in axes else i for k, i in enumerate(at))].ravel().tolist()
        if int(self.number[at]) != group[0]:
            return {("root", move.kind): group[0]}
        return {("member", move.kind, str(i)): member for i, member in enumerate(group[1:])}
