"""What NCCL's collectives take beyond their part inside a node, when their ranks are on several nodes.

    t = max(inside, wire / (share link_Bps)) + hops hop_s, by the protocol that is the fastest
    hops: 2 ceil(log2 N) of an all-reduce's tree over N nodes; N - 1 of a ring for all-gather and reduce-scatter; 1 else
    wire: bytes that each network link carries; inside: the same collective among the ranks of a node

The latency of a hop and the share of the bandwidth of each protocol are those by which NCCL itself chooses between them:
nothing is fitted here (NVIDIA/nccl, src/graph/tuning.cc, rows NET of its table of latencies), for there is no table of small
collectives over nodes to fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import NamedTuple

US = 1e-6


class Protocol(NamedTuple):
    """Seconds of one hop between nodes, and the share of a link's bytes that are payload."""

    hop_s: float
    share: float


TREE: tuple[Protocol, ...] = (Protocol(5.0 * US, 0.25), Protocol(8.5 * US, 0.92), Protocol(14.0 * US, 1.0))
RING: tuple[Protocol, ...] = (Protocol(2.7 * US, 0.25), Protocol(4.0 * US, 0.92), Protocol(14.0 * US, 1.0))
"""LL, LL128, Simple."""


class Pattern(NamedTuple):
    """How a kind of collective crosses nodes."""

    protocols: tuple[Protocol, ...]
    rounds: int
    tree: bool


PATTERNS: Mapping[str, Pattern] = {
    "all_reduce": Pattern(TREE, 2, tree=True),
    "all_gather": Pattern(RING, 1, tree=False),
    "reduce_scatter": Pattern(RING, 1, tree=False),
    # Point-to-point messages go by the protocol for large ones whatever their size.
    "all_to_all": Pattern(RING[2:], 0, tree=False),
    "send": Pattern(RING[2:], 0, tree=False),
}


def time_s(kind: str, inside_s: float, wire_B: float, nodes: int, link_Bps: float) -> float:
    """Seconds of one call. `inside_s`: among the ranks of one node; `wire_B`: on each network link."""
    pattern = PATTERNS[kind]
    steps = ceil(log2(nodes)) if pattern.tree else nodes - 1
    hops = pattern.rounds * steps or 1
    return min(max(inside_s, wire_B / (p.share * link_Bps)) + hops * p.hop_s for p in pattern.protocols)
