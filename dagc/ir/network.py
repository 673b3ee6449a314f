"""Collectives on a two-level network: which GPUs a group spans, and what a call costs (alpha-beta)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from ..spec import Link


@dataclass(frozen=True, slots=True)
class GroupShape:
    ranks: int
    per_node: int
    nodes: int


def group_shape(ids, per_node):
    ids = np.asarray(ids)
    if ids.size == 0:
        return GroupShape(1, 1, 1)
    nodes = np.sort(ids // per_node, axis=1)
    new = np.ones(nodes.shape, dtype=bool)
    new[:, 1:] = nodes[:, 1:] != nodes[:, :-1]
    count = new.sum(axis=1)
    worst = int(count.max())
    return GroupShape(ids.shape[1], -(-ids.shape[1] // worst), worst)


@dataclass(frozen=True, slots=True)
class CollectiveTime:
    time_s: float
    algorithm: str
    node_B: float = 0.0
    cluster_B: float = 0.0


def wire_bytes(kind, payload_B, n):
    if n == 1:
        return 0.0
    return {"all_reduce": 2 * (n - 1) / n, "all_gather": n - 1, "reduce_scatter": (n - 1) / n, "all_to_all": (n - 1) / n}.get(kind, 1.0) * payload_B


def collective_time(kind, payload_B, shape, node, cluster, *, floor=False):
    n = shape.ranks
    if n == 1:
        return CollectiveTime(0.0, "none")
    link = node if shape.nodes == 1 else cluster
    w = wire_bytes(kind, payload_B, n)
    lat = 0 if floor else link.latency_s * (1 if kind in ("all_to_all", "send", "permute") else ceil(log2(n)))
    return CollectiveTime(lat + w / link.bandwidth_Bps, "ring")
