"""World ranks and process groups of a placed graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch.distributed as dist

from ...base.axes import ENDS
from ...ir.graph import Graph
from ...ir.requests import request_moves
from ...ir.sharding import Axes

Position = tuple[int, ...]


@dataclass
class Ranks:
    """World rank of every place of the mesh: GPU ids in order. `at`: [stage, *mesh] of this process."""

    graph: Graph
    rank: int
    number: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = field(init=False)
    at: Position = field(init=False)

    def __post_init__(self) -> None:
        mesh = self.graph.the_mesh
        gpus = np.asarray([s.gpus for s in self.graph.stages])
        self.number = np.searchsorted(np.sort(gpus.ravel()), gpus).reshape(mesh.stages, *mesh.shape)
        self.at = tuple(int(i) for i in np.argwhere(self.number == self.rank)[0])

    @property
    def coordinates(self) -> dict[str, int]:
        return self.named(self.at[1:])

    def named(self, place: Position) -> dict[str, int]:
        return {name: i for (name, _), i in zip(self.graph.the_mesh.atoms, place, strict=True)}

    def world(self, place: Position) -> int:
        """World rank of a place on this process's stage."""
        return int(self.number[(self.at[0], *place)])


@dataclass
class Group:
    """Members in the order of their world ranks, which is that of the process group."""

    handle: Any
    members: list[dict[str, int]]
    index: int


def make_groups(ranks: Ranks, limit: timedelta | None = None) -> dict[Axes, Group]:
    """Every process makes every group, its own and the others', in one order. `limit`: the longest wait in one of them, which a group does not
    have from the job."""
    mesh = ranks.graph.the_mesh
    used = {mesh.sort(op.axes) for s in ranks.graph.segments for op in s.ops if op.axes}
    wanted = sorted(used | {move.axes for move in request_moves(ranks.graph)})
    groups: dict[Axes, Group] = {}
    for axes in wanted:
        position = [1 + mesh.place(a) for a in axes]
        number = ranks.number[[0, -1]] if ENDS in axes else ranks.number
        last = range(number.ndim - len(position), number.ndim)
        for row in np.moveaxis(number, position, last).reshape(-1, mesh.size(axes)).tolist():
            handle = dist.new_group(sorted(row), timeout=limit)
            if ranks.rank in row:
                places = [tuple(int(i) for i in np.argwhere(ranks.number == r)[0][1:]) for r in sorted(row)]
                groups[axes] = Group(handle, [ranks.named(p) for p in places], sorted(row).index(ranks.rank))
    return groups
