"""cost: what one execution of every op takes, per rank by broadcasting (`dagc/cost/price.py`)."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import replace
from dagc.cost.price import price
from dagc.plan.analysis import Analysis, Findings


class PriceOps(Analysis):
    """Costs of every op of every segment."""

    name: ClassVar[str] = "cost"

    def run(self, found: Findings) -> Findings:
        return replace(found, costs=price(found.graph, found.unit, found.hardware, passes=found.passes))
