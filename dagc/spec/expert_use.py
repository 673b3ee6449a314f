"""Which of a model's experts a phase uses, and where it has them."""

from __future__ import annotations

from ..base.frozen import record
from .rebalance import LoadSeries


@record
class ExpertUse:
    """`skip`: share of the choices of experts that are left out, `by_choice` where it is another one of a token's first, its second, ...; those whose weight is less than `skip_below` of the token's largest.

    `resident`: of each layer, over all GPUs that share its experts, those that these hold, 0: all. The others are in host memory and come when
    a step needs them; by the rule `cache` some go for them. `foretold`: share of those that come for a layer which the layer before names
    rightly; None: nothing is copied ahead. `warm`: the GPUs hold what the rule keeps; else nothing yet. `hits`: share of what a step needs
    that is there, where it was measured; `trace`: what steps chose, one after the other: experts that have a load."""

    skip: float = 0.0
    by_choice: tuple[float, ...] = ()
    skip_below: float = 0.5
    resident: int = 0
    cache: str = "lru"  # lru | frequency
    foretold: float | None = None
    warm: bool = True
    hits: float | None = None
    trace: LoadSeries | None = None


ALL = ExpertUse()
"""Every choice counts, every expert is on its GPU."""
