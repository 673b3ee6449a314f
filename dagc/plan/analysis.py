"""What an analysis is: a value that adds what it finds about a graph to what is found already, and changes no graph."""

from __future__ import annotations

from typing import ClassVar

from ..base.frozen import record
from ..cost.footprint import Memory
from ..cost.pass_costs import PassCosts
from ..cost.records import Costs
from ..cost.schedule.at_peak import Floor, schedule_of
from ..cost.schedule.records import Schedule
from ..ir.graph import Graph
from ..spec.hardware import Hardware
from ..spec.unit import Unit


@record
class Findings:
    """About one pass over a lowered graph of a phase. `hardware`: instead of the spec's; `passes`: costs that it shares with other
    passes of the phase. `at_peak`: the schedule at datasheet
    peaks, or how it is made; `floor` is that schedule. None: the analysis has not run."""

    graph: Graph
    unit: Unit
    hardware: Hardware | None = None
    passes: PassCosts | None = None
    costs: Costs | None = None
    schedule: Schedule | None = None
    at_peak: Floor | None = None
    memory: Memory | None = None

    @property
    def floor(self) -> Schedule | None:
        return None if self.at_peak is None else schedule_of(self.at_peak)

    @property
    def the_costs(self) -> Costs:
        assert self.costs is not None, "the analysis `cost` has not run"
        return self.costs


class Analysis:
    """The base class of every analysis. `name` is what pipelines call it. It has no options, so all of one class are equal."""

    name: ClassVar[str]

    def run(self, found: Findings) -> Findings:
        """What was found, with what the analysis adds."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))
