"""One worker: attention-DP ranks in lockstep, each with its queue, slots and cache. Cost per event, not per token.

Between two events nothing changes but contexts, each by the same tokens per step, so n decode steps are one closed form:

    T(n) = n (base + k C) + k G n (n - 1) / 2

with C the context of the fullest rank in the first of them, G what it grows by per step, and the price `base + k context`. Events: an arrival, a
sequence that ends, a chunk of a prompt that ends, a rank out of blocks, another rank becoming the fullest, the end of the
price's line. Every count of tokens is an integer of 1 / `parts` token (drafts bring fractions on average), so a
run of steps is exact: in rational arithmetic equal to stepping, in floats but for the last digits.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from typing import Any

from . import gaps
from .balance import Gate
from .dp_rank import NEVER, Rank, Shared, held_by
from .live_request import BROUGHT, Sequence
from .records import Engine, Line, Request, Served, Stretch
from .rules import CannotServe as CannotServe
from .rules import Rules
from .runs_of_steps import NOTHING, steps_to
from .served_rows import KEPT, ServedRows
from .usual import Clock, is_usual, may_start
from .usual import run as run_usual

SAMPLES = 512
"""Rows of a time series: from half of them to all."""
RUNS = 1 << 16
"""Numbers of runs of gaps that wait to be sorted into their bins."""

Hook = Callable[[Sequence, float], None]


class Worker:
    """The interface of a worker to what is around it (routers, pools, closed loops):

    - `feed`: arrivals in order, read as time goes on (of any number); `add`: one arrival. Both may be used.
    - `run_until(time_s)`: everything up to and at `time_s`. It starts no step at or after `time_s`: an arrival at `time_s` can still join.
    - `next_event_s()`: starts the step that is due, once all arrivals up to now are added, and says when the worker's next event is
      (infinite: it has nothing to do). An arrival added later shortens a run of decode steps to the end of the step under way.
    - `run()`: to the end.
    - hooks, called at the time at which it happens, with the sequence and the time: `on_first` (its first token), `on_chunk` (a chunk of its
      prompt other than the last is computed: `part` tokens, `done` in all), `on_finish`, `on_reject(request, now)`. They may `add` to any worker.
    - `waiting[rank]`, `running[rank]`, `requests[rank]`: sequences, the last of both; `free_blocks(rank)`, `hit_tokens(rank, request)`. `route(worker, request)` gives the rank
      of an arrival, at its time, by what the ranks hold then, or None: it is turned away (without `route`: one after the other).
    - `hold`: what has ended keeps its blocks (a transfer reads them) until `release`, and is no finished request of this worker, unless
      `on_finish` says True. May be changed while the worker has no requests.
    - `on_room`: a request whose prompt was computed elsewhere has its slot and blocks. True: its cache is there, it decodes in this step;
      False: it does so from the first step after `arrived` on.
    - `turn`: whether the worker computes prompts, and decodes; of one that alternates roles.

    Times may be floats or fractions; counts are integers."""

    def __init__(
        self,
        engine: Engine,
        *,
        served: Served | ServedRows | None = None,
        route: Callable[[Worker, Request], int | None] | None = None,
        on_first: Hook | None = None,
        on_chunk: Hook | None = None,
        on_finish: Callable[[Sequence, float], bool | None] | None = None,
        on_reject: Callable[[Request, float], None] | None = None,
        on_room: Callable[[Sequence, float], bool] | None = None,
        hold: bool = False,
        index: int = 0,
        steps_kept: int = 0,
        sample_s: float = 1 / 64,
        check: Callable[[Worker], None] | None = None,
    ) -> None:
        self.engine = engine
        self.rules = Rules(engine)
        self.rows = ServedRows(served) if isinstance(served, Served) else served
        self.route = route
        self.on_first, self.on_chunk, self.on_finish, self.on_reject = on_first, on_chunk, on_finish, on_reject
        self.hold = hold
        self.index = index
        self.check = check
        self.admits = self.decodes = True
        self.shared = Shared(engine.ranks, self.rules.size)
        self.shared.on_room = on_room
        self.waiting, self.running, self.requests = self.shared.waiting, self.shared.running, self.shared.requests
        self.ranks = [Rank(index, self.rules, self.shared) for index in range(engine.ranks)]
        self.awake: set[int] = set()  # ranks where something may be scheduled
        self.gate = Gate(engine.balance, engine.gather) if engine.balance and engine.ranks > 1 else None
        self.gated: set[int] = set()  # ranks where something may be once the gate opens
        self.now: float = 0
        self.step = 0
        self.events = 0
        self.idle_s: float = 0
        self.prompts_s: float = 0  # in steps of prompts alone
        self.came = self.rejected = self.too_long = self.finished = 0
        self.computed_tokens = self.prompt_tokens = self.output_tokens = 0
        self.series = {name: array("d") for name in ("time_s", "waiting", "running", "blocks")}
        self.sample_s = sample_s
        self.sample_at: float = 0
        self.stretches: list[Stretch] = []
        self.steps_kept = steps_kept
        self._landed: list[Sequence] = []
        self._apart = False  # some ranks have skipped more steps than others
        self._top = self._next_top = 0  # the fullest rank, and the one that will be from step `_until` on
        self._until = 0
        self._limit: float = -math.inf
        self._start = False
        self._cut: float = math.inf
        self._stretch: tuple[float, float, float, int] | None = None  # steps under way, see `steps_to`
        self._inbox: list[tuple[float, int, Request, int | None, float | None, Any]] = []
        self._added = 0
        self._turn = 0
        self._stream: Iterator[Request] = iter(())
        self._head: Request | None = None
        self._busy = False
        self._loop = self._run()
        self._next = next(self._loop)

    # ---- for what is around the worker

    def feed(self, requests: Iterable[Request]) -> None:
        """Arrivals, sorted by time; read one ahead."""
        self._stream = iter(requests)
        self._head = next(self._stream, None)

    def add(
        self,
        request: Request,
        at_s: float | None = None,
        rank: int | None = None,
        first_s: float | None = None,
        tag: Any = None,
    ) -> None:
        """`request` enters the queue at `at_s` (default: its arrival and the host's time for it), of `rank` (default: as routed).
        `first_s`: its first token came out then, elsewhere, and its cache comes along (its output is 2 tokens or more)."""
        at = request.arrival_s + self.rules.request_s if at_s is None else at_s
        if at > self._limit or self._busy:
            self._added += 1
            heappush(self._inbox, (at, self._added, request, rank, first_s, tag))
            return
        if at < self._cut:
            self._cut = at
        self._enter(at, request, rank, first_s, tag)

    def run_until(self, time_s: float) -> None:
        """All events up to and at `time_s`; starts no step at or after it."""
        self._limit, self._start = time_s, False
        if self._stretch is None or time_s >= self._next or self._cut < math.inf:
            self._go()  # else in the middle of a step

    def next_event_s(self) -> float:
        """Starts the step that is due and gives the time of the next event."""
        self._start = True
        self._go()
        return self._next

    def run(self) -> None:
        """To the end of all that was given to it."""
        self._limit, self._start = math.inf, True
        self._go()
        if self.rows is not None:
            self.rows.flush()

    def release(self, sequence: Sequence, now: float) -> None:
        """A finished sequence lets its blocks go (`hold`)."""
        rank = self.ranks[sequence.rank]
        rank.keeps(sequence, now, sequence.todo * self.rules.parts)
        rank.let_go(sequence, now)
        self._wake(sequence.rank, now)

    def arrived(self, sequence: Sequence, now: float) -> None:
        """The cache of a sequence that has room is there (`on_room` said False)."""
        self._landed.append(sequence)
        self._wake(sequence.rank, now)

    def turn(self, admits: bool, decodes: bool, now: float) -> None:
        """From `now` on, when no step runs, it computes prompts if it `admits`, and decodes if it `decodes`."""
        self.admits, self.decodes = admits, decodes
        for rank in range(len(self.ranks)):
            self._wake(rank, now)

    def free_blocks(self, rank: int) -> int:
        """Blocks that no sequence holds (the prefix cache may have text in them)."""
        return self.rules.kv_blocks - self.held(rank)

    def held(self, rank: int) -> int:
        """Blocks that the rank's sequences hold."""
        return self.ranks[rank].held(self.step)

    def hit_tokens(self, rank: int, request: Request) -> int:
        """Tokens of its prompt that the rank's prefix cache has."""
        cache = self.ranks[rank].cache
        if cache is None:
            return 0
        found, _, _, _ = cache.find(request.blocks, min(len(request.blocks), request.prompt // self.rules.unit))
        return min(found * self.rules.unit, request.prompt - 1)

    @property
    def counts(self) -> dict[str, int]:
        """So far."""
        shared = self.shared
        return {
            "arrived": self.came,
            "finished": self.finished,
            "rejected": self.rejected,
            "too_long": self.too_long,
            "preempted": shared.preempted,
            "steps": self.step,
            "events": self.events,
            "hit_tokens": shared.hit_tokens,
            "computed_tokens": self.computed_tokens,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
        }

    @property
    def integrals(self) -> dict[str, float]:
        """Over time, of what has waited, and run to its end. Blocks and tokens: as if a sequence's steps of decode took equally long."""
        shared, rules = self.shared, self.rules
        text_s = sum(rank.cache.held_s for rank in self.ranks if rank.cache is not None)
        return {
            "waiting": shared.waiting_s,
            "running": shared.running_s,
            "blocks": shared.blocks_s / 2 + text_s * rules.unit_blocks,
            "tokens": shared.tokens_s / (2 * rules.parts) + (text_s - shared.refs_s) * rules.unit,
            "busy": self.now - self.idle_s,
            "prompts": self.prompts_s,
            "queued": shared.queued_s,
        }

    def held_at(self, when: float) -> int:
        """Blocks that all ranks hold at `when`, in the steps under way or after all that have been."""
        step = self.step
        if self._stretch is not None:
            start, takes, more, steps = self._stretch
            step += steps_to(when, start, takes, more, steps) - 1
        return self._held_after(step)

    @property
    def gaps(self) -> dict[int, float]:
        """The histogram of gaps so far."""
        gaps.add_runs(self.shared.gaps, self.shared.runs)
        return self.shared.gaps

    @property
    def most(self) -> dict[str, int]:
        """The most that waited, ran, and were held at a time."""
        shared = self.shared
        return {"waiting": shared.most_waiting, "running": shared.most_running, "blocks": shared.most_blocks}

    # ---- inside

    def _go(self) -> None:
        self._busy = True
        self._next = next(self._loop)
        self._busy = False

    def _wake(self, rank: int, now: float) -> None:
        self.awake.add(rank)
        if now < self._cut:
            self._cut = now

    def _arrival_s(self) -> float:
        """When the next request comes; infinite: none is known."""
        stream = math.inf if self._head is None else self._head.arrival_s + self.rules.request_s
        return min(stream, self._inbox[0][0]) if self._inbox else stream

    def _take(self) -> float:
        """The next request comes. When the one after it does."""
        head, inbox = self._head, self._inbox
        rules = self.rules
        if head is not None:
            at = head.arrival_s + rules.request_s
            if not inbox or at <= inbox[0][0]:
                self._head = following = next(self._stream, None)
                self._enter(at, head, None, None, None)
                return self._arrival_s() if following is None or inbox else following.arrival_s + rules.request_s
        at, _, request, rank, first_s, tag = heappop(inbox)
        self._enter(at, request, rank, first_s, tag)
        return self._arrival_s()

    def _enter(self, at: float, request: Request, index: int | None, first_s: float | None, tag: Any) -> None:
        """A request comes into a queue at `at`, or is turned away."""
        rules, shared = self.rules, self.shared
        no = self.came
        self.came = no + 1
        if index is None:
            if self.route is not None:
                index = self.route(self, request)
            else:
                index = self._turn
                self._turn = (index + 1) % rules.ranks
        _, prompt, output, _, _ = request
        if (
            prompt < 1
            or output < 1
            or prompt * rules.parts + output * rules.growth > rules.safe
            or not rules.open
            or index is None
        ):
            too_long = rules.refusal(request) is not None
            if too_long or index is None or (rules.queue is not None and self.waiting[index] >= rules.queue):
                self.rejected += 1
                self.too_long += too_long
                if self.on_reject is not None:
                    self.on_reject(request, at)
                return
        seq = Sequence(no, request, index, output - 1 if rules.plain else rules.steps(prompt, output), at, tag)
        if first_s is not None:
            if not seq.left:
                raise CannotServe("a request of one output token has nothing to decode")
            seq.source, seq.done = BROUGHT, prompt * rules.parts
            seq.first_s = seq.last_s = first_s
        self.awake.add(index)
        shared.requests[index] += 1
        if rules.fifo:  # as shared.waits and the rank's push do it
            shared.waiting[index] += 1
            waiting = shared.waiting_all
            if not waiting:
                shared.queued_since = at
            shared.waiting_all = waiting = waiting + 1
            if waiting > shared.most_waiting:
                shared.most_waiting = waiting
            self.ranks[index].queue.append(seq)
        else:
            shared.waits(index, at)
            self.ranks[index].push(seq)

    def _finish(self, seq: Sequence, rank: Rank, now: float) -> None:
        """The last token is out."""
        request, shared = seq.request, self.shared
        index = seq.rank
        shared.running[index] -= 1
        shared.requests[index] -= 1
        shared.running_all -= 1
        rank.tokens += request.prompt + request.output
        if rank.queue:
            self.awake.add(index)
        if self.hold and not (self.on_finish is not None and self.on_finish(seq, now)):
            seq.running_s = now
            return
        rank.let_go(seq, now)
        self.finished += 1
        arrival, prompt, output, _, _ = request
        self.prompt_tokens += prompt
        self.output_tokens += output
        rows = self.rows
        if rows is not None:
            started, first = seq.started_s, seq.first_s
            assert started is not None and first is not None
            rows.add((arrival, started - arrival, first - arrival, now - arrival, prompt, output, seq.cached))
            if len(rows) > KEPT:
                rows.flush()
        if self.on_finish is not None and not self.hold:
            self.on_finish(seq, now)

    def _advance(self, seq: Sequence, step: int, now: float) -> None:
        """A part of a prompt is computed."""
        index = seq.rank
        rank = self.ranks[index]
        part = seq.part
        seq.done = done = seq.done + part
        self.computed_tokens += part
        if rank.cache is not None and seq.request.blocks:
            rank.register(seq, step, now)
            if rank.queue:
                self.awake.add(index)
        if done < seq.todo:
            if self.on_chunk is not None:
                self.on_chunk(seq, now)
            return
        under_way = rank.under_way
        if seq.first_s is None:
            seq.first_s = now
            if self.on_first is not None:
                self.on_first(seq, now)
        else:
            gaps.add_run(self.shared.gaps, now - seq.last_s, 0, 1, 1)
        seq.last_s = now
        if seq.left:
            under_way.remove(seq)
            rank.join(seq, seq.todo * self.rules.parts, step, now)
            if rank.stall is not None:
                rank.stall[1].append(seq)
        else:
            rank.drop(seq, now)
            if rank.cache is not None:
                rank.evict(step)
            self._finish(seq, rank, now)
        if not under_way and not rank.queue:
            self.awake.discard(index)

    def _sample(self, now: float) -> float:
        """The series up to `now`, before what happens then. Returns when the next row is due. A full series keeps every second row and goes on at half the rate."""
        series = self.series
        times, waiting, running, blocks = series["time_s"], series["waiting"], series["running"], series["blocks"]
        while self.sample_at <= now:
            times.append(self.sample_at)
            waiting.append(self.shared.waiting_all)
            running.append(self.shared.running_all)
            blocks.append(self.held_at(self.sample_at))
            if len(times) >= SAMPLES:
                for column in (times, waiting, running, blocks):
                    column[:] = column[::2]
                self.sample_s *= 2
                self.sample_at = times[-1]
            self.sample_at += self.sample_s
        if len(self.shared.runs) > RUNS:
            gaps.add_runs(self.shared.gaps, self.shared.runs)
        return self.sample_at

    def _opens(self, gate: Gate, step: int, now: float) -> bool:
        """Whether the prompts that the ranks have may run in the step after `step`."""
        admits, decodes = self.admits, self.decodes
        ready = [rank.index in self.awake and rank.ready(step, now, admits, decodes) for rank in self.ranks]
        return gate.opens(step, ready, [rank.generates(step, decodes) for rank in self.ranks])

    def _fullest(self, working: set[int]) -> tuple[int, int, int]:
        """Of the ranks in decode: the largest context, what it grows by in a step, and for how many steps it stays the largest."""
        growth, step, ranks, touched = self.rules.growth, self.step, self.ranks, self.shared.touched
        # The next one may be level with the fullest a step before it is fuller.
        if not working and step + 1 < self._until and self._top not in touched and self._next_top not in touched:
            rank = ranks[self._top]
            grows = rank.decoding * growth
            context = rank.offset + grows * (step - rank.skipped)
            for index in touched:
                rank = ranks[index]
                faster = rank.decoding * growth
                if faster:
                    other = rank.offset + faster * (step - rank.skipped)
                    if other > context or (other == context and faster > grows):
                        break
                    if faster > grows:
                        until = step + (context - other) // (faster - grows) + 1
                        if until < self._until:
                            self._until, self._next_top = until, index
            else:
                touched.clear()
                return context, grows, self._until - step
        context = grows = top = 0
        lines = []
        for rank in ranks:
            faster = rank.decoding * growth
            if faster and rank.index not in working:
                other = rank.offset + faster * (step - rank.skipped)
                lines.append((other, faster, rank.index))
                if other > context or (other == context and faster > grows):
                    context, grows, top = other, faster, rank.index
        steps, following = NEVER, top
        for other, faster, index in lines:
            if faster > grows:
                until = (context - other) // (faster - grows) + 1
                if until < steps:
                    steps, following = until, index
        if not working:
            touched.clear()
            self._top, self._next_top, self._until = top, following, step + steps
        return context, grows, steps

    def _held_after(self, step: int) -> int:
        """Blocks that all ranks hold after a step."""
        shared, rules = self.shared, self.rules
        if len(self.ranks) == 1 or self._apart:
            return held_by(self.ranks, step)
        if not shared.decoding or rules.whole:
            return shared.fixed
        turns, rest = divmod((step - self.ranks[0].skipped) * rules.growth, rules.size)
        return shared.fixed + shared.decoding * turns + (sum(shared.ring[-rest:]) if rest else 0)

    def _next_end(self) -> int:
        """The step after which the next sequence ends."""
        ends, ranks = self.shared.ends, self.ranks
        while ends:
            entry = ends[0]
            due, _, seq = entry
            if entry is seq.entry:
                late = seq.end + ranks[seq.rank].skipped
                if late <= due:
                    return due
                seq.entry = (late, seq.no, seq)  # its rank has skipped steps since
                heapreplace(ends, seq.entry)
            else:
                heappop(ends)
        return NEVER

    def _run(self) -> Generator[float, None, None]:
        """The loop; it stops wherever `run_until` says, and says when it would go on."""
        ranks, count, parts, growth = self.ranks, len(self.ranks), self.rules.parts, self.rules.growth
        price, swap_s = self.engine.prices.step, self.engine.swap_s
        first_mode = not self.rules.mixed
        gate, gated, computes = self.gate, self.gated, True
        shared, awake = self.shared, self.awake
        ends, worked, resumed = shared.ends, shared.worked, shared.resumed
        add_gaps = shared.runs.extend
        alone = ranks[0] if count == 1 else None
        never = math.inf
        stalled: set[int] = set()
        lines: dict[int, Line] = {}
        nobody: set[int] = set()
        decodes = True
        t: float = 0
        more: float = 0
        step = events = prompt = moved = 0
        slipped = 0  # the most steps that a rank has skipped
        short = most = NEVER
        single = False
        working = nobody
        inbox, check, steps_kept, sample_at = self._inbox, self.check, self.steps_kept, self.sample_at
        yield math.inf
        usual = is_usual(self)
        limit, start = self._limit, self._start
        at = self._arrival_s()
        while True:
            if usual and start and limit == never and not (single or inbox or steps_kept) and may_start(self):
                t, step, events, at, sample_at, short = run_usual(
                    self, Clock(t, step, events, at, sample_at, short), lines
                )
            while at <= t:
                at = self._take()
            sequences = shared.decoding
            if not awake and (not sequences or not decodes):
                if shared.waiting_all and not shared.running_all and self.admits and not self.hold:
                    raise RuntimeError("requests wait, none runs, and none may start")
                before = t
                if at > limit or at == math.inf:
                    self._cut = math.inf
                    self.events, self.now = events, t
                    yield at
                    limit, start = self._limit, self._start
                    at = self._arrival_s()
                    if self._cut < math.inf:
                        t, self._cut = max(t, self._cut), math.inf
                else:
                    if sample_at < at:
                        sample_at = self._sample(at)
                    t = at
                self.idle_s += t - before
                continue
            if t >= limit and not start:
                self.events, self.now = events, t
                yield t
                limit, start = self._limit, self._start
                at = self._arrival_s()
                continue
            # what the step holds, and what it costs
            if awake or short <= step:
                decodes = self.decodes
                prompt = pairs = moved = fullest = 0
                working = nobody if decodes else set(range(count))
                for seq in self._landed:
                    ranks[seq.rank].resume(seq, step, t)
                self._landed.clear()
                if short <= step:
                    awake.update([rank.index for rank in ranks if rank.short <= step])
                if gate is not None:
                    awake |= gated
                    gated.clear()
                    computes = self._opens(gate, step, t)
                for index in sorted(awake) if count > 1 else (0,):
                    rank = ranks[index]
                    tokens, some, move = rank.schedule(step, t, self.admits, decodes, computes)
                    if not computes:
                        awake.discard(index)
                        if rank.under_way or rank.queue:
                            gated.add(index)
                    elif not rank.under_way:
                        awake.discard(index)
                    if tokens:
                        prompt += tokens
                        if some > pairs:
                            pairs = some
                        if tokens > fullest:
                            fullest = tokens
                        if first_mode and decodes:
                            working = working | {index}
                    if move > moved:
                        moved = move
                short = alone.short if alone is not None else min([rank.short for rank in ranks])
                if gated:
                    assert gate is not None
                    short = min(short, gate.due(step))
                single = bool(prompt or moved or resumed or stalled or awake)
                sequences = shared.decoding
                for index in working:
                    sequences -= ranks[index].decoding
            if alone is not None:
                grows = sequences * growth
                context = alone.offset + grows * (step - slipped) if grows else 0
            else:
                context, grows, most = self._fullest(working)
            if prompt:
                base, slope, _, _ = price(sequences / count, context / parts, prompt / count, pairs, fullest)
                if parts != 1:
                    slope /= parts
            else:
                base, slope, until, since = lines.get(sequences, NOTHING)  # in parts of tokens
                if not since <= context < until:
                    if sequences:
                        base, slope, until, since = price(sequences / count, context / parts)
                        if parts != 1:
                            slope, until, since = slope / parts, until * parts, since * parts
                        lines[sequences] = Line(base, slope, until, since)
                    elif not moved:
                        continue  # nothing may start: idle above
            takes = base + slope * context
            if single:
                steps = 1
                if moved:
                    takes += moved * swap_s / parts
                end = t + takes
                more = 0
                due = ends[0][0] if ends else NEVER
            else:
                more = slope * grows
                due, _, seq = entry = ends[0]
                if slipped or entry is not seq.entry:
                    due = self._next_end()
                steps = (short if short < due else due) - step
                if most < steps:
                    steps = most
                if until < never and until < context + (steps - 1) * grows:
                    steps = max(1, min(steps, math.ceil((until - context) / grows)))
                if steps == 1:
                    end = t + takes
                else:
                    end = t + steps * takes + more * (steps * (steps - 1) // 2)
                    if end > at:
                        steps = steps_to(at, t, takes, more, steps)
                        end = t + steps * takes + more * (steps * (steps - 1) // 2)
            if end > limit:
                self._cut = math.inf
                self.events, self.now = events, t
                self._stretch = (t, takes, more, steps)
                while end > limit:
                    yield end
                    limit, start = self._limit, self._start
                    at = self._arrival_s()
                    if self._cut < end and steps > 1:
                        steps = steps_to(self._cut, t, takes, more, steps)
                        end = t + steps * takes + more * (steps * (steps - 1) // 2)
                    self._cut = math.inf
            if sample_at < end:
                self._stretch = (t, takes, more, steps)
            while at < end:
                if sample_at <= at:
                    sample_at = self._sample(at)
                at = self._take()
            if sample_at < end:
                sample_at = self._sample(end)
            self._stretch = None
            # what it brings
            if steps_kept:
                steps_kept -= 1
                self.stretches.append(Stretch(self.index, -1, t, end, steps, sequences, prompt))
            events += 1
            if single:
                if prompt and not sequences:
                    self.prompts_s += end - t
                if resumed or stalled or working:
                    sequences -= self._book(end, working, stalled, t)
                    slipped = max([rank.skipped for rank in ranks])
                    self._apart = min([rank.skipped for rank in ranks]) != slipped
            if sequences:
                add_gaps((takes, more, steps, sequences))
            self.step = step = step + steps
            t = end
            if due <= step:
                shared.looked, shared.held = step, self._held_after(step)  # the most is held before what ends lets go
                if shared.held > shared.most_blocks:
                    shared.most_blocks = shared.held
            while due <= step:
                _, _, seq = entry = ends[0]
                if (slipped or entry is not seq.entry) and self._next_end() > step:
                    break
                seq = heappop(ends)[2]
                rank = ranks[seq.rank]
                if rank.cache is not None:
                    rank.evict(step)
                rank.leave(seq, step, t)
                self._finish(seq, rank, t)
                if gated:
                    awake |= gated
                due = ends[0][0] if ends else NEVER
            if single:
                for seq in worked:
                    self._advance(seq, step, t)
                worked.clear()
                prompt = moved = 0
                single = bool(stalled)
                working = nobody
            if inbox:
                at = self._arrival_s()
            if check is not None:
                self.events, self.now = events, t
                check(self)

    def _book(self, end: float, working: set[int], stalled: set[int], start: float) -> int:
        """The gaps of sequences that decode after a pause, and who pauses. Returns how many tokens came after one."""
        ranks, resumed = self.ranks, self.shared.resumed
        late = 0
        for seq in resumed:
            if seq.rank not in working:
                gaps.add_run(self.shared.gaps, end - seq.last_s, 0, 1, 1)
                late += 1
        for index in sorted(stalled - working):
            late += ranks[index].flush(end, sum(seq.rank == index for seq in resumed))
            stalled.discard(index)
        for index in working:
            rank = ranks[index]
            if rank.stall is None:
                rank.stall = (start, [])
                stalled.add(index)
            rank.stall[1].extend(seq for seq in resumed if seq.rank == index)
            rank.skipped += 1
            self.shared.touched.add(index)
        resumed.clear()
        return late
