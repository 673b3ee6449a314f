"""Expert dispatch and combine in one node, high throughput (ht) and low latency (ll).

    t = overlap(launch_s, wire / link_Bps + T top_k choice_s)
    wire = T h element_B copies;  ht: (n - 1) (1 - (1 - 1/n)^top_k) ranks hit;  ll: top_k (n - 1) / n choices away

A token's copies with and without de-duplication: deepseek-ai/DeepEP (normal and low-latency interfaces). The cost of
a choice is this project's form. Fitted on balanced routing, 4 or 8 ranks of one node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .shape import Floats, floats, overlap_s


@dataclass(frozen=True, slots=True)
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
    """Seconds of one dispatch or combine; `tokens` of one rank; `element_B`: bytes an element, scales included."""
    t, k, n = floats(tokens), floats(top_k), floats(ranks)
    hit = (n - 1) * (1 - (1 - 1 / n) ** k) if c.deduplicated else k * (n - 1) / n
    moving = t * floats(hidden) * floats(element_B) * hit / c.link_Bps + t * k * c.choice_s
    return floats(np.where(n > 1, overlap_s(c.sharpness, floats(c.launch_s), moving), 0.0))
