"""Expert dispatch and combine in one node, high throughput (ht) and low latency (ll).

    t = overlap(launch_s, wire / link_Bps + T top_k choice_s)
    wire = T h element_B copies;  ht: (n - 1) (1 - (1 - 1/n)^top_k) ranks hit;  ll: top_k (n - 1) / n choices away

A token's copies with and without de-duplication: deepseek-ai/DeepEP (normal and low-latency interfaces). The cost of
a choice is this project's form. Fitted on balanced routing, 4 or 8 ranks of one node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base.frozen import record
from .constants import Device
from .family import ELEMENT_B, SHARPNESS, US, Bounds, Family, Row, column, dtype_name, share
from .shape import Floats, floats, overlap_s


@record
class MoeA2aConstants:
    """`deduplicated` 1: one copy to each rank hit (ht); 0: one copy a choice (ll)."""

    deduplicated: float
    launch_s: float
    link_Bps: float
    choice_s: float
    sharpness: float


def time_s(
    c: MoeA2aConstants, tokens: ArrayLike, hidden: ArrayLike, top_k: ArrayLike, ranks: ArrayLike, element_B: ArrayLike
) -> Floats:
    """Seconds of one dispatch or combine; `tokens` of one rank; `element_B`: bytes per element, scales included."""
    t, k, n = floats(tokens), floats(top_k), floats(ranks)
    hit = (n - 1) * (1 - (1 - 1 / n) ** k) if c.deduplicated else k * (n - 1) / n
    moving = t * floats(hidden) * floats(element_B) * hit / c.link_Bps + t * k * c.choice_s
    return floats(np.where(n > 1, overlap_s(c.sharpness, floats(c.launch_s), moving), 0.0))


def key(backend: str, phase: str) -> str:
    """Variant of expert dispatch or combine: `deepep_ll_dispatch`, `nvlink_one_sided_combine`."""
    return f"{backend}_{phase}"


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (60 * US, 5 * US, 600 * US),
        "link_Bps": share(device.link_Bps, 0.4, 0.02),
        "choice_s": (1e-9, 1e-13, 1e-6),
        "sharpness": SHARPNESS,
    }


def _facts(device: Device, variant: str) -> dict[str, float]:
    return {"deduplicated": 0.0 if "_ll_" in variant else 1.0}


def _arguments(rows: list[Row]) -> tuple[Any, ...]:
    element = []
    for row in rows:
        # Combine sends bf16 whatever the label says; an unlabelled dispatch sends fp8 with a scale a 128 elements.
        default = 1 + 4 / 128 if row["comm_dtype"] == "default" else ELEMENT_B[dtype_name(row["comm_dtype"])]
        element.append(2.0 if row["phase"] == "combine" else default)
    sizes = (column(rows, name) for name in ("num_tokens", "hidden_size", "topk", "ep_size"))
    return (*sizes, np.array(element))


FAMILY = Family(
    name="moe_a2a",
    constants=MoeA2aConstants,
    time_s=time_s,
    file="op_moe_a2a.csv",
    variant=lambda row: key(row["comm_backend"], row["phase"]),
    shapes=("num_tokens", "hidden_size", "topk", "ep_size"),
    ranges=("num_tokens", "ep_size"),
    bounds=_bounds,
    facts=_facts,
    arguments=_arguments,
    untimed="its kernels are those of a library of its own",
)
