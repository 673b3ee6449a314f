"""schedule: start and finish of every op, and the critical path (`dagc/cost/schedule`)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from dagc.cost.schedule.scheduler import Scheduler
from dagc.plan.analysis import Analysis, Findings


class ScheduleOps(Analysis):
    """The schedule at calibrated times, and the one at datasheet peaks. Needs costs."""

    name: ClassVar[str] = "schedule"

    def run(self, found: Findings) -> Findings:
        costs = found.the_costs
        schedule, floor = (Scheduler(found.graph, costs, floor).run() for floor in (False, True))
        # The GPUs wait for a host that launches more slowly than they run: a step takes the longer of both.
        late_s = costs.launched_s - (schedule.period_s - schedule.host_s)
        if late_s > 0:
            schedule = Scheduler(found.graph, replace(costs, host_s=costs.host_s + late_s)).run()
        return found._replace(schedule=schedule, floor=floor)
