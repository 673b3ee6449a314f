"""Expert dispatch and combine across nodes: what leaves a node goes over each rank's own network link.

    t = launch + T h element_B copies / (efficiency link_Bps)
    low latency (ll): copies = top_k (1 - 1/N), one for every choice on another of N nodes
    throughput (ht):  copies = (N - 1) (1 - (1 - 1/N)^top_k), one for every other node hit; at most limit (1 - 1/N)

De-duplication by node: deepseek-ai/DeepEP, normal kernels; `limit`: nodes that a token may reach under group-limited routing.
"""

from __future__ import annotations

import json
from functools import lru_cache

from ..base.frozen import record
from .constants import CalibrationError, folder


@record
class ClusterExchangeConstants:
    """`error`: median relative error on the rows that the constants were read off."""

    launch_s: float
    efficiency: float
    error: float


@lru_cache(maxsize=1)
def constants() -> dict[str, ClusterExchangeConstants]:
    """`ll_dispatch`, `ll_combine`, `ht_dispatch`, `ht_combine`."""
    try:
        kernels = json.loads((folder() / "cluster_exchange.json").read_text(encoding="utf-8"))["kernels"]
        return {name: ClusterExchangeConstants(**fields) for name, fields in kernels.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"cluster_exchange.json: {error}") from None


def time_s(
    c: ClusterExchangeConstants,
    tokens: float,
    row_B: float,
    top_k: float,
    nodes: int,
    link_Bps: float,
    *,
    deduplicated: bool,
    limit: float = float("inf"),
) -> float:
    """Seconds of one dispatch or combine; `tokens` of one rank, `row_B` bytes per copy of a token, `link_Bps` per rank."""
    if deduplicated:
        copies = min((nodes - 1) * (1 - (1 - 1 / nodes) ** top_k), limit * (1 - 1 / nodes))
    else:
        copies = top_k * (1 - 1 / nodes)
    return float(c.launch_s + tokens * row_B * copies / (c.efficiency * link_Bps))
