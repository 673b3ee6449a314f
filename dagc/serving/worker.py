"""One worker: attention-DP ranks in lockstep, each with its queue, slots and cache. Cost per event, not per token.

Between two events nothing changes but contexts, each by the same tokens per step, so n decode steps are one closed form:

    T(n) = n (base + k C) + k G n (n - 1) / 2

with C the context of the fullest rank in the first of them, G what it grows by per step, and the price `base + k context`. Events: an arrival, a
sequence that ends, a chunk of a prompt that ends, a rank out of blocks, another rank becoming the fullest, the end of the
price's line. Every count of tokens is an integer of 1 / `parts` token (drafts bring fractions on average), so a
run of steps is exact: in rational arithmetic equal to stepping, in floats but for the last digits.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

from .draft_steps import DraftSteps
from .gaps import add_run
from .prefix import PrefixCache
from .records import Engine, Line, Request, Served

NEVER = 1 << 62
"""A step that is never reached."""
UNLIMITED = 1 << 39
"""Blocks from which on nobody counts how near the end is."""
SAMPLES = 512
"""Rows of a time series: from half of it to all of it."""


NOTHING = Line(0, 0, math.inf)
"""The price of a step that only moves cache."""


class CannotServe(ValueError):
    """A load that the worker can never serve: its message says why."""


class Step(NamedTuple):
    """One step, for a timeline: sequences in decode and prompt tokens, over all ranks."""

    start_s: float
    end_s: float
    sequences: int
    prompt: int
    context: float


class Sequence:
    """A request in a worker. `todo`: tokens to compute before its next token (its prompt; after a recompute its output so far too), `done` of them
    computed; `left`: decode steps after them. `tag` is the caller's."""

    __slots__ = (
        "alone", "cached", "done", "end", "entered_s", "entry", "first_s", "full", "key", "last_s", "left", "no", "own", "part",
        "place", "rank", "ready", "refs", "request", "running_s", "start", "started_s", "steps", "tag", "todo", "waiting_s",
    )  # fmt: skip

    no: int
    request: Request
    rank: int
    key: tuple[int, int]
    todo: int
    done: int
    part: int
    left: int
    steps: int
    full: int
    refs: int
    cached: int
    own: int
    ready: int
    place: int
    start: int
    end: int
    alone: int
    entry: Any
    tag: Any
    entered_s: float
    waiting_s: float
    started_s: float | None
    running_s: float
    first_s: float | None
    last_s: float


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
    - `waiting[rank]`, `running[rank]`: sequences; `free_blocks(rank)`, `hit_tokens(rank, request)`. `route(worker, request)` gives the rank
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
        served: Served | None = None,
        route: Callable[[Worker, Request], int | None] | None = None,
        on_first: Hook | None = None,
        on_chunk: Hook | None = None,
        on_finish: Callable[[Sequence, float], bool | None] | None = None,
        on_reject: Callable[[Request, float], None] | None = None,
        on_room: Callable[[Sequence, float], bool] | None = None,
        hold: bool = False,
        steps_kept: int = 0,
        sample_s: float = 1 / 64,
        check: Callable[[Worker], None] | None = None,
    ) -> None:
        self.engine = engine
        self.served = served
        self.route = route
        self.on_first, self.on_chunk, self.on_finish, self.on_reject = on_first, on_chunk, on_finish, on_reject
        self.on_room = on_room
        self.admits = self.decodes = True
        self.hold = hold
        self.check = check
        ranks = engine.ranks
        self.drafts = DraftSteps(engine.tokens_per_step, engine.most_tokens_per_step, engine.draft_seed)
        mean = self.drafts.mean
        self.parts = mean.denominator
        self.growth = mean.numerator  # of a sequence's context in a step, in 1 / parts
        self.most = self.drafts.most
        self.size = engine.kv_block * self.parts  # of a block
        self.ahead = self.most * self.parts - self.growth  # room for drafts beyond the mean
        self.prefix_block = engine.prefix_block or engine.kv_block
        if self.prefix_block % engine.kv_block:
            raise CannotServe(
                f"prefix blocks of {self.prefix_block} tokens are no multiple of the cache's blocks of {engine.kv_block}"
            )
        self.slots = min(engine.slots, engine.batch_tokens // self.most)
        if self.slots < 1:
            raise CannotServe(
                f"a step of {engine.batch_tokens} tokens has no room for a sequence of {self.most} tokens per step"
            )
        self.fifo = engine.policy == "fcfs"
        self.whole = engine.admit == "whole"
        self.queues: list[Any] = [deque() if self.fifo else [] for _ in range(ranks)]
        self.parts_of: list[list[Sequence]] = [[] for _ in range(ranks)]  # sequences whose prompt is being computed
        self.waiting = [0] * ranks
        self.running = [0] * ranks
        self.decoding = [0] * ranks
        self.held = [0] * ranks  # blocks, at step `held_step` of the rank
        self.held_step = [0] * ranks
        self.held_s: list[float] = [0.0] * ranks
        self.offset = [0] * ranks  # context of a rank: offset + decoding * growth * step
        self.other = [0] * ranks  # tokens in held blocks: sum of contexts of the sequences in decode + this
        self.skipped = [0] * ranks  # steps in which the rank decoded nothing, because it computed prompts
        self.rings = [
            [0] * self.size for _ in range(ranks)
        ]  # sequences in decode by the step at which they need a block
        self.caches = [PrefixCache() for _ in range(ranks)] if engine.prefix_cache else []
        self.awake: set[int] = set()  # ranks where something may be scheduled
        self.now = 0.0
        self.step = 0
        self.gaps: dict[int, float] = {}
        self.counts = dict.fromkeys(
            (
                "arrived",
                "finished",
                "rejected",
                "too_long",
                "preempted",
                "steps",
                "events",
                "hit_tokens",
                "computed_tokens",
                "prompt_tokens",
                "output_tokens",
                "peak_blocks",
            ),
            0,
        )
        self.integrals: dict[str, float] = dict.fromkeys(("waiting", "running", "blocks", "tokens", "busy"), 0)
        self.series = {name: array("d") for name in ("time_s", "waiting", "running", "blocks")}
        self.sample_s = sample_s
        self.sample_at = 0.0
        self.steps: list[Step] = []
        self.steps_kept = steps_kept
        self._ends: list[
            Any
        ] = []  # (step, number, sequence) of the sequences in decode, by the step after which they end
        self._short = [NEVER] * ranks
        self._stalls: dict[
            int, list[Any]
        ] = {}  # of ranks that skip: [time of the last tokens, of how many sequences, sequences since]
        self._worked: list[Sequence] = []
        self._resumed: list[Sequence] = []
        self._landed: list[Sequence] = []
        self._limit: float = -math.inf
        self._start = False
        self._cut: float | None = None
        self._inbox: list[tuple[float, int, Request, int | None, float | None, Any]] = []
        self._added = 0
        self._turn = 0
        self._stream: Iterator[Request] = iter(())
        self._head: Request | None = None
        self._busy = False
        self._loop = self._run()
        self._next = next(self._loop)

    # ---- what is around the worker calls these

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
        at = request.arrival_s + self.engine.request_s if at_s is None else at_s
        if at > self._limit or self._busy:
            self._added += 1
            heapq.heappush(self._inbox, (at, self._added, request, rank, first_s, tag))
            return
        if self._cut is None or at < self._cut:
            self._cut = at
        self._enter(at, request, rank, first_s, tag)

    def run_until(self, time_s: float) -> None:
        """All events up to and at `time_s`; starts no step at or after it."""
        self._limit, self._start = time_s, False
        self._go()

    def next_event_s(self) -> float:
        """Starts the step that is due and gives the time of the next event."""
        self._start = True
        self._go()
        return self._next

    def run(self) -> None:
        """To the end of all that was given to it."""
        self._limit, self._start = math.inf, True
        self._go()

    def free_blocks(self, rank: int) -> int:
        """Blocks that no sequence holds (the prefix cache may have text in them)."""
        return self.engine.kv_blocks - self.held_now(rank)

    def held_now(self, rank: int) -> int:
        """Blocks that the rank's sequences hold."""
        steps = self.step - self.skipped[rank] - self.held_step[rank]
        return self.held[rank] + self._needs(rank, self.held_step[rank], steps)

    def tokens_now(self, rank: int) -> float:
        """Tokens in the blocks held (a prompt counts whole as soon as it has its blocks)."""
        step = self.step - self.skipped[rank]
        return (self.offset[rank] + self.decoding[rank] * self.growth * (step - 1) + self.other[rank]) / self.parts

    def hit_tokens(self, rank: int, request: Request) -> int:
        """Tokens of its prompt that the rank's prefix cache has."""
        if not self.caches:
            return 0
        hits = self.caches[rank].hits(request.blocks, request.prompt // self.prefix_block)
        return min(hits * self.prefix_block, request.prompt - 1)

    def refusal(self, request: Request) -> str | None:
        """Why the worker can never serve `request`, or None. Steps that are drawn may be as many as there are tokens."""
        if request.prompt < 1 or request.output < 1:
            return f"a request of {request.prompt} prompt and {request.output} output tokens: both must be at least 1"
        steps = request.output - 1
        if self.growth > self.parts and not self.drafts.spread:
            steps = math.ceil(steps * self.parts / self.growth)
        need = -(-(request.prompt * self.parts + self.ahead + steps * self.growth) // self.size)
        if need > self.engine.kv_blocks:
            return (
                f"a request of {request.prompt} prompt and {request.output} output tokens needs {need} blocks of {self.engine.kv_block} tokens,"
                f" the cache of a rank has {self.engine.kv_blocks}"
            )
        return None

    def release(self, sequence: Sequence, now: float) -> None:
        """A finished sequence lets its blocks go (`hold`)."""
        rank = sequence.rank
        self._sync(rank, now)
        self.other[rank] -= sequence.todo * self.parts
        self._let_go(sequence)
        self.awake.add(rank)
        if self._cut is None or now < self._cut:
            self._cut = now

    def arrived(self, sequence: Sequence, now: float) -> None:
        """The cache of a sequence that has room is there (`on_room` said False)."""
        self._landed.append(sequence)
        self.awake.add(sequence.rank)
        if self._cut is None or now < self._cut:
            self._cut = now

    def turn(self, admits: bool, decodes: bool) -> None:
        """From the next step on it computes prompts if it `admits`, and decodes if it `decodes`."""
        self.admits, self.decodes = admits, decodes
        self.awake.update(range(self.engine.ranks))

    # ---- inside

    def _go(self) -> None:
        self._busy = True
        self._next = next(self._loop)
        self._busy = False

    def _enter(self, at: float, request: Request, rank: int | None, first_s: float | None, tag: Any) -> None:
        """A request comes into a queue at `at`, or is turned away."""
        counts = self.counts
        no = counts["arrived"]
        counts["arrived"] = no + 1
        if rank is None:
            if self.route is not None:
                rank = self.route(self, request)
            else:
                rank = self._turn
                self._turn = rank + 1 if rank + 1 < self.engine.ranks else 0
        waiting = self.waiting
        limit = self.engine.queue
        too_long = self.refusal(request) is not None
        if too_long or rank is None or (limit is not None and waiting[rank] >= limit):
            counts["rejected"] += 1
            counts["too_long"] += too_long
            if self.on_reject is not None:
                self.on_reject(request, at)
            return
        seq = Sequence()
        seq.no, seq.request, seq.rank, seq.tag = no, request, rank, tag
        seq.todo = seq.full = request.prompt
        seq.left = seq.steps = self.drafts.of(request.output - 1)
        seq.done = seq.part = seq.refs = seq.cached = seq.own = seq.alone = 0
        seq.ready = 0
        seq.entry = seq.first_s = seq.started_s = None
        seq.entered_s = seq.waiting_s = seq.last_s = at
        if first_s is not None:
            if not seq.left:
                raise CannotServe("a request of one output token has nothing to decode")
            seq.ready, seq.done = 1, request.prompt * self.parts
            seq.first_s = seq.last_s = first_s
        waiting[rank] += 1
        if self.fifo:
            seq.key = (0, no)
            self.queues[rank].append(seq)
        else:
            seq.key = (request.priority if self.engine.policy == "priority" else request.prompt, no)
            heapq.heappush(self.queues[rank], (seq.key, seq))
        self.awake.add(rank)

    def _needs(self, rank: int, step: int, steps: int) -> int:
        """Blocks that the rank's sequences take in `steps` decode steps after its step `step`."""
        if self.whole or not steps or not self.decoding[rank]:
            return 0
        size = self.size
        grown = steps * self.growth
        rest = grown % size
        need = self.decoding[rank] * (grown // size)
        if rest:
            ring = self.rings[rank]
            first = (-rest - step * self.growth) % size
            if first + rest <= size:
                need += sum(ring[first : first + rest])
            else:
                need += sum(ring[first:]) + sum(ring[: first + rest - size])
        return need

    def _sync(self, rank: int, now: float) -> None:
        """Brings the blocks held, and the integrals over them, up to `now`; text that nobody holds makes room."""
        since = self.held_step[rank]
        step = self.step - self.skipped[rank]
        held = self.held[rank]
        elapsed = now - self.held_s[rank]
        if not elapsed and step == since:
            return
        grown = self._needs(rank, since, step - since) if step != since else 0
        integrals = self.integrals
        decoding = self.decoding[rank] * self.growth
        tokens = 2 * (self.offset[rank] + self.other[rank]) + decoding * (since + step - 2)
        integrals["blocks"] += elapsed * (2 * held + grown) / 2
        integrals["tokens"] += elapsed * tokens / (2 * self.parts)
        self.held[rank] = held + grown
        self.held_step[rank] = step
        self.held_s[rank] = now
        self._fit(rank)

    def _fit(self, rank: int) -> None:
        """Text that no sequence holds goes as far as sequences want its room."""
        held = self.held[rank]
        if held > self.counts["peak_blocks"]:
            self.counts["peak_blocks"] = held
        if self.caches:
            cache = self.caches[rank]
            if cache.idle:
                cache.shrink((self.engine.kv_blocks - held) * self.engine.kv_block // self.prefix_block)

    def _let_go(self, seq: Sequence) -> None:
        """The blocks of a sequence, `own` of them its own, are free."""
        rank = seq.rank
        self.held[rank] -= seq.own
        if seq.refs:
            unit = self.prefix_block
            freed = self.caches[rank].release(seq.request.blocks, seq.refs)
            self.held[rank] -= freed * (unit // self.engine.kv_block)
            self.other[rank] += (seq.refs - freed) * unit * self.parts
            seq.refs = 0
        seq.own = 0

    def _leave(self, seq: Sequence) -> None:
        """A sequence in decode leaves it, after a step of its rank (synced): its blocks become `own`."""
        rank = seq.rank
        step = self.held_step[rank]
        growth = self.growth
        self.decoding[rank] -= 1
        self.offset[rank] -= seq.alone
        if not self.whole:
            self.rings[rank][seq.place] -= 1
            reach = seq.alone + growth * (step - 1) + self.ahead
            seq.own = -(-reach // self.size) - seq.refs * (self.prefix_block // self.engine.kv_block)

    def _join(self, seq: Sequence, tokens: int) -> None:
        """A sequence with `tokens` (in parts) in the cache decodes from the next step of its rank on."""
        rank = seq.rank
        step = self.step - self.skipped[rank]
        growth = self.growth
        seq.start = step
        seq.end = step + seq.left
        seq.alone = tokens + growth * (1 - step)
        self.offset[rank] += seq.alone
        self.decoding[rank] += 1
        if not self.whole:
            seq.place = place = (tokens + self.ahead - 1 - step * growth) % self.size
            self.rings[rank][place] += 1
        seq.entry = (seq.end + self.skipped[rank], seq.no, seq)

    def _preempt(self, rank: int, now: float) -> int:
        """The rank's youngest (of lowest priority, longest) sequence goes back to the queue. Returns the tokens that go to the host."""
        running = [entry[2] for entry in self._ends if entry[2].rank == rank and entry is entry[2].entry]
        seq = max(running + self.parts_of[rank], key=lambda one: one.key)
        swapped = 0
        if seq.entry is None:
            self.parts_of[rank].remove(seq)
            self.other[rank] -= seq.todo * self.parts
        else:
            stalls = self._stalls.get(rank)
            if stalls is None:
                seq.last_s = now
            else:
                last, others = stalls[0], stalls[2]
                if seq in others:
                    others.remove(seq)
                else:
                    stalls[1] -= 1
                    seq.last_s = last
            step = self.held_step[rank]
            tokens = seq.alone + self.growth * (step - 1)
            self._leave(seq)
            seq.entry = None
            seq.left = seq.end - step
            if self.engine.preempt == "swap":
                seq.ready, seq.done = 2, tokens
                swapped = tokens
            else:
                seq.left -= 1
                seq.todo = tokens // self.parts + 1
        if not seq.ready:
            seq.done = seq.part = 0
        self._let_go(seq)
        self.counts["preempted"] += 1
        self.integrals["running"] += now - seq.running_s
        self.running[rank] -= 1
        self.waiting[rank] += 1
        seq.waiting_s = now
        if self.fifo:
            self.queues[rank].appendleft(seq)
        else:
            heapq.heappush(self.queues[rank], (seq.key, seq))
        return swapped

    def _schedule(self, rank: int, now: float) -> tuple[int, int, int]:
        """What the rank does in the step that starts now: prompt tokens, their pairs, and tokens of cache that are moved. Its sequences in
        decode come first, then prompts under way, then the queue in its order up to the first that has no room."""
        self._sync(rank, now)
        engine = self.engine
        parts, growth, size, ahead, whole = self.parts, self.growth, self.size, self.ahead, self.whole
        mixed = engine.prompts == "mixed" and self.decodes
        under_way = self.parts_of[rank]
        step = self.held_step[rank]
        room = engine.kv_blocks - self.held[rank] - self._needs(rank, step, 1)
        moved = 0
        preempted = False
        while room < 0 and self.decodes and (mixed or not under_way):
            moved += self._preempt(rank, now)
            room = engine.kv_blocks - self.held[rank] - self._needs(rank, step, 1)
            preempted = True
        if self.caches and room >= 0:
            self.caches[rank].shrink(room * engine.kv_block // self.prefix_block)
        budget = engine.batch_tokens - (self.decoding[rank] * self.most if mixed else 0)
        tokens = pairs = 0
        worked = self._worked
        for seq in under_way:
            if budget <= 0:
                break
            part = min(engine.chunk, budget, seq.todo - seq.done)
            seq.part = part
            tokens += part
            pairs += part * seq.done + part * (part + 1) // 2
            budget -= part
            worked.append(seq)
        queue = self.queues[rank]
        while queue and self.admits and not preempted and self.running[rank] < self.slots:
            seq = queue[0] if self.fifo else queue[0][1]
            hits = shared = 0
            if seq.ready:
                if mixed and budget < self.most:
                    break
                need = -(-(seq.done + ahead + (seq.left if whole else 1) * growth) // size)
                blocks = need if whole else -(-(seq.done + ahead) // size)
            else:
                if budget <= 0:
                    break
                need = blocks = -(-(seq.todo * parts + ahead + (seq.left * growth if whole else 0)) // size)
                if self.caches:
                    cache = self.caches[rank]
                    unit = self.prefix_block // engine.kv_block
                    hits = cache.hits(seq.request.blocks, seq.request.prompt // self.prefix_block)
                    shared = hits * unit
                    need -= shared - cache.idle_of(seq.request.blocks, hits) * unit
            if need > room:
                break
            room -= need
            if self.fifo:
                queue.popleft()
            else:
                heapq.heappop(queue)
            self.waiting[rank] -= 1
            self.running[rank] += 1
            self.integrals["waiting"] += now - seq.waiting_s
            seq.running_s = now
            if seq.started_s is None:
                seq.started_s = now
            if seq.ready:
                if seq.ready == 2:
                    moved += seq.done
                budget -= self.most
                self.held[rank] += blocks
                seq.own = blocks
                if seq.ready == 2 or self.on_room is None or self.on_room(seq, now):
                    self._resume(seq)
                seq.ready = 0
                continue
            if hits:
                woken = cache.take(seq.request.blocks, hits)
                self.other[rank] -= (hits - woken) * self.prefix_block * parts
                seq.refs = hits
                seq.done = min(hits * self.prefix_block, seq.todo - 1)
                if seq.first_s is None:
                    seq.cached = seq.done
                    self.counts["hit_tokens"] += seq.done
            self.held[rank] += need
            self.other[rank] += seq.todo * parts
            seq.own = blocks - shared
            part = min(engine.chunk, budget, seq.todo - seq.done)
            seq.part = part
            tokens += part
            pairs += part * seq.done + part * (part + 1) // 2
            budget -= part
            under_way.append(seq)
            worked.append(seq)
            if self.caches:
                cache.shrink(room * engine.kv_block // self.prefix_block)
        if not (under_way or preempted):
            self.awake.discard(rank)
        self._short[rank] = self._shortage(rank)
        return tokens, pairs, moved

    def _resume(self, seq: Sequence) -> None:
        """A sequence whose cache has come decodes again."""
        self._join(seq, seq.done)
        heapq.heappush(self._ends, seq.entry)
        self._resumed.append(seq)

    def _shortage(self, rank: int) -> int:
        """The step that the rank (synced) cannot start without a look at its blocks: the first that finds too few, or an earlier one."""
        decoding = self.decoding[rank]
        free = self.engine.kv_blocks - self.held[rank]
        if self.whole or not decoding or free >= UNLIMITED:
            return NEVER
        step = self.held_step[rank]
        low = (
            (free // decoding - 1) * self.size // self.growth
        )  # every sequence takes at most one block more than its growth
        if low < 32:
            low, high = max(low, 0), (free // decoding + 1) * self.size // self.growth + 1
            while high - low > 1:  # steps: `low` have room, `high` have none
                middle = (low + high) // 2
                if self._needs(rank, step, middle) <= free:
                    low = middle
                else:
                    high = middle
        return self.step + low

    def _finish(self, seq: Sequence, now: float) -> None:
        """The last token is out."""
        rank = seq.rank
        request = seq.request
        counts = self.counts
        self.running[rank] -= 1
        self.integrals["running"] += now - seq.running_s
        self.awake.add(rank)
        if self.hold and not (self.on_finish is not None and self.on_finish(seq, now)):
            self.other[rank] += seq.todo * self.parts
            return
        self._let_go(seq)
        counts["finished"] += 1
        counts["prompt_tokens"] += request.prompt
        counts["output_tokens"] += request.output
        served = self.served
        if served is not None:
            arrival, first, started = request.arrival_s, seq.first_s, seq.started_s
            assert first is not None and started is not None
            served.arrival_s.append(arrival)
            served.queued_s.append(started - arrival)
            served.ttft_s.append(first - arrival)
            served.e2e_s.append(now - arrival)
            served.prompt.append(request.prompt)
            served.output.append(request.output)
            served.cached.append(seq.cached)
        if self.on_finish is not None and not self.hold:
            self.on_finish(seq, now)

    def _advance(self, seq: Sequence, now: float) -> None:
        """A part of a prompt is computed."""
        rank = seq.rank
        seq.done += seq.part
        part, seq.part = seq.part, 0
        self.counts["computed_tokens"] += part
        self.awake.add(rank)
        if self.caches and seq.request.blocks:
            unit = self.prefix_block // self.engine.kv_block
            blocks, most = seq.request.blocks, min(seq.done, seq.request.prompt) // self.prefix_block
            for block in blocks[seq.refs : most]:
                if self.caches[rank].keep(block):
                    self.held[rank] -= unit
                    self.other[rank] -= self.prefix_block * self.parts
                seq.refs += 1
                seq.own -= unit
        if seq.done < seq.todo:
            if self.on_chunk is not None:
                seq.part = part
                self.on_chunk(seq, now)
                seq.part = 0
            return
        self.parts_of[rank].remove(seq)
        self.other[rank] -= seq.todo * self.parts
        if seq.first_s is None:
            seq.first_s = now
            if self.on_first is not None:
                self.on_first(seq, now)
        else:
            add_run(self.gaps, now - seq.last_s, 0, 1, 1)
        seq.last_s = now
        if seq.left:
            self._join(seq, seq.todo * self.parts)
            heapq.heappush(self._ends, seq.entry)
            stalls = self._stalls.get(rank)
            if stalls is not None:
                stalls[2].append(seq)
        else:
            self._finish(seq, now)

    def _sample(self, now: float) -> None:
        """The series up to `now`, before what happens then. A full series keeps every second row and goes on at half the rate."""
        series = self.series
        ranks = range(self.engine.ranks)
        waiting, running, blocks = sum(self.waiting), sum(self.running), sum(self.held_now(rank) for rank in ranks)
        while self.sample_at <= now:
            for name, value in (
                ("time_s", self.sample_at),
                ("waiting", waiting),
                ("running", running),
                ("blocks", blocks),
            ):
                series[name].append(value)
            if len(series["time_s"]) >= SAMPLES:
                for name in series:
                    series[name] = series[name][::2]
                self.sample_s *= 2
                self.sample_at = series["time_s"][-1]
            self.sample_at += self.sample_s

    def _fullest(self, working: set[int]) -> tuple[int, int, int]:
        """Of the ranks in decode: the largest context, what it grows by in a step, and for how many steps it stays the largest."""
        growth = self.growth
        best = (0, 0)
        lines = []
        for rank, decoding in enumerate(self.decoding):
            if decoding and rank not in working:
                step = self.step - self.skipped[rank]
                line = (self.offset[rank] + decoding * growth * step, decoding * growth)
                lines.append(line)
                if line > best:
                    best = line
        context, grows = best
        steps = min(
            ((context - other) // (faster - grows) + 1 for other, faster in lines if faster > grows), default=NEVER
        )
        return context, grows, steps

    def _run(self) -> Generator[float, None, None]:
        """The loop; it stops wherever `run_until` says, and says when it would go on."""
        engine = self.engine
        ranks, parts = engine.ranks, self.parts
        first_mode = engine.prompts != "mixed"
        awake, ends, short, stalls, worked, resumed = (
            self.awake,
            self._ends,
            self._short,
            self._stalls,
            self._worked,
            self._resumed,
        )
        counts, integrals, gaps, decoding = self.counts, self.integrals, self.gaps, self.decoding
        lines: dict[int, Line] = {}
        kept: Line | None
        t: float = 0
        yield math.inf
        while True:
            while self._arrival_s() <= t:
                self._take()
            if not awake and not (self.decodes and any(decoding)):
                if any(self.waiting) and not any(self.running) and self.admits and not self.hold:
                    raise RuntimeError("requests wait, none runs, and none may start")
                at = self._arrival_s()
                if at > self._limit or at == math.inf:
                    self._cut = None
                    yield at
                    if self._cut is not None:
                        t, self._cut = max(t, self._cut), None
                else:
                    if self.sample_at < at:
                        self._sample(at)
                    self.now = t = at
                continue
            if t >= self._limit and not self._start:
                yield t
                continue
            # what the step holds
            step = self.step
            prompt = pairs = moved = 0
            fullest = 0  # prompt tokens of the rank with most
            working: set[int] = set() if self.decodes else set(range(ranks))
            for seq in self._landed:
                self._resume(seq)
            self._landed.clear()
            if min(short) <= step:
                awake.update(rank for rank in range(ranks) if short[rank] <= step)
            for rank in sorted(awake):
                tokens, some, move = self._schedule(rank, t)
                if tokens:
                    prompt += tokens
                    pairs = max(pairs, some)
                    fullest = max(fullest, tokens)
                    if first_mode:
                        working.add(rank)
                moved = max(moved, move)
            sequences = sum(decoding) - sum(decoding[rank] for rank in working)
            if not sequences and not prompt and not moved:
                continue  # nothing may start: idle above
            context, grows, most = self._fullest(working)
            if not sequences and not prompt:
                line = NOTHING
            elif prompt:
                line = engine.prices.step(sequences / ranks, context / parts, prompt / ranks, pairs, fullest)
            else:
                kept = lines.get(sequences)
                if kept is not None and kept.since <= context / parts < kept.until:
                    line = kept
                else:
                    line = lines[sequences] = engine.prices.step(sequences / ranks, context / parts)
            slope = line.per_token_s / parts
            first = line.base_s + slope * context
            more = slope * grows
            if awake or moved or resumed or stalls or prompt:
                steps = 1
                first += moved * engine.swap_s / parts
            else:
                while True:
                    due, _, seq = ends[0]
                    if ends[0] is not seq.entry:
                        heapq.heappop(ends)
                    elif due < seq.end + self.skipped[seq.rank]:
                        heapq.heappop(ends)
                        seq.entry = (seq.end + self.skipped[seq.rank], seq.no, seq)
                        heapq.heappush(ends, seq.entry)
                    else:
                        break
                steps = min(due - step, min(short) - step, most)
                if grows and line.until * parts < context + (steps - 1) * grows:
                    steps = max(1, min(steps, math.ceil((line.until * parts - context) / grows)))
                at = self._arrival_s()
                if steps > 1 and at < t + steps * first + more * (steps * (steps - 1) // 2):
                    steps = _steps_to(at, t, first, more, steps)
            end = t + steps * first + more * (steps * (steps - 1) // 2)
            self._cut = None
            while end > self._limit:
                yield end
                if self._cut is not None:
                    if steps > 1 and self._cut < end:
                        steps = _steps_to(self._cut, t, first, more, steps)
                        end = t + steps * first + more * (steps * (steps - 1) // 2)
                    self._cut = None
            while self._arrival_s() < end:
                self._take()
            if self.sample_at < end:
                self._sample(end)
            if len(self.steps) < self.steps_kept:
                self._keep(t, first, more, steps, sequences, prompt, context, grows)
            # what it brings
            integrals["busy"] += end - t
            counts["events"] += 1
            counts["steps"] += steps
            step += steps
            self.step = step
            plain = sequences
            for seq in resumed:
                if seq.rank not in working:
                    plain -= 1
                    add_run(gaps, end - seq.last_s, 0, 1, 1)
            for rank in working:
                joined = [seq for seq in resumed if seq.rank == rank]
                if rank not in stalls:
                    stalls[rank] = [t, decoding[rank] - len(joined), []]
                stalls[rank][2].extend(joined)
                self.skipped[rank] += 1
            resumed.clear()
            for rank in [rank for rank in stalls if rank not in working]:
                last, weight, others = stalls.pop(rank)
                plain -= weight + len(others)
                if weight:
                    add_run(gaps, end - last, 0, 1, weight)
                for seq in others:
                    add_run(gaps, end - seq.last_s, 0, 1, 1)
            if plain:
                add_run(gaps, first, more, steps, plain)
            self.now = t = end
            while ends and ends[0][0] <= step:
                entry = heapq.heappop(ends)
                seq = entry[2]
                if entry is not seq.entry:
                    continue
                if seq.end + self.skipped[seq.rank] > step:
                    seq.entry = (seq.end + self.skipped[seq.rank], seq.no, seq)
                    heapq.heappush(ends, seq.entry)
                    continue
                self._sync(seq.rank, t)
                self._leave(seq)
                seq.entry = None
                self._finish(seq, t)
            if worked:
                for seq in worked:
                    self._sync(seq.rank, t)
                    self._advance(seq, t)
                worked.clear()
            if self.check is not None:
                self.check(self)

    def _keep(
        self, t: float, first: float, more: float, steps: int, sequences: int, prompt: int, context: int, grows: int
    ) -> None:
        """Steps of a run, one by one, for the timeline."""
        for index in range(min(steps, self.steps_kept - len(self.steps))):
            begin = t + index * first + more * (index * (index - 1) // 2)
            end = t + (index + 1) * first + more * (index * (index + 1) // 2)
            self.steps.append(Step(begin, end, sequences, prompt, (context + index * grows) / self.parts))

    def _arrival_s(self) -> float:
        """When the next request comes; infinite: none is known."""
        stream = math.inf if self._head is None else self._head.arrival_s + self.engine.request_s
        return min(stream, self._inbox[0][0]) if self._inbox else stream

    def _take(self) -> None:
        """The next request comes."""
        head = self._head
        if head is not None:
            at = head.arrival_s + self.engine.request_s
            if not self._inbox or at <= self._inbox[0][0]:
                self._head = next(self._stream, None)
                self._enter(at, head, None, None, None)
                return
        at, _, request, rank, first_s, tag = heapq.heappop(self._inbox)
        self._enter(at, request, rank, first_s, tag)


def _steps_to(time_s: float, start_s: float, first_s: float, more_s: float, most: int) -> int:
    """The fewest steps, of at least 1 and at most `most`, at whose end it is `time_s` or later, from `start_s` on: step i takes `first_s + i
    more_s`."""
    need = time_s - start_s
    half = first_s - more_s / 2
    if more_s:
        guess = (math.sqrt(half * half + 2 * more_s * max(need, 0)) - half) / more_s
    else:
        guess = need / first_s if first_s else most
    steps = min(max(math.ceil(guess), 1), most)
    while steps < most and start_s + steps * first_s + more_s * (steps * (steps - 1) // 2) < time_s:
        steps += 1
    while steps > 1 and start_s + (steps - 1) * first_s + more_s * ((steps - 1) * (steps - 2) // 2) >= time_s:
        steps -= 1
    return steps
