"""Expert dispatch and combine inside one NVLink domain, over the ranks that it joins (tens of them).

    t = overlap(launch_s + log2(n) step_s, wire / link_Bps (n / 8)^(spread - 1) + T top_k choice_s)
    wire = T h element_B (n - 1) (1 - (1 - 1/n)^top_k): one copy to each other rank hit

The copies: deepseek-ai/DeepEP, normal interface. The cost of the ranks, and the change of bandwidth with them, are this
project's form. Fitted on 2 to 64 ranks of one domain, balanced routing. `prepare` (of the two-sided kernels) exchanges
counts of rows and no rows: element_B is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import ELEMENT_B, SHARPNESS, US, Bounds, Family, Row, Table, column, dtype_name, share
from .moe_a2a import key as key
from .shape import Floats, floats, overlap_s


@record
class DomainA2aConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    launch_s: float
    step_s: float
    link_Bps: float
    spread: float
    choice_s: float
    sharpness: float


def time_s(
    c: DomainA2aConstants,
    tokens: ArrayLike,
    hidden: ArrayLike,
    top_k: ArrayLike,
    ranks: ArrayLike,
    element_B: ArrayLike,
) -> Floats:
    """Seconds of one call; `tokens` of one rank; `element_B`: bytes per element, scales included. One rank takes none."""
    t, k, n = floats(tokens), floats(top_k), floats(ranks)
    hit = (n - 1) * (1 - (1 - 1 / n) ** k)
    moving = t * floats(hidden) * floats(element_B) * hit / c.link_Bps * (n / 8) ** (c.spread - 1) + t * k * c.choice_s
    waiting = c.launch_s + np.log2(n) * c.step_s
    return floats(np.where(n > 1, overlap_s(c.sharpness, floats(waiting), moving), 0.0))


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (10 * US, US, 100 * US),
        "step_s": (US, 1e-9, 50 * US),
        "link_Bps": share(device.link_Bps, 0.5, 0.02),
        "spread": (1.0, 0.4, 2.0),
        "choice_s": (1e-9, 1e-13, 1e-7),
        "sharpness": SHARPNESS,
    }


def _arguments(rows: list[Row]) -> tuple[Any, ...]:
    """Combine sends bf16 whatever the label says; prepare exchanges counts alone."""
    sent = {"prepare": 0.0, "combine": 2.0}
    element = [sent.get(row["phase"], ELEMENT_B.get(dtype_name(row["moe_dtype"]), 2.0)) for row in rows]
    sizes = (column(rows, name) for name in ("num_tokens", "hidden_size", "topk", "ep_size"))
    return (*sizes, np.array(element))


KERNELS = {"NVLinkOneSided": "nvlink_one_sided", "NVLinkTwoSided": "nvlink_two_sided"}


def _alltoall_row(row: Row) -> Row | None:
    """The table is of one model, DeepSeek-V3."""
    sizes = {"ep_size": row["moe_ep_size"], "hidden_size": "7168", "topk": "8"}
    return {**row, **sizes, "comm_backend": KERNELS[row["comm_backend"]]}


def _variant(row: Row) -> str | None:
    return key(row["comm_backend"], row["phase"]) if row["phase"] in ("prepare", "dispatch", "combine") else None


FAMILY = Family(
    name="domain_a2a",
    constants=DomainA2aConstants,
    time_s=time_s,
    file="op_domain_a2a.csv",
    tables=(Table("trtllm_alltoall.csv", _alltoall_row, lambda row: "trtllm"),),
    variant=_variant,
    shapes=("num_tokens", "hidden_size", "topk", "ep_size"),
    ranges=("num_tokens", "ep_size"),
    unseen=("num_tokens", "ep_size"),
    lengths=(2.5, 1.0, 1.0, 1.5, 1.5),
    bounds=_bounds,
    arguments=_arguments,
    untimed="its kernels are those of a library of its own",
)
