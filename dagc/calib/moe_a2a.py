"""Expert dispatch and combine in one node, high throughput (ht) and low latency (ll).

    t = overlap(launch_s, overlap(wire / link_Bps, T h element_B hit / (sms sm_Bps)) + T top_k choice_s)
    wire = T h element_B copies;  ht: copies = (n - 1) (1 - (1 - 1/n)^top_k) ranks hit;  ll: top_k (n - 1) / n choices away
    hit: ranks hit, the own included; `sms`: multiprocessors given to the kernel (of ll, whose kernels take all: 1, no term)

A token's copies with and without de-duplication, and the multiprocessors: deepseek-ai/DeepEP (normal and low-latency
interfaces). The cost of a choice is this project's form. Fitted on balanced routing, 4 or 8 ranks of one node.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import ELEMENT_B, SHARPNESS, US, Bounds, Family, Row, Table, column, dtype_name, log_sizes, share
from .shape import Floats, floats, overlap_s

SMS, SMS_V2 = 20.0, 64.0
"""Multiprocessors that the throughput kernels take where nobody sets them (deepseek-ai/DeepEP, Buffer.num_sms), and that
vLLM gives to those of its version 2."""
BOTH = 4.0
"""Sharpness of the slower of links and multiprocessors."""


@record
class MoeA2aConstants:
    """`deduplicated` 1: one copy to each rank hit (ht); 0: one copy a choice (ll)."""

    deduplicated: float
    launch_s: float
    link_Bps: float
    sm_Bps: float
    choice_s: float
    sharpness: float


def time_s(
    c: MoeA2aConstants, tokens: ArrayLike, hidden: ArrayLike, top_k: ArrayLike, ranks: ArrayLike, element_B: ArrayLike,
    sms: ArrayLike = SMS,
) -> Floats:  # fmt: skip
    """Seconds of one dispatch or combine; `tokens` of one rank; `element_B`: bytes per element, scales included."""
    t, k, n = floats(tokens), floats(top_k), floats(ranks)
    row_B = t * floats(hidden) * floats(element_B)
    hit = ranks_hit(k, n)
    if c.deduplicated:
        moving = overlap_s(BOTH, row_B * hit * (n - 1) / n / c.link_Bps, row_B * hit / (floats(sms) * c.sm_Bps))
    else:
        moving = row_B * k * (n - 1) / n / c.link_Bps
    return floats(np.where(n > 1, overlap_s(c.sharpness, floats(c.launch_s), moving + t * k * c.choice_s), 0.0))


def ranks_hit(top_k: ArrayLike, ranks: ArrayLike) -> Floats:
    """Ranks that a token is sent to where each gets one copy, the own included."""
    k, n = floats(top_k), floats(ranks)
    return floats(n * (1 - (1 - 1 / n) ** k))


def key(backend: str, phase: str) -> str:
    """Variant of expert dispatch or combine: `deepep_ll_dispatch`, `nvlink_one_sided_combine`."""
    return f"{backend}_{phase}"


def sms_of(backend: str) -> float:
    """Multiprocessors that an engine gives to it."""
    return SMS_V2 if "_v2_" in backend else SMS


def _variant(row: Row) -> str | None:
    """The engine is a key of its own. A combine in fewer bits is another kernel, which engines run on demand alone."""
    if row["phase"] == "combine" and "_ll" in row["comm_backend"] and row["comm_dtype"] in ("fp8", "fp4", "nvfp4"):
        return None
    return key(row["comm_backend"].removeprefix("trtllm_"), row["phase"])


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    common = {
        "launch_s": (60 * US, 5 * US, 600 * US),
        "link_Bps": share(device.link_Bps, 0.4, 0.02),
        "choice_s": (1e-9, 1e-13, 1e-6),
        "sharpness": SHARPNESS,
    }
    return common if "_ll_" in variant else common | {"sm_Bps": share(device.link_Bps, 0.05, 0.002)}


def _facts(device: Device, variant: str) -> dict[str, float]:
    return {"deduplicated": 0.0, "sm_Bps": device.link_Bps} if "_ll_" in variant else {"deduplicated": 1.0}


def _arguments(rows: list[Row]) -> tuple[Any, ...]:
    element, sms = [], []
    for row in rows:
        # Combine sends bf16 whatever the label says; an unlabelled dispatch sends fp8 with a scale a 128 elements.
        default = 1 + 4 / 128 if row["comm_dtype"] == "default" else ELEMENT_B[dtype_name(row["comm_dtype"])]
        element.append(2.0 if row["phase"] == "combine" else default)
        sms.append(float(row.get("sms") or 0) or sms_of(row["comm_backend"]))
    sizes = (column(rows, name) for name in ("num_tokens", "hidden_size", "topk", "ep_size"))
    return (*sizes, np.array(element), np.array(sms))


RANKS_A_NODE = {"gb200": "4", "gb300": "4"}


def _deepep_row(row: Row) -> Row | None:
    """Rows of one node; those of several are fitted by `cluster.py`."""
    if row["node_num"] != "1":
        return None
    return {**row, "comm_dtype": "default", "ep_size": RANKS_A_NODE.get(row["gpu"], "8")}


def features(*arguments: Any) -> Floats:
    """log2 of the sizes; multiprocessors too where they are given."""
    return log_sizes(*arguments, SMS) if len(arguments) == 5 else log_sizes(*arguments)


FAMILY = Family(
    name="moe_a2a",
    constants=MoeA2aConstants,
    time_s=time_s,
    file="op_moe_a2a.csv",
    tables=(Table("moe_a2a.csv"), Table("deepep_sglang.csv", _deepep_row, lambda row: "sglang")),
    variant=_variant,
    shapes=("num_tokens", "hidden_size", "topk", "ep_size"),
    ranges=("num_tokens", "ep_size"),
    unseen=("hidden_size", "topk", "num_tokens"),
    features=features,
    lengths=(2.5, 1.0, 1.5, 2.0, 1.5, 1.5),
    bounds=_bounds,
    facts=_facts,
    arguments=_arguments,
    untimed="its kernels are those of a library of its own",
)
