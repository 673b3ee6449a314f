"""Collectives on a two-level network: which nodes a group spans, and what one call costs (alpha-beta).

`payload_B` is always the local input buffer of one call: the shard before an all-gather, the full local buffer of
a reduce-scatter, all-reduce or all-to-all, the message of a send or permute.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from ..spec import Link


@dataclass(frozen=True, slots=True)
class GroupShape:
    """`ranks` in all; the most ranks on one node; the nodes touched."""

    ranks: int
    per_node: int
    nodes: int


@dataclass(frozen=True, slots=True)
class CollectiveTime:
    """Seconds, and the algorithm that was fastest at this size."""

    time_s: float
    algorithm: str


def group_shape(ids: NDArray[np.int64], per_node: int) -> GroupShape:
    """The slowest shape among groups (rows of GPU ids): the most nodes, and there the most ranks on one node."""
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


def wire_bytes(kind: str, payload_B: float, ranks: int) -> float:
    """Bytes that one device puts on the wire in one call (bus-bandwidth factors: nccl-tests, PERFORMANCE.md)."""
    if ranks == 1:
        return 0.0
    share = (ranks - 1) / ranks
    factor = {
        "all_reduce": 2 * share,
        "all_gather": ranks - 1.0,
        "reduce_scatter": share,
        "all_to_all": share,
    }
    return payload_B * factor.get(kind, 1.0)


def collective_time(
    kind: str, payload_B: float, shape: GroupShape, node: Link, cluster: Link, *, floor: bool = False
) -> CollectiveTime:
    """Time of one call by the fastest algorithm at this size. floor: bandwidth terms only, no latency."""
    if shape.ranks == 1:
        return CollectiveTime(0.0, "none")
    if floor:
        node, cluster = Link(node.bandwidth_Bps, 0.0), Link(cluster.bandwidth_Bps, 0.0)
    options = _OPTIONS[kind](payload_B, shape, node, cluster)
    best = min(options, key=options.__getitem__)
    return CollectiveTime(options[best], best)


Options = dict[str, float]


def _flat(shape: GroupShape, node: Link, cluster: Link) -> Link:
    """A flat ring's slowest hop: every rank of a node shares the node's rails, so up to per_node of them add up."""
    if shape.nodes == 1:
        return node
    return Link(min(node.bandwidth_Bps, shape.per_node * cluster.bandwidth_Bps), cluster.latency_s)


def _ring_hops_s(shape: GroupShape, node: Link, cluster: Link) -> float:
    """Latency of one trip round a ring of all ranks but one: node hops inside, cluster hops between."""
    between = shape.nodes if shape.nodes > 1 else 0
    return max(0, shape.ranks - 1 - between) * node.latency_s + min(between, shape.ranks - 1) * cluster.latency_s


def _steps(ranks: int) -> int:
    return ceil(log2(ranks))


def _all_reduce(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """Ring, recursive halving and doubling, and pipelined tree (nccl-tests PERFORMANCE.md; Thakur et al. 2005);
    one-shot inside a node; across nodes reduce-scatter, all-reduce on every rail, all-gather."""
    n, link = shape.ranks, _flat(shape, node, cluster)
    wire = 2 * (n - 1) / n * size / link.bandwidth_Bps
    out = {
        "ring": 2 * _ring_hops_s(shape, node, cluster) + wire,
        "tree": 2 * _steps(n) * link.latency_s + 2 * size / link.bandwidth_Bps,
    }
    if n & (n - 1) == 0 and shape.nodes == 1:
        out["halving_doubling"] = 2 * _steps(n) * link.latency_s + wire
    out["scatter_gather"] = min(_scatter(size, shape, node, cluster).values()) + min(
        _gather(size / n, shape, node, cluster).values()
    )
    if shape.nodes == 1:
        out["one_shot"] = link.latency_s + (n - 1) * size / link.bandwidth_Bps
    elif shape.per_node > 1:
        g, across = shape.per_node, GroupShape(shape.nodes, 1, shape.nodes)
        inside = GroupShape(g, g, 1)
        middle = min(_all_reduce(size / g, across, node, cluster).values())
        ends = min(_scatter(size, inside, node, cluster).values()) + min(
            _gather(size / g, inside, node, cluster).values()
        )
        out["two_level"] = ends + middle
    return out


def _gather(shard: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """Ring and direct; across nodes first between equal rails, then inside the node."""
    n, link = shape.ranks, _flat(shape, node, cluster)
    wire = (n - 1) * shard / link.bandwidth_Bps
    out = {"ring": _ring_hops_s(shape, node, cluster) + wire}
    if shape.nodes == 1:
        out["direct"] = link.latency_s + wire
    elif shape.per_node > 1:
        g = shape.per_node
        inside = (g - 1) * shard * shape.nodes / node.bandwidth_Bps + node.latency_s
        out["two_level"] = (
            _steps(shape.nodes) * cluster.latency_s + (shape.nodes - 1) * shard / cluster.bandwidth_Bps + inside
        )
    else:
        out["doubling"] = _steps(n) * link.latency_s + wire
    return out


def _scatter(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """A reduce-scatter is an all-gather run backwards."""
    return _gather(size / shape.ranks, shape, node, cluster)


def _all_to_all(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """Pairwise, all messages at once: the part inside the node and the part that leaves it go side by side."""
    n, g = shape.ranks, shape.per_node
    if shape.nodes == 1:
        return {"pairwise": node.latency_s + (n - 1) / n * size / node.bandwidth_Bps}
    inside = (g - 1) / n * size / node.bandwidth_Bps
    leaving = (n - g) / n * size / cluster.bandwidth_Bps
    return {"pairwise": cluster.latency_s + max(inside, leaving)}


def _message(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    link = node if shape.nodes == 1 else cluster
    return {"direct": link.latency_s + size / link.bandwidth_Bps}


_OPTIONS = {
    "all_reduce": _all_reduce,
    "all_gather": _gather,
    "reduce_scatter": _scatter,
    "all_to_all": _all_to_all,
    "permute": _message,
    "send": _message,
}
