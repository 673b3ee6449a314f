"""even: the time of a step where all ranks run alike, so that each moment is one number: the scheduler's recurrence on numbers
(where ranks differ: `uneven.py`).

The same sums and maxima in the same order as `Scheduler`, so the same time bit for bit; no path, starts or finishes are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...base.frozen import field, mutable
from ...ir.graph import Graph
from ...ir.op import COMM, COPY
from .layer_program import Program, program, run_even
from .microbatches import LEAST
from .moments import RESOLUTION_S, State
from .pipelines import PIPELINES
from .turns import Layers as Order
from .turns import turns

Entry = tuple[tuple[Any, ...], tuple[Any, ...]]
"""When each lane's input is ready and each stream is free; numbers, or where ranks differ arrays of them."""


Memo = dict[tuple[object, ...], tuple[Entry, Entry]]
"""(layer, rounded entry) -> the entry that it was first seen with, and the state behind it."""


class Times(NamedTuple):
    """As in a schedule: a step in steady state, all micro-batches, and of both what the host takes first; each stage alone, and how long
    the stages fill and drain."""

    period_s: float
    latency_s: float
    host_s: float
    stage_s: tuple[float, ...]
    fill_s: float
    drain_s: float


class Pass(NamedTuple):
    """When the last of its micro-batches is done, when the first had all arrived at the last stage, and when the last left the first."""

    latest_s: float
    arrived_s: float
    left_s: float


@mutable
class EvenSchedule:
    """Of a graph. `times`: (segment, op) -> where its time is."""

    graph: Graph
    times: Mapping[tuple[str, str], int]
    programs: dict[str, Program] = field(init=False)

    def __post_init__(self) -> None:
        self.programs = {s.name: program(self.graph, s, self.times) for s in self.graph.segments}

    @property
    def known(self) -> bool:
        """Whether the time is known here: of very many micro-batches in a row, the scheduler leaves out those that repeat."""
        return self.graph.microbatches <= LEAST

    def times_s(
        self, times: Sequence[Any], sends_s: Sequence[float], return_s: float, host_s: float, launched_s: float
    ) -> Times:
        """A step takes the longer of what the GPUs take and of what the host takes to launch it. `times`: of ops; `sends_s`,
        `return_s`: from each stage to the next and of tokens back; `launched_s`: of all launches."""
        found = self._once_s(times, sends_s, return_s, host_s)
        late_s = launched_s - (found.period_s - host_s)
        return found if late_s <= 0 else self._once_s(times, sends_s, return_s, host_s + late_s)

    def step_s(
        self, times: Sequence[Any], sends_s: Sequence[float], return_s: float, host_s: float, launched_s: float
    ) -> float | None:
        """The time of a step alone; None where it is not known here."""
        found = self._steady_s(times, sends_s, return_s, host_s)
        if found is not None:
            late_s = launched_s - (found - host_s)
            found = found if late_s <= 0 else self._steady_s(times, sends_s, return_s, host_s + late_s)
        if found is None and self.known:
            found = self.times_s(times, sends_s, return_s, host_s, launched_s).period_s
        return found

    def _steady_s(self, times: Sequence[Any], sends_s: Sequence[float], return_s: float, host_s: float) -> float | None:
        """The time of a step in steady state, from one micro-batch alone: None where others meet what it does not."""
        memo: Memo = {}
        step = PIPELINES[self.graph.kind].step
        if step is None:
            return None
        self._pass_s(times, sends_s, host_s, memo, 1)
        met = len(memo)
        found = step(*self._alone_s(times, memo), list(sends_s), return_s, self.graph.microbatches).time_s + host_s
        return found if len(memo) == met else None

    def _once_s(self, times: Sequence[Any], sends_s: Sequence[float], return_s: float, host_s: float) -> Times:
        memo: Memo = {}
        pass_ = self._pass_s(times, sends_s, host_s, memo, self.graph.microbatches)
        stage_s, busy_s = self._alone_s(times, memo)
        step = PIPELINES[self.graph.kind].step
        period_s = pass_.latest_s
        if step is not None:
            period_s = step(stage_s, busy_s, list(sends_s), return_s, self.graph.microbatches).time_s + host_s
        fill_s, drain_s = 0.0, 0.0
        if len(stage_s) > 1:
            fill_s, drain_s = max(0.0, pass_.arrived_s - host_s), max(0.0, pass_.latest_s - pass_.left_s)
        return Times(period_s, pass_.latest_s, host_s, tuple(stage_s), fill_s, drain_s)

    def _alone_s(self, times: Sequence[Any], memo: Memo) -> tuple[list[float], list[float]]:
        """Each stage with nothing before it: how long it takes, and when it can begin anew."""
        graph = self.graph
        idle: Entry = ((0.0,) * graph.lanes, (0.0,) * len(graph.streams))
        alone = [self._cell(i, idle, times, memo) for i in range(len(graph.stages))]
        ready_s = busy_s = [self.latest(ready) for ready, _ in alone]
        if graph.copies:
            at = graph.streams.index(COPY)
            busy_s = [self.latest((ready, streams[at])) for ready, (_, streams) in zip(ready_s, alone, strict=True)]
        return ready_s, busy_s

    def _pass_s(
        self, times: Sequence[Any], sends_s: Sequence[float], host_s: float, memo: Memo, microbatches: int
    ) -> Pass:
        """So many micro-batches through all stages."""
        graph = self.graph
        stages, lanes = len(graph.stages), graph.lanes
        cells = PIPELINES[graph.kind].cells(stages)
        free: list[tuple[Any, ...]] = [(0.0,) * len(graph.streams)] * stages
        talks = graph.streams.index(COMM)
        latest_s = arrived_s = left_s = 0.0
        for each in range(microbatches):
            arrived: dict[int | None, tuple[Any, ...]] = {None: (host_s,) * lanes}
            done = 0.0
            for stage, takes, gives in cells:
                if each == 0 and gives is None:
                    arrived_s = self.latest(arrived[takes])
                ready, streams = self._cell(stage, (arrived[takes], free[stage]), times, memo)
                if gives is not None:
                    sent = []
                    comm = streams[talks]
                    for moment in ready:
                        comm = self.later(moment, comm) + sends_s[stage]
                        sent.append(comm)
                    arrived[stage] = tuple(sent)
                    streams = (*streams[:talks], comm, *streams[talks + 1 :])
                if takes is None:
                    left_s = self.latest(ready)
                free[stage] = streams
                done = max(done, self.latest(ready))
            latest_s = max(latest_s, done)
        return Pass(latest_s, arrived_s, left_s)

    def _cell(self, stage: int, state: Entry, times: Sequence[Any], memo: Memo) -> Entry:
        """A stage's layers from a state: when they are done."""
        for layers, count in turns(self.graph.stages[stage].layers):
            left = count
            while left > 1:
                base = self.latest(state[0])
                entry = _shifted(state, -base)
                leaving = self._layers(layers, entry, times, memo)
                period = self.latest(leaving[0])
                repeat = left if self.key(_shifted(leaving, -period)) == self.key(entry) else 1
                state = _shifted(leaving, base + period * (repeat - 1))
                left -= repeat
            if left:
                state = self._layers(layers, state, times, memo)
        return state

    def _layers(self, layers: Order, state: Entry, times: Sequence[Any], memo: Memo) -> Entry:
        """The same of layers one after another."""
        for name, count in layers:
            left = count
            while left:
                base = self.latest(state[0])
                entered = _shifted(state, -base)
                key = (name, *self.key(entered))
                found = memo.get(key)
                if found is None:
                    found = memo[key] = entered, self.layer(self.programs[name], entered, times)
                entry, leaving = found
                after = _shifted(leaving, base)
                period = self.latest(after[0]) - base
                repeat = left if left == 1 or self.key(_shifted(leaving, -period)) == self.key(entry) else 1
                state = _shifted(after, period * (repeat - 1))
                left -= repeat
        return state

    # -- of moments, which are numbers here --------------------------------------------------------

    def latest(self, moments: tuple[Any, ...]) -> float:
        found: float = max(moments)
        return found

    def later(self, a: Any, b: Any) -> Any:
        return max(a, b)

    def key(self, state: Entry) -> tuple[object, ...]:
        """As `entry_key`: what differs by less than the resolution, or by how long a stream has been idle, is the same."""
        ready, streams = state
        least = min(ready)
        numbers = (*ready, *[each if each > least else least for each in streams])
        return tuple([round(each / RESOLUTION_S) for each in numbers])

    def layer(self, program: Program, entry: Entry, times: Sequence[Any]) -> Entry:
        """Of a layer: from when its inputs are ready and the streams free to when its results are."""
        return run_even(program, State(*entry), times).exit


def _shifted(state: Entry, by: float) -> Entry:
    if by == 0.0:
        return state
    ready, streams = state
    return tuple([each + by for each in ready]), tuple([each + by for each in streams])
