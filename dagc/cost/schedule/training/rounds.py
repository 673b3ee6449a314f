"""rounds: GPUs run through their orders in rounds, each by one run of the loop that it is in; rounds that repeat are left out.

What a stage takes next is what the one before gave next, so a send is a queue and no cell is looked up by its number. A cut
behind a round has where GPUs are in their loops, when each is free, and when each send in flight arrives. A period of rounds
maps these times to those a period later by sums and maxima alone. Where the cuts of the last periods are on a line, they stay on it
until a cell waits that did not wait, or no longer waits that did: what it waited changes by the same with every period, so how many
periods there are until then is known, and they are left out at once. The maxima are convex: where the line also holds behind the last of
these periods, which is run, it held at all of them (as in `microbatches.py`), exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from ....base.frozen import field, mutable
from .cell_orders import Cell, Entry, Kind, Part, PipelineSchedule, cells_of
from .end_tracks import Gap, Track
from .stage_times import StageTimes

RELATIVE = 1e-12
LEAST = 4
"""Rounds that are worth being left out at once."""

Arrivals = deque[float]


class Taken(NamedTuple):
    """What a cell waits for, where its end is written, and where its result goes."""

    arrivals: Arrivals | None
    ends: list[float]
    gives: Arrivals | None
    send_s: float


class Work(NamedTuple):
    """An entry of a body: its own cell, and `also` the second one of an overlap."""

    time_s: float
    arrivals: Arrivals | None
    ends: list[float]
    gives: Arrivals | None
    send_s: float
    also: Taken | None


class Body(NamedTuple):
    work: tuple[Work, ...]
    times: int


@mutable
class Gpu:
    """A GPU on its way through its order: in which loop it is, how many runs of it are done, at which entry, and since when it is
    free. `left`: entries that it may still run in this round; `waits`: for what it did when it last stopped; `late_s`: of all that it
    took, how much later that came than it was free, less than nothing where it came before."""

    bodies: Sequence[Body]
    loop: int = 0
    run: int = 0
    at: int = 0
    free_s: float = 0.0
    left: int = 0
    waits: Arrivals | None = None
    late_s: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.loop == len(self.bodies)

    def begin_round(self) -> None:
        self.left = 0 if self.done else len(self.bodies[self.loop].work)
        self.waits = None

    def advance(self) -> bool:
        """Run entries until one has to wait for another GPU, or the round or the loop is over. Whether any ran."""
        left, at, free, late_s = self.left, self.at, self.free_s, self.late_s
        work, times = self.bodies[self.loop]
        size = len(work)
        while left:
            time_s, arrivals, ends, gives, send_s, also = work[at]
            if also is not None and also.arrivals is not None:
                if not also.arrivals or (arrivals is not None and not arrivals):
                    self.waits = arrivals if also.arrivals else also.arrivals
                    break
                begin = also.arrivals.popleft()
                late_s.append(begin - free)
                if begin > free:
                    free = begin
            if arrivals is not None:
                if not arrivals:
                    self.waits = arrivals
                    break
                begin = arrivals.popleft()
                late_s.append(begin - free)
                if begin > free:
                    free = begin
            free += time_s
            ends.append(free)
            if gives is not None:
                gives.append(free + send_s)
            if also is not None:
                also.ends.append(free)
                if also.gives is not None:
                    also.gives.append(free + also.send_s)
            left -= 1
            at += 1
            if at == size:
                at = 0
                self.run += 1
                if self.run == times:
                    self.loop, self.run, self.at, self.free_s, self.left = self.loop + 1, 0, 0, free, 0
                    return True
        any_ran = left < self.left
        self.at, self.free_s, self.left = at, free, left
        return any_ran

    def runs_left(self) -> int:
        """Of its loop, those that can begin and end in this loop from where it is."""
        return self.bodies[self.loop].times - self.run - bool(self.at)


class Cut(NamedTuple):
    """Behind a round. `shape`: where unfinished GPUs are in their loops, and how many sends are in flight; `runs` of these loops
    are done; `times_s`: since when GPUs are free, and when sends arrive; `counts`: of ends written, by list; `taken`: how often GPUs took
    something."""

    shape: tuple[object, ...]
    runs: tuple[int, ...]
    times_s: tuple[float, ...]
    counts: tuple[int, ...]
    taken: tuple[int, ...]


class Blocked(Exception):
    """No GPU can go on. `waiting`: by GPU, what it would run next."""

    def __init__(self, waiting: dict[int, Entry]) -> None:
        super().__init__("no GPU can go on")
        self.waiting = waiting


@mutable
class Walk:
    """A schedule on its way through its rounds. `fold`: whether rounds that repeat are left out."""

    schedule: PipelineSchedule
    times: StageTimes
    fold: bool = True
    ends: dict[tuple[Part, int, int], list[float]] = field(default_factory=dict)
    gpus: list[Gpu] = field(default_factory=list)
    queues: list[Arrivals] = field(default_factory=list)
    feeds: list[tuple[int, ...]] = field(default_factory=list)
    gaps: dict[int, list[Gap]] = field(default_factory=dict)
    rounds: int = 0
    short: int = 0  # a GPU whose loop was near its end

    def __post_init__(self) -> None:
        takes = self._takes()
        for gpu, order in enumerate(self.schedule.orders):
            known: dict[object, Work] = {}
            bodies = []
            for loop in order:
                body = []
                for entry in loop.body:
                    key = entry[1:] if isinstance(entry, Cell) else (entry.forward.kind, entry.backward.kind)
                    work = known.get(key)
                    if work is None:
                        work = known[key] = self._work(gpu, entry, takes)
                    body.append(work)
                bodies.append(Body(tuple(body), loop.times))
            self.gpus.append(Gpu(bodies))

    def _work(self, gpu: int, entry: Entry, takes: Mapping[tuple[int, tuple[int, Part]], Taken]) -> Work:
        cells = cells_of(entry)
        own, *other = [takes[gpu, cell.kind] for cell in cells]
        time_s = self.times.entry_s(cells, [self.schedule.stage_at[gpu, cell.chunk][1] for cell in cells])
        return Work(time_s, *own, other[0] if other else None)

    def _takes(self) -> dict[tuple[int, tuple[int, Part]], Taken]:
        """What is waited for, written and sent, by GPU and kind."""
        found: dict[tuple[int, tuple[int, Part]], Taken] = {}
        feeds: list[set[int]] = [set() for _ in range(self.schedule.gpus)]
        for r, route in enumerate(self.schedule.routes):
            seats = route.seats
            down: list[Arrivals | None] = [None, *(deque() for _ in seats[1:]), None]
            up: list[Arrivals | None] = [*(deque() for _ in seats[1:]), None]
            self.queues += [queue for queue in (*down, *up) if queue is not None]
            for k, (gpu, chunk) in enumerate(seats):
                sends, returns = (
                    0.0 if not 0 <= other < len(seats) or seats[other].gpu == gpu else given[min(k, other)]
                    for other, given in ((k + 1, self.times.sends_s), (k - 1, self.times.returns_s))
                )
                feeds[gpu] |= {seats[other].gpu for other in (k - 1, k + 1) if 0 <= other < len(seats)} - {gpu}
                forward, gradient, weight = (
                    self.ends.setdefault((part, r, k), []) for part in (Part.FORWARD, Part.BACKWARD, Part.WEIGHT)
                )
                back = Taken(up[k], gradient, up[k - 1] if k else None, returns)
                found[gpu, Kind(chunk, Part.FORWARD)] = Taken(down[k], forward, down[k + 1], sends)
                found[gpu, Kind(chunk, Part.BACKWARD)] = found[gpu, Kind(chunk, Part.INPUT)] = back
                found[gpu, Kind(chunk, Part.WEIGHT)] = Taken(None, weight, None, 0.0)
        self.feeds = [tuple(each) for each in feeds]
        return found

    def run(self) -> None:
        """To the end of all orders."""
        cuts: deque[Cut] = deque(maxlen=4 * self.schedule.stages + 1)
        while any(not gpu.done for gpu in self.gpus):
            self._round()
            if not self.fold or self._ends_soon():
                cuts.clear()
                continue
            cuts.append(self._cut())
            if self._leap(cuts):
                cuts.clear()

    def track(self, part: Part, route: int, stage: int) -> Track:
        values = self.ends[part, route, stage]
        return Track(values, tuple(self.gaps.get(id(values), ())))

    def _ends_soon(self) -> bool:
        """Whether some loop is too near its end for rounds to be left out: most often that of the GPU which was found last."""
        for at in (self.short, *range(len(self.gpus))):
            gpu = self.gpus[at]
            if not gpu.done and gpu.runs_left() < LEAST:
                self.short = at
                return True
        return False

    def _round(self) -> None:
        self.rounds += 1
        gpus, feeds = self.gpus, self.feeds
        for gpu in gpus:
            gpu.begin_round()
        queued = [gpu.left > 0 for gpu in gpus]
        due = deque(at for at, is_due in enumerate(queued) if is_due)
        progress = False
        while due:
            at = due.popleft()
            queued[at] = False
            if gpus[at].advance():
                progress = True
                for other in feeds[at]:
                    gpu = gpus[other]
                    if not queued[other] and gpu.left and gpu.waits:
                        queued[other] = True
                        due.append(other)
        if not progress:
            raise Blocked({i: self._next(i) for i, gpu in enumerate(gpus) if not gpu.done})

    def _next(self, gpu: int) -> Entry:
        found = self.gpus[gpu]
        loop = self.schedule.orders[gpu][found.loop]
        return loop.body[found.at].later(found.run * loop.step)

    def _cut(self) -> Cut:
        going = [gpu for gpu in self.gpus if not gpu.done]
        return Cut(
            (tuple([(gpu.loop, gpu.at) for gpu in going]), tuple([len(queue) for queue in self.queues])),
            tuple([gpu.run for gpu in going]),
            (*[gpu.free_s for gpu in going], *[moment for queue in self.queues for moment in queue]),
            tuple([len(each) for each in self.ends.values()]),
            tuple([len(gpu.late_s) for gpu in self.gpus]),
        )

    # -- rounds that repeat ----------------------------------------------------------------------

    def _leap(self, cuts: Sequence[Cut]) -> bool:
        """Leave rounds out where that is exact. Whether any were."""
        last = cuts[-1]
        if not last.times_s:
            return False
        scale = RELATIVE * max(last.times_s)
        for period in range(1, (len(cuts) - 1) // 2 + 1):
            middle, first = cuts[-1 - period], cuts[-1 - 2 * period]
            if abs(last.times_s[0] - 2 * middle.times_s[0] + first.times_s[0]) > scale:
                continue
            if (
                last.shape != middle.shape
                or last.shape != first.shape
                or any(
                    abs(a - 2 * b + c) > scale
                    for a, b, c in zip(last.times_s, middle.times_s, first.times_s, strict=True)
                )
            ):
                continue
            periods = min(self._periods(last, middle), self._alike(last, middle, first, scale))
            if (periods - 1) * period >= LEAST and self._try(last, middle, first, period, periods):
                return True
        return False

    def _alike(self, last: Cut, middle: Cut, first: Cut, scale: float) -> int:
        """For how many more periods cells wait as they did in the last two: until what one waited, which changes by the same with each,
        is nothing."""
        least = inf
        for gpu, end, begin, before in zip(self.gpus, last.taken, middle.taken, first.taken, strict=True):
            if end - begin != begin - before:
                return 0
            for now, then in zip(gpu.late_s[begin:end], gpu.late_s[before:begin], strict=True):
                if (now > 0) != (then > 0) and max(abs(now), abs(then)) > scale:
                    return 0
                if abs(now) < abs(then):
                    least = min(least, (abs(now) + scale) / (abs(then) - abs(now)))
        return int(min(least, self.schedule.microbatches * self.schedule.chunks))

    def _periods(self, last: Cut, middle: Cut) -> int:
        """How many more the loops have."""
        going = [gpu for gpu in self.gpus if not gpu.done]
        moved = [a - b for a, b in zip(last.runs, middle.runs, strict=True)]
        return min((gpu.runs_left() // by for gpu, by in zip(going, moved, strict=True) if by), default=0)

    def _try(self, last: Cut, middle: Cut, first: Cut, period: int, periods: int) -> bool:
        """Leave out all but the last of so many periods; undone where the last one is not on the line."""
        skipped = periods - 1
        states = [(gpu.loop, gpu.run, gpu.at, gpu.free_s) for gpu in self.gpus]
        flying = [list(queue) for queue in self.queues]
        moves = iter([a - b for a, b in zip(last.times_s, middle.times_s, strict=True)])
        runs = iter([a - b for a, b in zip(last.runs, middle.runs, strict=True)])
        for gpu in self.gpus:
            if not gpu.done:
                gpu.run += skipped * next(runs)
                gpu.free_s += skipped * next(moves)
        for queue, old in zip(self.queues, flying, strict=True):
            queue.clear()
            queue.extend([moment + skipped * next(moves) for moment in old])
        for _ in range(period):
            self._round()
        if self._on_line(last, middle, first, periods):
            for ends, count, before in zip(self.ends.values(), last.counts, middle.counts, strict=True):
                if count > before:
                    gap = Gap(count, skipped * (count - before), count - before)
                    self.gaps.setdefault(id(ends), []).append(gap)
            self.rounds -= period
            return True
        for gpu, state, taken in zip(self.gpus, states, last.taken, strict=True):
            gpu.loop, gpu.run, gpu.at, gpu.free_s = state
            del gpu.late_s[taken:]
        for queue, old in zip(self.queues, flying, strict=True):
            queue.clear()
            queue.extend(old)
        for ends, count in zip(self.ends.values(), last.counts, strict=True):
            del ends[count:]
        return False

    def _on_line(self, last: Cut, middle: Cut, first: Cut, periods: int) -> bool:
        """Whether every end of the period just run, and the cut behind it, goes on from the last two periods."""
        there = self._cut()
        if there.shape != last.shape:
            return False
        allowed = 4 * RELATIVE * max(there.times_s)
        for a, b, c in zip(middle.times_s, last.times_s, there.times_s, strict=True):
            if abs(b + periods * (b - a) - c) > allowed:
                return False
        for ends, count, before, long_before in zip(
            self.ends.values(), last.counts, middle.counts, first.counts, strict=True
        ):
            size = count - before
            if before - long_before != size or len(ends) - count != size:
                return False
            for a, b, c in zip(ends[long_before:before], ends[before:count], ends[count:], strict=True):
                if abs(b + periods * (b - a) - c) > allowed:
                    return False
        return True
