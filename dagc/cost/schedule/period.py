"""period: the time of a step, without paths, starts or finishes."""

from __future__ import annotations

from ...ir.graph import Graph
from ..records import Costs
from .even import EvenSchedule
from .scheduler import schedule
from .uneven import UnevenSchedule


def period_s(graph: Graph, costs: Costs) -> float:
    """Seconds of a step, whether or not ranks run alike."""
    times = {key: cost.time_s for key, cost in costs.ops.items()}
    places = {key: k for k, key in enumerate(times)}
    each_s = [each if each.size > 1 else float(each.item()) for each in times.values()]
    found: EvenSchedule = EvenSchedule(graph, places)
    if any(each.size > 1 for each in times.values()):
        found = UnevenSchedule(graph, places)
    sends_s = [edge.time_s for edge in costs.edges]
    step_s = found.step_s(each_s, sends_s, costs.token_return.time_s, costs.host_s, costs.launched_s)
    return schedule(graph, costs).period_s if step_s is None else step_s
