"""Where the ranks of a group sit: how many of them on a node, and on how many nodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base.frozen import record


@record
class GroupShape:
    """`ranks` in all; the most ranks on one node; the nodes touched."""

    ranks: int
    per_node: int
    nodes: int

    @property
    def rails(self) -> int:
        """Most ranks that the emptiest node can have: the rails its bytes leave by. `per_node` when nodes are equal."""
        return self.per_node if self.nodes == 1 else (self.ranks - self.per_node) // (self.nodes - 1)


def group_shape(ids: NDArray[np.int64], per_node: int) -> GroupShape:
    """The slowest shape among groups (`ids` [groups, ranks] of GPU ids): the most nodes, and among those groups the
    most ranks on one node."""
    nodes = np.sort(np.asarray(ids) // per_node, axis=1)
    starts = np.ones(nodes.shape, dtype=bool)
    starts[:, 1:] = nodes[:, 1:] != nodes[:, :-1]
    touched = starts.sum(axis=1)
    most = int(touched.max())
    size = nodes.shape[1]
    if most == 1:
        return GroupShape(size, size, 1)
    worst = starts[touched == most]
    flat = np.flatnonzero(worst.ravel())
    runs = np.diff(np.append(flat, worst.size))
    return GroupShape(size, int(runs.max()), most)
