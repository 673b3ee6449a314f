"""schedule: start and finish of every op, and the critical path (`dagc/cost/schedule`)."""

from __future__ import annotations

from dagc.cost.records import Costs
from dagc.cost.schedule.records import Schedule
from dagc.cost.schedule.scheduler import Scheduler
from dagc.ir.graph import Graph
from dagc.spec.unit import Unit


def run(graph: Graph, costs: Costs, unit: Unit, *, floor: bool = False) -> Schedule:
    return Scheduler(graph, costs, floor).run()
