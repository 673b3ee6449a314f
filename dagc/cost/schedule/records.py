"""What scheduling finds: when the ops of every cell run, and the chain of ops that the time follows from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...base.frozen import record
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


@record(slots=False)
class Schedule:
    """`cells[stage][microbatch]`: the runs of that cell. `latency_s`: makespan of one pass of all
    micro-batches; `period_s`: a decode step in steady state (equal to latency_s for prefill). Both begin with the `host_s`
    that the host takes before stage 0 begins."""

    cells: tuple[Sequence[tuple[Run, ...]], ...]
    sends: Mapping[tuple[int, int], tuple[float, float]]
    latency_s: float
    period_s: float
    stage_s: tuple[float, ...]
    path: tuple[PathStep, ...]
    host_s: float = 0.0

    @property
    def bubble(self) -> float:
        """Share of stage time spent idle in one pass, once the host has started it."""
        busy, span = sum(self.stage_s) * len(self.cells[0]), (self.period_s - self.host_s) * len(self.stage_s)
        return max(0.0, 1.0 - busy / span) if span > 0 else 0.0

    @property
    def fill_s(self) -> float:
        """From when the first stage begins until the last rank of the last one does: the first micro-batch is on its way; 0 with one stage."""
        if len(self.cells) == 1:
            return 0.0
        return max(0.0, self.cells[-1][0][0].start_s - self.cells[0][0][0].start_s)

    @property
    def drain_s(self) -> float:
        """From when every rank of the first stage has done its last micro-batch until the pass ends; 0 with one stage."""
        if len(self.cells) == 1:
            return 0.0
        return max(0.0, self.latency_s - self.cells[0][-1][-1].end_s)
