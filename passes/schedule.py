"""schedule: start and finish of every op, and the critical path (`dagc/cost/schedule`)."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import replace
from dagc.cost.schedule.layer_program import Program
from dagc.cost.schedule.scheduler import Scheduler, schedule
from dagc.plan.analysis import Analysis, Findings


class ScheduleOps(Analysis):
    """The schedule at calibrated times, and how long it takes at datasheet peaks. Needs costs."""

    name: ClassVar[str] = "schedule"

    def run(self, found: Findings) -> Findings:
        costs = found.the_costs
        programs: dict[str, Program] = {}
        own = schedule(found.graph, costs, programs)
        return replace(found, schedule=own, floor=Scheduler(found.graph, costs, floor=True, programs=programs).times())
