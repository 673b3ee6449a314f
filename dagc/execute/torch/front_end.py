"""The front end of a run: hands token ids to the ranks that have different sequences, and takes in what they chose.

It is where the first rank of each group is. Ids travel between hosts, whatever the ranks compute on: all tensors are on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...base.collectives import GATHER, SCATTER
from ...ir.requests import RequestMove, request_moves
from ..shards import Coordinates
from .communicator import Communicator
from .groups import Group

Values = np.ndarray[Any, Any]


@dataclass
class FrontEnd:
    """As one rank sees it."""

    comm: Communicator

    def move(self, kind: str) -> RequestMove | None:
        """The scatter or gather that this rank takes part in."""
        ranks = self.comm.ranks
        moves = (m for m in request_moves(ranks.graph) if m.kind == kind and m.stage == ranks.at[0])
        return next(moves, None)

    def scattered(self, whole: Values) -> Any:
        """This rank's part of some sequences' ids, of which only the root looks at the whole."""
        move = self.move(SCATTER.name)
        assert move is not None
        group, shards = self.comm.groups[move.axes], self.comm.shards
        root = self.root(group, move)
        held = shards.shard(whole, move.whole.dims, root)
        parts = [torch.as_tensor(shards.shard(held, move.cut, member).copy()) for member in group.members]
        mine = torch.empty_like(parts[group.index])
        dist.scatter(mine, parts if group.members[group.index] == root else None, self.world(root), group.handle)
        return mine

    def gathered(self, mine: Any) -> Values | None:
        """What all ranks of the group chose, in order of sequences; None on all of them but the root."""
        move = self.move(GATHER.name)
        assert move is not None
        group, shards = self.comm.groups[move.axes], self.comm.shards
        root = self.root(group, move)
        pieces = [torch.empty_like(mine) for _ in group.members] if group.members[group.index] == root else None
        dist.gather(mine, pieces, self.world(root), group.handle)
        if pieces is None:
            return None
        axis = next(i for i, axes in enumerate(move.cut) if axes)
        blocks = [shards.block(move.cut[axis], member) for member in group.members]
        return np.concatenate([pieces[k].numpy() for k in np.argsort(blocks)], axis=axis)

    def root(self, group: Group, move: RequestMove) -> Coordinates:
        """The first member in mesh order."""
        return next(member for member in group.members if not any(member[axis] for axis in move.axes))

    def world(self, rank: Coordinates) -> int:
        return self.comm.ranks.world(tuple(rank.values()))
