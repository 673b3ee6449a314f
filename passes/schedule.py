"""schedule: start and finish of every op, and the critical path (`dagc/cost/schedule`)."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import replace
from dagc.cost.schedule.at_peak import AtPeak
from dagc.cost.schedule.scheduler import schedule
from dagc.plan.analysis import Analysis, Findings


class ScheduleOps(Analysis):
    """The schedule at calibrated times, and the one at datasheet peaks, once it is asked for. Needs costs."""

    name: ClassVar[str] = "schedule"

    def run(self, found: Findings) -> Findings:
        costs = found.the_costs
        return replace(found, schedule=schedule(found.graph, costs), at_peak=AtPeak(found.graph, costs))
