"""Ranks of the simulated network, communicator groups, and the peers of a rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np

from ...base.arrays import NDArray
from ...base.axes import ENDS
from ...base.frozen import record
from ...ir.op import Op
from ...ir.peers import Peers, peers
from ...plan.result import PhaseResult
from ...plan.trained import TrainingResult

Placed = PhaseResult | TrainingResult
"""A phase on its GPUs, with the costs of its ops."""
Ints = NDArray[np.int64]
Group = tuple[str, ...]
"""The order of the members, and the axes."""
Hole = tuple[str, ...]
"""What differs between equal ranks: ("group", order, axes..), ("stage", number), ("to" | "from", segment, op, ..)."""


def stage_hole(stage: int) -> Hole:
    """The equal rank of another stage."""
    return ("stage", str(stage))


@record(slots=False)
class Network:
    """`gpus[rank]`: GPU id of a rank, or -1 of a place that the phase leaves idle. `shape`: ranks of each dimension of
    the network, outermost first: nodes, GPUs of a node, or as many as there are levels of links; `levels`: which of them.

    A message is charged to the first dimension in which its ends differ, so the outermost links come first, and ranks count
    along them first: rank r is on node r mod nodes."""

    gpus: Ints
    shape: tuple[int, ...]
    levels: tuple[int, ...]

    @property
    def places(self) -> Ints:
        """Of each rank its place in the order of domains, in which neighbours are near."""
        return np.arange(self.ranks).reshape(self.shape).transpose().ravel()

    @property
    def ranks(self) -> int:
        return len(self.gpus)


def network(result: Placed) -> Network:
    """Ranks of the domains of every level and of the GPUs in each. Where domains have unequal numbers of the phase's GPUs,
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
    levels = tuple(i for i, n in reversed([*enumerate(shape)]) if n > 1)
    used = tuple(shape[i] for i in levels)
    return Network(flat.reshape(used).transpose().ravel(), used, levels)


def _joined(number: Ints, gpus: Ints, count: int) -> tuple[Ints, Ints]:
    """Rows put together, `count` at most; where not every one has as many, with rows of idle places for those that lack."""
    outer, held = np.unique(number // count, return_counts=True)
    if len(set(held.tolist())) == 1:
        return outer, gpus.reshape(len(outer), -1)
    full = np.full((len(outer), count, gpus.shape[1]), -1, dtype=np.int64)
    full[np.searchsorted(outer, number // count), number % count] = gpus
    return outer, full.reshape(len(outer), -1)


def in_turns(places: Ints, shape: tuple[int, ...]) -> Ints:
    """The order in which the members of groups (rising places, [groups, members]) take turns over the domains of every level:
    the first ones of all domains, then the second ones."""
    numbers = []
    parent = np.zeros_like(places)
    for k in range(1, len(shape) + 1):
        domain = places // prod(shape[k:])
        changed = np.zeros(places.shape, dtype=np.int64)
        changed[:, 1:] = domain[:, 1:] != domain[:, :-1]
        count = np.cumsum(changed, axis=1)
        begins = np.ones(places.shape, dtype=bool)
        begins[:, 1:] = parent[:, 1:] != parent[:, :-1]
        numbers.append(count - np.maximum.accumulate(np.where(begins, count, 0), axis=1))
        parent = domain
    return np.lexsort(numbers, axis=1)


@dataclass
class Ranks:
    """Every rank of a phase, as [stage, *mesh]. `groups`: ranks of each communicator as the simulator goes through them; its id is its index plus
    `first`, so that all ids have the same number of digits and a rank's can be written over another's."""

    result: Placed
    network: Network = field(init=False)
    number: Ints = field(init=False)
    groups: list[tuple[int, ...]] = field(init=False)
    group_of: dict[Group, Ints] = field(default_factory=dict)
    permutes: dict[tuple[str, str], Peers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.result.graph
        mesh = graph.the_mesh
        self.network = network(self.result)
        order = {gpu: rank for rank, gpu in enumerate(self.network.gpus.tolist()) if gpu >= 0}
        trains = isinstance(self.result, TrainingResult)
        ids = mesh.the_gpus.ids if trains else self.result.gpus  # stage by stage, ranks in mesh order
        flat = [order[gpu] for gpu in ids]
        self.number = np.asarray(flat, dtype=np.int64).reshape(mesh.stages, *mesh.shape)
        known: dict[tuple[int, ...], int] = {}
        for segment, op in ((s, op) for s in graph.segments for op in s.ops if op.axes):
            axes = mesh.sort(op.axes)
            if op.runtime_kind == "permute":
                self.permutes[segment.name, op.name] = peers(segment, op, mesh)
            elif (key := self.group(op)) not in self.group_of and mesh.size(axes) < self.network.ranks:
                self.group_of[key] = self._grouped(key, known)
        self.groups = list(known)

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Of each stage those that it sends to or receives from."""
        ways: list[list[int]] = [[*range(len(self.number))]]
        if isinstance(self.result, TrainingResult):
            ways = [[seat.gpu for seat in route.seats] for route in self.result.steps.schedule.routes]
        found: list[set[int]] = [set() for _ in self.number]
        for here, there in (pair for way in ways for pair in pairwise(way)):
            found[here].add(there)
            found[there].add(here)
        return tuple(tuple(sorted(own - {stage})) for stage, own in enumerate(found))

    def group(self, op: Op) -> Group:
        """Which group a collective is of. A ring or a tree goes from each member to a near one. In an all-to-all, members that
        take turns over the domains all send across them in the same rounds, so that none waits for another's longer way."""
        return ("turns" if op.runtime_kind == "all_to_all" else "near", *self.result.graph.the_mesh.sort(op.axes))

    def _grouped(self, key: Group, known: dict[tuple[int, ...], int]) -> Ints:
        """Index of each rank's group over some axes; axes that group ranks in the same way and order share it."""
        order, *axes = key
        mesh = self.result.graph.the_mesh
        position = [1 + mesh.place(a) for a in axes]
        taken = [0, -1] if ENDS in axes else [*range(len(self.number))]
        last = range(self.number.ndim - len(position), self.number.ndim)
        moved = np.moveaxis(self.number[taken], position, last)
        rows = moved.reshape(-1, mesh.size(tuple(axes)))
        rows = np.take_along_axis(rows, np.argsort(self.network.places[rows], axis=1), axis=1)
        if order == "turns":
            rows = np.take_along_axis(rows, in_turns(self.network.places[rows], self.network.shape), axis=1)
        index = np.asarray([known.setdefault(tuple(row), len(known)) for row in rows.tolist()])
        spread = np.broadcast_to(index.reshape(*moved.shape[: -len(axes)], *[1] * len(axes)), moved.shape)
        found = np.full_like(self.number, -1)  # a stage between the ends is in no group of theirs
        found[taken] = np.moveaxis(spread, last, position)
        return found

    def widest(self, op: Op) -> Ints:
        """Places of the members of a group of a collective, as the simulator has them in order: of equal groups one that touches
        the most domains. A group of all ranks has them in the order of ranks."""
        key, places = self.group(op), self.network.places
        if key not in self.group_of:
            return places
        inside = [prod(self.network.shape[k:]) for k in range(1, len(self.network.shape))]

        def domains(members: Ints) -> list[int]:
            return [len(np.unique(members // size)) for size in inside]

        return max((places[[*self.groups[i]]] for i in np.unique(self.group_of[key]) if i >= 0), key=domains)

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
        out: dict[Hole, int] = {
            ("group", *key): self.first + int(ids[at]) for key, ids in self.group_of.items() if ids[at] >= 0
        }
        for other in self.neighbours[stage]:
            out[stage_hole(other)] = int(self.number[(other, *place)])
        for key, found in self.permutes.items():
            for i, target in enumerate(found.targets[place]):
                out["to", *key, str(i)] = int(self.number[(stage, *target)])
            if place in found.source:
                out["from", *key] = int(self.number[(stage, *found.source[place])])
        return out
