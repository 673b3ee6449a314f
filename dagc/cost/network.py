"""Collectives on a two-level network: which nodes a group spans, and what one call costs (alpha-beta).

`payload_B` is always the local input buffer of one call: the shard before an all-gather, the full local buffer of
a reduce-scatter, all-reduce or all-to-all, the message of a send or permute.

Every algorithm is a line in the payload: a latency, and seconds and bytes on the wire for each byte of payload.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..base.frozen import record
from ..ir.groups import GroupShape
from ..spec.hardware import Link

Size = TypeVar("Size", float, NDArray[np.float64])


@record
class CollectiveTime(Generic[Size]):
    """Seconds of one call, the algorithm taken, and the bytes that one device puts on the node's links and on the
    cluster's: the mean device where nodes have equally many ranks. All have the shape of the payload."""

    time_s: Size
    algorithm: str
    node_B: Size
    cluster_B: Size


def collective_time(
    kind: str, payload_B: Size, shape: GroupShape, node: Link, cluster: Link, *, floor: bool = False
) -> CollectiveTime[Size]:
    """Time of one call by the fastest algorithm at this size. floor: bandwidth terms only, no latency.

    An array of payloads gets one algorithm, the fastest at the largest of them, and an array of times.
    """
    if shape.ranks == 1:
        return CollectiveTime(0.0 * payload_B, "none", 0.0 * payload_B, 0.0 * payload_B)
    if floor:
        node, cluster = Link(node.bandwidth_Bps, 0.0), Link(cluster.bandwidth_Bps, 0.0)
    largest_B = float(np.max(payload_B, initial=0.0)) if isinstance(payload_B, np.ndarray) else payload_B
    options = ALGORITHMS[kind](largest_B, shape, node, cluster)
    best = _fastest(options, largest_B)
    line = options[best]
    return CollectiveTime(line.at(payload_B), best, line.node * payload_B, line.cluster * payload_B)


class _Line(NamedTuple):
    """Cost of one algorithm: seconds at no payload; then, for each byte of payload, seconds and the bytes that a
    device puts on node and on cluster links."""

    latency_s: float
    s_per_B: float
    node: float = 0.0
    cluster: float = 0.0

    def at(self, payload_B: Size) -> Size:
        return self.latency_s + self.s_per_B * payload_B

    def of(self, share: float) -> _Line:
        """The same algorithm on `share` bytes for each byte of payload."""
        return _Line(self.latency_s, self.s_per_B * share, self.node * share, self.cluster * share)

    def then(self, other: _Line) -> _Line:
        """One after the other."""
        return _Line(
            self.latency_s + other.latency_s,
            self.s_per_B + other.s_per_B,
            self.node + other.node,
            self.cluster + other.cluster,
        )


Options = dict[str, _Line]


def _fastest(options: Options, size: float) -> str:
    return min(options, key=lambda name: options[name].latency_s + options[name].s_per_B * size)


def _best(options: Options, size: float) -> _Line:
    return options[_fastest(options, size)]


def _flat(shape: GroupShape, node: Link, cluster: Link) -> Link:
    """A flat ring's slowest hop: the ranks of a node share its rails, which add up until the node link is slower
    (NCCL's ring channels, one for each rail; bandwidths as in nccl-tests PERFORMANCE.md)."""
    if shape.nodes == 1:
        return node
    return Link(min(node.bandwidth_Bps, shape.rails * cluster.bandwidth_Bps), cluster.latency_s)


def _spread(wire: float, hops: int, between: int) -> tuple[float, float]:
    """Bytes that a device sends over `hops` equal hops of which `between` cross nodes: (node, cluster) of the mean device."""
    crossing = wire * between / hops
    return wire - crossing, crossing


def _ring_crossings(shape: GroupShape) -> int:
    """Hops of a closed ring that cross nodes: one out of each."""
    return shape.nodes if shape.nodes > 1 else 0


def _ring_hops_s(shape: GroupShape, node: Link, cluster: Link) -> float:
    """Latency of one trip round a ring of all ranks but one: node hops inside, cluster hops between."""
    between = _ring_crossings(shape)
    return max(0, shape.ranks - 1 - between) * node.latency_s + min(between, shape.ranks - 1) * cluster.latency_s


def _steps(ranks: int) -> int:
    return ceil(log2(ranks))


def _all_reduce(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """Ring: 2 (n-1) a + 2 (n-1)/n S/BW (nccl-tests PERFORMANCE.md). Recursive halving and doubling: 2 log2(n) a and
    the ring's bytes; pipelined tree: 2 log2(n) a + 2 S/BW (Thakur et al. 2005). One-shot, inside a node: a +
    (n-1) S/BW. Reduce-scatter then all-gather, each by its own best. Across nodes also reduce-scatter inside,
    all-reduce of S/g on every rail, all-gather inside (Calculon, calculon-ai/calculon, network model)."""
    n, link = shape.ranks, _flat(shape, node, cluster)
    wire = 2 * (n - 1) / n
    s_per_B = wire / link.bandwidth_Bps
    ring = _spread(wire, n, _ring_crossings(shape))
    edges = _spread(wire, n - 1, shape.nodes - 1)
    out = {
        "ring": _Line(2 * _ring_hops_s(shape, node, cluster), s_per_B, *ring),
        "tree": _Line(2 * _steps(n) * link.latency_s, 2 / link.bandwidth_Bps, *edges),
    }
    if n & (n - 1) == 0 and shape.nodes == 1:
        out["halving_doubling"] = _Line(2 * _steps(n) * link.latency_s, s_per_B, wire)
    out["scatter_gather"] = _scatter_then_gather(size, shape, node, cluster)
    if shape.nodes == 1:
        out["one_shot"] = _Line(link.latency_s, (n - 1) / link.bandwidth_Bps, n - 1.0)
    elif shape.per_node > 1:
        across, inside = GroupShape(shape.nodes, 1, shape.nodes), GroupShape(shape.per_node, shape.per_node, 1)
        share = 1 / shape.rails
        middle = _best(_all_reduce(size * share, across, node, cluster), size * share).of(share)
        out["two_level"] = _scatter_then_gather(size, inside, node, cluster).then(middle)
    return out


def _scatter_then_gather(size: float, shape: GroupShape, node: Link, cluster: Link) -> _Line:
    """The two halves of an all-reduce, each by its fastest algorithm: they cost the same (nccl-tests PERFORMANCE.md)."""
    share = 1 / shape.ranks
    half = _best(_gather(size * share, shape, node, cluster), size * share).of(share)
    return half.then(half)


def _gather(shard: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """Ring: (n-1) a + (n-1) shard/BW (nccl-tests PERFORMANCE.md). Direct, inside a node: all messages at once, one a.
    Doubling, one rank a node: log2(n) a and the same bytes (Thakur et al. 2005). Else two levels: the other nodes'
    shards over the rails, then the rest inside (Calculon, calculon-ai/calculon, network model)."""
    n, link = shape.ranks, _flat(shape, node, cluster)
    wire = n - 1.0
    s_per_B = wire / link.bandwidth_Bps
    ring = _spread(wire, n, _ring_crossings(shape))
    out = {"ring": _Line(_ring_hops_s(shape, node, cluster), s_per_B, *ring)}
    if shape.nodes == 1:
        out["direct"] = _Line(link.latency_s, s_per_B, wire)
    elif shape.per_node > 1:
        leaving = (n - shape.rails) / shape.rails
        inside = wire - leaving
        latency_s = _steps(shape.nodes) * cluster.latency_s + node.latency_s
        moving = leaving / cluster.bandwidth_Bps + inside / node.bandwidth_Bps
        out["two_level"] = _Line(latency_s, moving, inside, leaving)
    else:
        out["doubling"] = _Line(_steps(n) * link.latency_s, s_per_B, 0.0, wire)
    return out


def _scatter(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """A reduce-scatter is an all-gather of size/n run backwards (nccl-tests PERFORMANCE.md)."""
    share = 1 / shape.ranks
    return {name: line.of(share) for name, line in _gather(size * share, shape, node, cluster).items()}


def _all_to_all(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """Pairwise, all messages at once: the part inside the node and the part that leaves it go side by side, a +
    max of both (bytes: nccl-tests PERFORMANCE.md; all at once: DeepEP, deepseek-ai/DeepEP, low-latency interface)."""
    n = shape.ranks
    if shape.nodes == 1:
        return {"pairwise": _Line(node.latency_s, (n - 1) / n / node.bandwidth_Bps, (n - 1) / n)}
    inside, leaving = (shape.per_node - 1) / n, (n - shape.rails) / n
    moving = max(inside / node.bandwidth_Bps, leaving / cluster.bandwidth_Bps)
    return {"pairwise": _Line(cluster.latency_s, moving, inside, leaving)}


def _message(size: float, shape: GroupShape, node: Link, cluster: Link) -> Options:
    """One message: a + S/BW of the slowest link that the group crosses (nccl-tests PERFORMANCE.md: factor 1)."""
    if shape.nodes == 1:
        return {"direct": _Line(node.latency_s, 1 / node.bandwidth_Bps, 1.0)}
    return {"direct": _Line(cluster.latency_s, 1 / cluster.bandwidth_Bps, 0.0, 1.0)}


ALGORITHMS: dict[str, Callable[[float, GroupShape, Link, Link], Options]] = {
    "all_reduce": _all_reduce,
    "all_gather": _gather,
    "reduce_scatter": _scatter,
    "all_to_all": _all_to_all,
    "permute": _message,
    "send": _message,
}
"""What each kind of transfer can run as, by (payload, group, links)."""
