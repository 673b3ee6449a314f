"""layer: when the ops of one layer run on their streams, from when its inputs are ready and the streams free.

A layer is evaluated once per distinct entry state: max-plus maps are homogeneous, so only differences matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from ...base.frozen import record
from ...ir.graph import Graph
from ..records import Costs
from .layer_program import Program, Ran, program, run_even, run_uneven
from .moments import Moments, State, moment, state_key


@record(slots=False)
class Evaluation:
    """One layer from one entry state, times relative to the entry's latest ready time. `key`: of the entry."""

    segment: str
    program: Program
    entry: State
    key: tuple[object, ...]
    ran: Ran
    ndim: int

    @property
    def exit(self) -> State:
        return self.ran.exit

    @cached_property
    def starts(self) -> Moments:
        return Moments(self.ran.starts, self.program.places, self.ndim)

    @cached_property
    def finishes(self) -> Moments:
        return Moments(self.ran.ends, self.program.places, self.ndim)


class Layers:
    """Layers of a graph, by segment and entry state. `floor`: at datasheet peaks; `programs`: of segments, as far as known, of costs in the same
    order."""

    def __init__(self, graph: Graph, costs: Costs, floor: bool, programs: dict[str, Program]) -> None:
        self.graph = graph
        self.ndim = len(graph.the_mesh.atoms)
        # in program order
        self.places: Mapping[tuple[str, str], int] = {key: k for k, key in enumerate(costs.ops)}
        self.times = [moment(cost.floor_s if floor else cost.time_s) for cost in costs.ops.values()]
        self.even = all(isinstance(each, float) for each in self.times)
        self.programs = programs
        self.known: dict[tuple[str, tuple[object, ...]], Evaluation] = {}

    def program(self, segment: str) -> Program:
        found = self.programs.get(segment)
        if found is None:
            found = self.programs[segment] = program(self.graph, self.graph.segment(segment), self.places)
        return found

    def evaluate(self, segment: str, entry: State) -> Evaluation:
        own = state_key(entry)
        found = self.known.get((segment, own))
        if found is None:
            program = self.program(segment)
            run: Callable[[Program, State, Any], Ran] = run_even if self.even else run_uneven
            ran = run(program, entry, self.times)
            found = self.known[segment, own] = Evaluation(segment, program, entry, own, ran, self.ndim)
        return found
