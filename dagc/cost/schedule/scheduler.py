"""scheduler: start and finish of every op, from data edges and two streams per rank, folded.

Equal layers repeat as soon as the state at their entry repeats, layers that alternate as soon as that at the entry of a turn does; stages and micro-batches chain by the recurrence of
`pipelines.py`, micro-batches that repeat are left out exactly (`microbatches.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import fsum

from ...base.frozen import field, mutable, record, replace
from ...ir.graph import Graph
from ...ir.op import COMM, COPY
from ..records import Costs
from .layer import Layers
from .layer_program import Program
from .microbatches import Column, Columns, walk
from .moments import Moment, Rank, State, last_s, later, latest_s, shifted, state_key
from .path import Departures, Path, Paths, Steps, Trace, send_path
from .pipelines import PIPELINES, Pipeline, Step
from .pipelines import Cell as PipelineCell
from .records import Cell, PathStep, Repeated, Run, Schedule
from .turns import Layers as Order
from .turns import turns

COPIED = (COPY, 0)
"""A path's end: the last copy that a stage began."""
HOST = ("", "host")
"""Names the host's time in a path."""


@record(slots=False)
class Cells:
    """What a micro-batch waited for in each stage; when it had all arrived at the last stage, and when it left every rank of the first."""

    traces: tuple[Trace, ...]
    departures: tuple[Departures, ...]
    arrived_s: float
    left_s: float


@record
class Paced:
    """What one pass after the other takes, each stage alone, and the path: of a `Schedule`."""

    period_s: float
    stage_s: tuple[float, ...]
    path: tuple[PathStep, ...]


def schedule(graph: Graph, costs: Costs, programs: dict[str, Program] | None = None) -> Schedule:
    """When everything runs. The GPUs wait for a host that launches more slowly than they run: a step takes the longer of both."""
    return _beside_host(Scheduler.run, graph, costs, {} if programs is None else programs)


def _beside_host(
    run: Callable[[Scheduler], Schedule], graph: Graph, costs: Costs, programs: dict[str, Program]
) -> Schedule:
    found = run(Scheduler(graph, costs, programs=programs))
    late_s = costs.launched_s - (found.period_s - found.host_s)
    if late_s <= 0:
        return found
    return run(Scheduler(graph, replace(costs, host_s=costs.host_s + late_s), programs=programs))


@mutable
class Scheduler:
    """Of one graph with its costs. `floor`: at datasheet peaks, without the host; `cells`: what a micro-batch passes, in order; `host_s`:
    what the host takes before the GPUs begin. `programs`: of its layers, which graphs that differ in sizes alone share."""

    graph: Graph
    costs: Costs
    floor: bool = False
    programs: dict[str, Program] = field(default_factory=dict)
    layers: Layers = field(init=False)
    paths: Paths = field(init=False)
    cells: tuple[PipelineCell, ...] = field(init=False)
    host_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.layers = Layers(self.graph, self.costs, self.floor, self.programs)
        self.paths = Paths(self.layers)
        self.cells = self.pipeline.cells(len(self.graph.stages))
        self.host_s = 0.0 if self.floor else float(self.costs.host_s)

    @property
    def pipeline(self) -> Pipeline:
        return PIPELINES[self.graph.kind]

    def run(self) -> Schedule:
        columns = walk(self.column, self.graph.microbatches)
        latency = max(c.ready_s for c in columns.columns)
        paced = self.paced(columns)
        return Schedule(
            columns.rows(), columns.all_sends(), latency, paced.period_s, paced.stage_s, paced.path, self.host_s,
            self.graph.microbatches, *self.ends(columns, latency),
        )  # fmt: skip

    def paced(self, columns: Columns[Cells] | None = None) -> Paced:
        """`columns`: all micro-batches, if they are known. A step in steady state follows without them."""
        alone, stage_s, busy_s = self.alone()
        period, path = self.step(alone, stage_s, busy_s)
        if path is None:
            columns = columns or walk(self.column, self.graph.microbatches)
            period, path = max(c.ready_s for c in columns.columns), self.pipeline_path(columns)
        else:
            period += self.host_s
        if self.host_s:
            path.step(HOST, self.host_s)
        return Paced(period, stage_s, self.steps(path))

    def times(self) -> Schedule:
        """How long it takes, without cells and path."""
        columns = walk(self.column, self.graph.microbatches)
        latency = max(c.ready_s for c in columns.columns)
        _, stage_s, busy_s = self.alone()
        steady = self.steady(stage_s, busy_s)
        period = latency if steady is None else steady.time_s + self.host_s
        ends = self.ends(columns, latency)
        return Schedule((), {}, latency, period, stage_s, (), self.host_s, self.graph.microbatches, *ends)

    def ends(self, columns: Columns[Cells], latency_s: float) -> tuple[float, float]:
        """Seconds that a pipeline fills and drains."""
        if len(self.graph.stages) == 1:
            return 0.0, 0.0
        first, last = columns.columns[0].own, columns.columns[-1].own
        return max(0.0, first.arrived_s - self.host_s), max(0.0, latency_s - last.left_s)

    def alone(self) -> tuple[list[Trace], tuple[float, ...], tuple[float, ...]]:
        """Each stage with nothing before it: its layers, how long they take, and when it can begin anew: copies that its last layers
        began are for the first ones of the next step."""
        idle = State((0.0,) * self.graph.lanes, (0.0,) * len(self.graph.streams))
        cells = [self.cell(i, idle) for i in range(len(self.graph.stages))]
        ready_s = tuple(latest_s(out.ready) for _, _, out in cells)
        busy_s = ready_s
        if self.graph.copies:
            at = self.graph.streams.index(COPY)
            busy_s = tuple(max(s, last_s(out.streams[at])) for s, (_, _, out) in zip(ready_s, cells, strict=True))
        return [trace for _, trace, _ in cells], ready_s, busy_s

    def step(
        self, alone: list[Trace], stage_s: tuple[float, ...], busy_s: tuple[float, ...]
    ) -> tuple[float, Path | None]:
        """Seconds and path of a step in steady state, where the pipeline has one. `alone`: each stage with nothing before it."""
        found = self.steady(stage_s, busy_s)
        if found is None:
            return 0.0, None
        sends_s = self.sends_s()
        path = Path()
        for stage, times in found.visits.items():
            copied = not found.around and busy_s[stage] > stage_s[stage]
            path.add(self.paths.through(alone[stage], COPIED if copied else None)[0], times)
        if found.around and sends_s:
            path.step(("", "send"), fsum(sends_s), len(sends_s))
            path.step(("", "token_return"), self.return_s())
        return found.time_s, path

    def steady(self, stage_s: tuple[float, ...], busy_s: tuple[float, ...]) -> Step | None:
        """A step in steady state, where the pipeline has one."""
        if self.pipeline.step is None:
            return None
        return self.pipeline.step(stage_s, busy_s, self.sends_s(), self.return_s(), self.graph.microbatches)

    def sends_s(self) -> list[float]:
        return [self.send_s(cell.stage) for cell in self.cells if cell.gives is not None]

    def column(self, before: Column[Cells] | None) -> Column[Cells]:
        """The micro-batch after another one, through all stages."""
        p, lanes, count = len(self.graph.stages), self.graph.lanes, len(self.graph.streams)
        states: list[Moment] = list(before.states) if before is not None else [0.0] * (count * p)
        # The host is done with all of a pass before the GPUs begin.
        arrived: dict[int | None, tuple[Moment, ...]] = {None: (self.host_s,) * lanes}
        cells, sends, traces, departures = [], [], [], []
        done = arrived_s = left_s = 0.0
        for stage, takes, gives in self.cells:
            own = slice(count * stage, count * (stage + 1))
            runs, trace, out = self.cell(stage, State(arrived[takes], tuple(states[own])))
            arrived_s, left_s = latest_s(arrived[takes]), latest_s(out.ready) if takes is None else left_s
            if gives is not None:
                out, arrived[stage], sent, left = self.send(stage, out)
                sends.append(sent)
                departures.append(left)
            cells.append(runs)
            traces.append(trace)
            states[own] = out.streams
            done = max(done, latest_s(out.ready))
        return Column(
            tuple(cells), tuple(sends), tuple(states), done, Cells(tuple(traces), tuple(departures), arrived_s, left_s)
        )

    def send_s(self, stage: int) -> float:
        """Of one lane's result, from a stage to the next."""
        edge = self.costs.edges[stage]
        return edge.floor_s if self.floor else edge.time_s

    def return_s(self) -> float:
        return self.costs.token_return.floor_s if self.floor else self.costs.token_return.time_s

    def cell(self, stage: int, state: State) -> tuple[Cell, Trace, State]:
        """Run a stage's layers from a state: its runs, its evaluations with repeat counts, the exit state. A turn that begins as the one
        before did takes as long: `times` of them are `times` periods, and each begins whole periods after the first."""
        parts: list[Repeated] = []
        trace: Trace = []
        for layers, times in turns(self.graph.stages[stage].layers):
            left = times
            while left > 1:
                base = latest_s(state.ready)
                entry = shifted(state, -base)
                runs, steps, leaving = self.run_layers(layers, entry)
                period = latest_s(leaving.ready)
                repeat = left if state_key(shifted(leaving, -period)) == state_key(entry) else 1
                moved = tuple([replace(run, start_s=run.start_s + base) for run in runs])
                parts.append(Repeated(moved, repeat, period))
                trace.append((steps, repeat))
                state = shifted(leaving, base + period * (repeat - 1))
                left -= repeat
            if left:
                runs, steps, state = self.run_layers(layers, state)
                parts.append(Repeated(tuple(runs)))
                trace.append((steps, 1))
        return Cell(tuple(parts)), trace, state

    def run_layers(self, layers: Order, state: State) -> tuple[list[Run], Steps, State]:
        """The same of layers one after another."""
        runs: list[Run] = []
        steps: Steps = []
        for name, count in layers:
            left = count
            while left:
                base = latest_s(state.ready)
                found = self.layers.evaluate(name, shifted(state, -base))
                after = shifted(found.exit, base)
                period = latest_s(after.ready) - base
                repeat = left if left == 1 or state_key(shifted(found.exit, -period)) == found.key else 1
                runs.append(Run(name, repeat, base, period, found.starts, found.finishes))
                steps.append((found, repeat))
                state = shifted(after, period * (repeat - 1))
                left -= repeat
        return runs, steps, state

    def send(self, stage: int, out: State) -> tuple[State, tuple[Moment, ...], tuple[float, float], Departures]:
        """The communication stream sends each lane's result to the next stage."""
        at = self.graph.streams.index(COMM)
        comm, send_s = out.streams[at], self.send_s(stage)
        arrivals, departures = [], []
        begin = 0.0
        for ready in out.ready:
            start = later(ready, comm)
            departures.append((ready, comm))
            comm = start + send_s
            begin = last_s(start)
            arrivals.append(comm)
        streams = (*out.streams[:at], comm, *out.streams[at + 1 :])
        return State(out.ready, streams), tuple(arrivals), (begin, last_s(comm)), tuple(departures)

    # -- critical path ---------------------------------------------------------------------------

    def pipeline_path(self, columns: Columns[Cells]) -> Path:
        """Backwards from the last cell: a cell began when its input arrived or when its streams were free."""
        total: Path = Path()
        cell_of = {cell.stage: cell for cell in self.cells}
        i, j = self.cells[-1].stage, columns.count - 1
        target: tuple[str, int] = ("ready", 0)
        rank: Rank | None = None
        seen: dict[tuple[object, ...], tuple[int, Path]] = {}
        while True:
            piece = columns.piece(j)
            first, period = piece.first, piece.period
            if period and rank is not None:
                # Micro-batches that repeat a period: once the way back repeats too, it is taken as often as it fits.
                key = (first, i, (j - first) % period, target, rank)
                if key in seen:
                    later, then = seen[key]
                    times = (j - first) // (later - j) - 1
                    if times > 0:
                        total.add(total.since(then), times)
                        j -= times * (later - j)
                    seen.clear()
                else:
                    seen[key] = j, total.copy()
            found, target, rank = self.paths.through(columns.own(j).traces[i], target, rank)
            total.add(found)
            takes = cell_of[i].takes
            if target[0] == "ready" and takes is not None:
                i = takes
                sends, target = send_path(columns.own(j).departures[i], target[1], rank)
                total.step(("", "send"), sends * self.send_s(i), sends)
            elif target[0] == "comm" and cell_of[i].gives is not None and j > 0:
                j -= 1  # the stream was busy with the previous micro-batch's sends
                sends, target = send_path(columns.own(j).departures[i], self.graph.lanes - 1, rank)
                total.step(("", "send"), sends * self.send_s(i), sends)
            elif target[0] != "ready" and j > 0:
                j -= 1
            else:
                return total

    def steps(self, path: Path) -> tuple[PathStep, ...]:
        """The path as a chain in program order, all executions of an op added up; launches apart from the kernels
        they precede."""
        steps: list[PathStep] = []
        launches, launching_s = 0, 0.0
        ops = [key for key in path.visits if key[0]]
        ops.sort(key=self.layers.places.__getitem__)
        by_name = {segment.name: segment.by_name for segment in self.graph.segments}
        for key in (*ops, *(key for key in path.visits if not key[0])):
            segment, name = key
            count, time_s = path.visits[key]
            if segment:
                op, cost = by_name[segment][name], self.costs.ops[key]
                launch_s = 0.0 if self.floor else min(time_s, count * cost.launch_s)
                if launch_s:
                    launches, launching_s = launches + count, launching_s + launch_s
                steps.append(PathStep(segment, name, op.runtime_kind, time_s - launch_s, count, cost.bound))
            elif key == HOST:
                steps.insert(0, PathStep("", "host", "host", time_s, count, "host"))
            else:
                edge = self.costs.transfer if name == "send" else self.costs.token_return
                steps.append(PathStep("", name, "send", time_s, count, edge.bound))
        if launches:
            steps.append(PathStep("", "launch", "launch", launching_s, launches, "launch"))
        return tuple(steps)
