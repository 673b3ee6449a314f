"""memory: what one GPU of each stage must hold (`dagc/cost/memory.py`)."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import replace
from dagc.cost.memory import stage_memory
from dagc.plan.analysis import Analysis, Findings


class AddUpMemory(Analysis):
    """Bytes per GPU by stage. Does not judge whether they fit. Needs costs."""

    name: ClassVar[str] = "memory"

    def run(self, found: Findings) -> Findings:
        return replace(found, memory=stage_memory(found.graph, found.the_costs, found.unit))
