"""makespan: when the cells of a schedule run, from how long cells and sends take; how long the step is, and who is idle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from ....base.frozen import record
from ....ir.verify.violation import VerifyError
from .cell_orders import Entry, Part, PipelineSchedule, cells_of
from .end_tracks import Track
from .in_flight import Peak
from .rounds import Blocked, Walk
from .stage_times import StageTimes

SHOWN = 4
"""GPUs that a message about a deadlock names."""
ROUNDING = 1e-12
"""Of the makespan."""


class Timed(NamedTuple):
    """An entry and when it runs."""

    entry: Entry
    start_s: float
    end_s: float


@record(slots=False)
class StepTimes:
    """`tracks`: the ends of forward cells, of gradients (whole ones and those of inputs) and of weights' gradients by (part,
    route, virtual stage). `ends_s`, `busy_s`: of each GPU, when its last cell ends and how long it runs cells. `rounds`: how many
    were looked at."""

    schedule: PipelineSchedule
    times: StageTimes
    tracks: dict[tuple[Part, int, int], Track]
    ends_s: tuple[float, ...]
    busy_s: tuple[float, ...]
    rounds: int

    @property
    def makespan_s(self) -> float:
        """From the first cell of the step to the last of any GPU."""
        return max(self.ends_s)

    @property
    def span_s(self) -> float:
        """The longest that a GPU is in the step. Steps follow each other at this distance where no GPU waits for all others
        between them."""
        return max(end - start for start, end in zip(self.starts_s, self.ends_s, strict=True))

    def peak_start_s(self, gpu: int, peak: Peak) -> float:
        """When a GPU begins to hold the most."""
        route, stage = self.schedule.stage_at[gpu, peak.cell.chunk]
        part = Part.FORWARD if peak.cell.part is Part.FORWARD else Part.BACKWARD
        return self.tracks[part, route, stage][peak.number] - self._entry_s(gpu, peak.entry)

    @property
    def bubbles_s(self) -> tuple[float, ...]:
        """Of each GPU, how much of the makespan it is idle; sums in another order differ by their rounding."""
        least_s = ROUNDING * self.makespan_s
        return tuple(idle if (idle := self.makespan_s - busy) > least_s else 0.0 for busy in self.busy_s)

    @cached_property
    def starts_s(self) -> tuple[float, ...]:
        """When each GPU begins its first cell."""
        return tuple(next(self.written(gpu)).start_s for gpu in range(self.schedule.gpus))

    def written(self, gpu: int) -> Iterator[Timed]:
        """Every entry of a GPU in order with its time."""
        ends: dict[tuple[Part, int], Iterator[float]] = {}
        stage_at = self.schedule.stage_at
        for entry in self.schedule.written(gpu):
            end_s = 0.0
            for cell in cells_of(entry):
                part = Part.BACKWARD if cell.part.is_gradient else cell.part
                if (part, cell.chunk) not in ends:
                    ends[part, cell.chunk] = iter(self.tracks[part, *stage_at[gpu, cell.chunk]])
                end_s = next(ends[part, cell.chunk])
            yield Timed(entry, end_s - self._entry_s(gpu, entry), end_s)

    def _entry_s(self, gpu: int, entry: Entry) -> float:
        cells = cells_of(entry)
        return self.times.entry_s(cells, [self.schedule.stage_at[gpu, cell.chunk][1] for cell in cells])


def step_times(schedule: PipelineSchedule, times: StageTimes, *, fold: bool = True) -> StepTimes:
    """`fold`: whether rounds that repeat are left out; the result is the same. Orders in which GPUs wait for each other are an
    error of the verifier."""
    walk = Walk(schedule, times, fold)
    try:
        walk.run()
    except Blocked as blocked:
        waiting = [f"GPU {gpu} at {schedule.said(entry)}" for gpu, entry in list(blocked.waiting.items())[:SHOWN]]
        more = f" and {len(blocked.waiting) - SHOWN} more" if len(blocked.waiting) > SHOWN else ""
        raise VerifyError(f"no GPU can go on: {', '.join(waiting)}{more} wait for each other") from None
    return StepTimes(
        schedule,
        times,
        {key: walk.track(*key) for key in walk.ends},
        tuple([gpu.free_s for gpu in walk.gpus]),
        tuple([sum(body.times * sum([w.time_s for w in body.work]) for body in gpu.bodies) for gpu in walk.gpus]),
        walk.rounds,
    )
