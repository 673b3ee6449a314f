"""What scheduling finds: when the ops of every cell run, and the chain of ops that the time follows from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

from ...base.frozen import record, replace
from .moments import Moments, latest_s


@record
class PathStep:
    """One op of the critical path, all executions of an op added up. Without a segment: `send` and `token_return` between stages,
    `host` and `launch` for the time before a pass and before its kernels."""

    segment: str
    op: str
    kind: str
    time_s: float
    count: int
    bound: str


@record(slots=False)
class Run:
    """`count` consecutive equal layers of a stage executing one micro-batch from `start_s` on, each taking
    `period_s`; `starts`/`finishes` of the ops (keyed (op, lane)) are relative to the layer's own start."""

    segment: str
    count: int
    start_s: float
    period_s: float
    starts: Moments
    finishes: Moments

    @property
    def end_s(self) -> float:
        """When the last of its layers has finished on every rank."""
        return self.start_s + (self.count - 1) * self.period_s + latest_s(tuple(self.finishes.own))


@record
class Repeated:
    """Runs, and how often they follow each other, each time `period_s` later."""

    runs: tuple[Run, ...]
    times: int = 1
    period_s: float = 0.0


@record(slots=False)
class Cell(Sequence[Run]):
    """The runs of a micro-batch on a stage in order. Those of layers that alternate are made when they are asked for."""

    parts: tuple[Repeated, ...]

    @cached_property
    def _all(self) -> tuple[Run, ...]:
        return tuple(
            run if not k else replace(run, start_s=run.start_s + k * part.period_s)
            for part in self.parts
            for k in range(part.times)
            for run in part.runs
        )

    @property
    def evaluated(self) -> Iterator[Run]:
        """Those that the others repeat."""
        return (run for part in self.parts for run in part.runs)

    def __len__(self) -> int:
        return sum(len(part.runs) * part.times for part in self.parts)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._all)

    @overload
    def __getitem__(self, at: int) -> Run: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Run]: ...
    def __getitem__(self, at: int | slice) -> Run | Sequence[Run]:
        return self._all[at]


@record(slots=False)
class Schedule:
    """`cells[stage][microbatch]`: the runs of that cell. `latency_s`: makespan of one pass of all
    `microbatches`; `period_s`: a decode step in steady state (equal to latency_s for prefill). Both begin with the `host_s`
    that the host takes before stage 0 begins. `fill_s`: from when the first stage begins until every rank of the last one can, with the
    first micro-batch; `drain_s`: from when every rank of the first stage has done its last micro-batch until the pass ends; both 0
    with one stage."""

    cells: tuple[Sequence[Cell], ...]
    sends: Mapping[tuple[int, int], tuple[float, float]]
    latency_s: float
    period_s: float
    stage_s: tuple[float, ...]
    path: tuple[PathStep, ...]
    host_s: float
    microbatches: int
    fill_s: float
    drain_s: float

    @property
    def busy_s(self) -> float:
        """Of all stages in one pass."""
        return sum(self.stage_s) * self.microbatches

    @property
    def bubble(self) -> float:
        """Share of stage time spent idle in one pass, once the host has started it."""
        span = (self.period_s - self.host_s) * len(self.stage_s)
        return max(0.0, 1.0 - self.busy_s / span) if span > 0 else 0.0
