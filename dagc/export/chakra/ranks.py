"""Ranks of the simulated network, communicator groups, and the peers of a rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...base.frozen import record
from ...ir.peers import Peers, peers
from ...ir.sharding import Axes
from ...plan.result import PhaseResult

Ints = NDArray[np.int64]
Hole = tuple[str, ...]
"""What differs between equal ranks: ("group", axes..), ("next",), ("previous",), ("to" | "from", segment, op, ..)."""


@record(slots=False)
class Network:
    """`gpus[rank]`: GPU id of a rank, or -1 of a place that the phase leaves idle. `shape`: ranks of each dimension of
    the network, innermost first: GPUs of a node, nodes."""

    gpus: Ints
    shape: tuple[int, ...]
    inside: bool  # the innermost dimension is a node

    @property
    def ranks(self) -> int:
        return len(self.gpus)


def network(result: PhaseResult) -> Network:
    """Nodes in order, and in each node its GPUs in order. Where nodes have unequal numbers of the phase's GPUs, each gets
    its full number and the rest is idle. A dimension of one is left out, but there are two ranks at least."""
    ids = np.unique(np.asarray(result.gpus, dtype=np.int64))
    nodes, counts = np.unique(ids // result.per_node, return_counts=True)
    if len(set(counts.tolist())) == 1:
        gpus, per_node = ids, int(counts[0])
    else:
        per_node = result.per_node
        gpus = (nodes[:, None] * per_node + np.arange(per_node)).ravel()
        gpus = np.where(np.isin(gpus, ids), gpus, -1)
    if len(gpus) == 1:
        return Network(np.append(gpus, -1), (2,), True)
    shape = tuple(n for n in (per_node, len(nodes)) if n > 1)
    return Network(gpus, shape, per_node > 1)


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
        return out
