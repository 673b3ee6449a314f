"""How long a pass takes at datasheet peaks: a schedule of its own, which is made when somebody asks for it."""

from __future__ import annotations

from functools import cached_property

from ...base.frozen import record
from ...ir.graph import Graph
from ..records import Costs
from .records import Schedule


@record(slots=False)
class AtPeak:
    """Of a graph with its costs."""

    graph: Graph
    costs: Costs

    @cached_property
    def schedule(self) -> Schedule:
        """Its times alone, without the host."""
        from .scheduler import Scheduler

        return Scheduler(self.graph, self.costs, floor=True).times()


Floor = Schedule | AtPeak
"""One that is known, or that is to be made."""


def schedule_of(floor: Floor) -> Schedule:
    return floor.schedule if isinstance(floor, AtPeak) else floor
