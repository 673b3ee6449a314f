"""Expert dispatch and combine inside one NVLink domain, over the ranks that it joins (tens of them).

    t = overlap(launch_s + log2(n) step_s, wire / link_Bps (n / 8)^(spread - 1) + T top_k choice_s)
    wire = T h element_B (n - 1) (1 - (1 - 1/n)^top_k): one copy to each other rank hit

The copies: deepseek-ai/DeepEP, normal interface. The cost of the ranks, and the change of bandwidth with them, are this
project's form. Fitted on 2 to 64 ranks of one domain, balanced routing. `prepare` (of the two-sided kernels) exchanges
counts of rows and no rows: element_B is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .shape import Floats, floats, overlap_s


@dataclass(frozen=True, slots=True)
class DomainA2aConstants:
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
    """Seconds of one call; `tokens` of one rank; `element_B`: bytes an element, scales included. One rank takes none."""
    t, k, n = floats(tokens), floats(top_k), floats(ranks)
    hit = (n - 1) * (1 - (1 - 1 / n) ** k)
    moving = t * floats(hidden) * floats(element_B) * hit / c.link_Bps * (n / 8) ** (c.spread - 1) + t * k * c.choice_s
    waiting = c.launch_s + np.log2(n) * c.step_s
    return floats(np.where(n > 1, overlap_s(c.sharpness, floats(waiting), moving), 0.0))
