"""Expert dispatch and combine across nodes: what leaves a node goes over each rank's own network link.

    low latency (ll): t = launch + step log2(N) + T row c / (efficiency link_Bps),  c = top_k (1 - 1/N)
    throughput (ht):  t = launch + step log2(N) + ((wire crowded)^s + sent^s)^(1/s)
        wire    = T row c / (efficiency link_Bps),  c = hit (1 - 1/N): one copy for every other node hit
        crowded = 1 + min((c / crowd)^crowding, MOST_CROWDED)
        sent    = T row (hit + own) / (sms sm_Bps): what the streaming multiprocessors given to it move
        hit     = g (1 - (1 - 1/g)^top_k) of the g nodes that group-limited routing lets a token reach, of N without

Of ranks of one domain, which take such kernels as nodes do, every copy for another rank passes the links that join the nodes:
n ranks for N in the copies of a low latency kernel, and no throughput kernel is faster than those of n ranks on its wire.

T tokens of one rank, N nodes. De-duplication by node, and the multiprocessors: deepseek-ai/DeepEP, normal kernels. That copies
crowd each other out, and the cost of the nodes, are this project's form. Fitted on 2, 4 and 8 nodes of one cluster and on
published times of up to 32 nodes of two others (`fitting/cluster.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import CalibrationError
from .known_gpus import folder
from .shape import Floats, floats, overlap_s

SMS = 20.0
"""Multiprocessors that the normal kernels take where nobody sets them (deepseek-ai/DeepEP, Buffer.num_sms)."""
MOST_CROWDED = 1.2
"""Nothing was measured beyond the 4.6 copies of 8 nodes, where crowding doubles the time."""


@record
class LowLatency:
    """`efficiency`: share of the link's bandwidth."""

    launch_s: float
    step_s: float
    efficiency: float


@record
class Throughput:
    """As the formula above names them."""

    launch_s: float
    step_s: float
    efficiency: float
    sm_Bps: float
    own: float
    crowd: float
    crowding: float
    sharpness: float


@record
class ClusterKernel:
    """`median`, `p90`: |estimate / measurement - 1| over `rows` rows, each estimated by a fit that did not see it;
    `left_out`: median over the rows of a source by a fit without any of its rows."""

    constants: LowLatency | Throughput
    median: float
    p90: float
    rows: int
    left_out: Mapping[str, float]


KINDS: Mapping[str, type[LowLatency] | type[Throughput]] = {"ll": LowLatency, "ht": Throughput}


def time_s(
    c: LowLatency | Throughput,
    tokens: ArrayLike,
    row_B: ArrayLike,
    top_k: ArrayLike,
    nodes: ArrayLike,
    link_Bps: ArrayLike,
    *,
    sms: ArrayLike = SMS,
    reach: ArrayLike = np.inf,
    domain: tuple[ArrayLike, ArrayLike] | None = None,
) -> Floats:
    """Seconds of one dispatch or combine; `tokens` of one rank, `row_B` bytes per copy of a token, `link_Bps` per rank.
    `reach`: nodes that routing lets a token reach, for throughput kernels; `domain`: ranks, and those that a token can reach,
    where the nodes are parts of one domain. One node takes no time."""
    t, n, link = floats(tokens) * floats(row_B), floats(nodes), floats(link_Bps)
    waiting = c.launch_s + c.step_s * np.log2(n)
    ranks, reached = (n, reach) if domain is None else (floats(domain[0]), domain[1])
    every = t * copies_of(c, top_k, ranks, reached) * (1 - 1 / ranks) / (c.efficiency * link)
    if isinstance(c, LowLatency):
        return floats((waiting + every) * (n > 1))
    hit = copies_of(c, top_k, n, reach)
    copies = hit * (1 - 1 / n)
    crowded = 1 + np.minimum((copies / c.crowd) ** c.crowding, MOST_CROWDED)
    wire = np.maximum(t * copies / (c.efficiency * link) * crowded, every)
    sent = t * (hit + c.own) / (floats(sms) * c.sm_Bps)
    return floats((waiting + overlap_s(c.sharpness, wire, sent)) * (n > 1))


def copies_of(c: LowLatency | Throughput, top_k: ArrayLike, nodes: ArrayLike, reach: ArrayLike = np.inf) -> Floats:
    """Copies of a token, the node's own included: one a choice, or one for every node hit."""
    if isinstance(c, LowLatency):
        return floats(top_k)
    g = np.minimum(floats(nodes), floats(reach))
    return floats(g * (1 - (1 - 1 / g) ** floats(top_k)))


def reach(groups: int, limit: int, nodes: Any) -> Any:
    """Nodes that a token can reach when its experts are in at most `limit` of `groups` groups, laid over the nodes in order. `nodes`: a number,
    or an array of them."""
    return limit * (np.maximum(1.0, nodes / groups) if isinstance(nodes, np.ndarray) else max(1.0, nodes / groups))


@lru_cache(maxsize=1)
def constants() -> dict[str, ClusterKernel]:
    """`ll_dispatch`, `ll_combine`, `ht_dispatch`, `ht_combine`. Raises CalibrationError."""
    try:
        return {name: _kernel(name, body) for name, body in _file()["kernels"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"{FILE}: {error}") from None


FILE = "cluster_exchange.json"


def _file() -> dict[str, Any]:
    return dict(json.loads((folder() / FILE).read_text(encoding="utf-8")))


def _kernel(name: str, body: Mapping[str, Any]) -> ClusterKernel:
    error = body["error"]
    return ClusterKernel(
        KINDS[name.split("_")[0]](**body["constants"]), error["median"], error["p90"], error["rows"], body["left_out"]
    )
