"""The usual case of a worker: one rank, a token a step, first come first served, prompts in the same steps as decode, and nothing but
its stream of requests reaches it (open traffic to one worker). The loop of `Worker` does all this too, and more; here the same is done with few looks at objects, which
is what the time of a simulation goes into. What is unusual is left to that loop, which then goes on from the same state:
room or slots that are not certain to be enough, a preempted request, one of a single output token, one that may be too long.

Blocks held are counted only where a bound does not do: after a step s they are at most `fixed + decoding (s // size + 1)`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

from .dp_rank import NEVER, Rank, Shared, floors
from .live_request import Sequence
from .records import Engine, Line, Request
from .rules import Rules
from .runs_of_steps import NOTHING, steps_to
from .served_rows import ServedRows

ROWS = 2048
"""Requests that end from one flush of rows to the next."""


class Worker(Protocol):
    """What this loop sees of a worker, and changes."""

    engine: Engine
    rules: Rules
    shared: Shared
    ranks: list[Rank]
    rows: ServedRows | None
    awake: set[int]
    hold: bool
    admits: bool
    decodes: bool
    step: int
    idle_s: float
    prompts_s: float
    came: int
    finished: int
    computed_tokens: int
    prompt_tokens: int
    output_tokens: int
    route: Any
    on_first: Any
    on_chunk: Any
    on_finish: Any
    on_reject: Any
    check: Any
    _stream: Iterator[Request]
    _head: Request | None
    _stretch: tuple[float, float, float, int] | None

    def _take(self) -> float: ...
    def _sample(self, now: float) -> float: ...
    def _next_end(self) -> int: ...


class Clock(NamedTuple):
    """Where a worker's loop is: time, step, events, the next arrival and sample, and the step that cannot start without a look at the blocks."""

    t: float
    step: int
    events: int
    at: float
    sample_at: float
    short: int


def is_usual(worker: Worker) -> bool:
    """Whether a worker's rules and surroundings are those of this loop."""
    rules = worker.rules
    around = (worker.route, worker.on_first, worker.on_chunk, worker.on_finish, worker.on_reject, worker.check)
    return (
        rules.ranks == rules.parts == rules.growth == rules.most == 1
        and rules.fifo
        and rules.mixed
        and rules.open
        and not rules.whole
        and not any(around)
        and worker.shared.on_room is None
    )


def may_start(worker: Worker) -> bool:
    """Whether what a worker of this kind holds is usual too."""
    if worker.shared.waiting_all or worker.hold or not worker.admits or not worker.decodes:
        return False
    return all(seq.left and seq.first_s is None for seq in worker.ranks[0].under_way)


def run(worker: Worker, clock: Clock, lines: dict[int, Line]) -> Clock:
    """Goes on from where `may_start`, to the first thing that is unusual, or to the end."""
    t, step, events, at, sample_at, short = clock
    rules, shared, rank, price = worker.rules, worker.shared, worker.ranks[0], worker.engine.prices.step
    kv_blocks, size, budget, slots = rules.kv_blocks, rules.size, rules.budget, rules.slots
    chunk, unit, unit_blocks, request_s, safe = rules.chunk, rules.unit, rules.unit_blocks, rules.request_s, rules.safe
    cache, ring, queue, under_way = rank.cache, rank.ring, rank.queue, rank.under_way
    ends, rows = shared.ends, worker.rows
    add_gaps = shared.runs.extend
    stream, head = worker._stream, worker._head
    decoding, offset, fixed = rank.decoding, rank.offset, rank.fixed
    most_blocks, most_running, most_waiting = shared.most_blocks, shared.most_running, shared.most_waiting
    waiting_s, running_s, queued_s = shared.waiting_s, shared.running_s, shared.queued_s
    blocks_s, tokens_s, refs_s = shared.blocks_s, shared.tokens_s, shared.refs_s
    came, computed, hit_tokens = worker.came, worker.computed_tokens, shared.hit_tokens
    finished, prompts, outputs = worker.finished, worker.prompt_tokens, worker.output_tokens
    worked = nobody = list[Sequence]()
    queued_since = shared.queued_since
    held = 0
    asked = 0  # blocks of the prompts in the queue
    unsure = False
    while True:
        # requests that have come
        while at <= t and head is not None:
            _, prompt, output, _, _ = head
            if prompt < 1 or output < 2 or prompt + output > safe:
                break
            if not queue:
                queued_since = at
            seq = Sequence(came, head, 0, output - 1, at, None)
            seq.own = need = (prompt - 1) // size + 1
            asked += need
            queue.append(seq)
            came += 1
            head = next(stream, None)
            at = math.inf if head is None else head.arrival_s + request_s
        if at <= t or short <= step or unsure:
            break
        if queue or under_way:
            started = len(queue)
            left_budget = budget - decoding
            turns, rest = divmod(step + 1, size)
            if (
                left_budget <= 0
                or decoding + len(under_way) + started > slots
                or asked > kv_blocks - fixed - decoding * (turns + 1)
            ):
                break
            # as `Rank.schedule` does it: prompts under way, then the queue, as far as the budget goes
            prompt = pairs = 0
            worked = []
            for seq in under_way:
                if left_budget <= 0:
                    break
                done = seq.done
                seq.part = part = min(chunk, left_budget, seq.todo - done)
                prompt += part
                pairs += part * done + part * (part + 1) // 2
                left_budget -= part
                worked.append(seq)
            if started:
                if started > most_waiting:
                    most_waiting = started
                if cache is not None:
                    room = kv_blocks - fixed - decoding * turns - (sum(ring[-rest:]) if rest else 0)
                while queue and left_budget > 0:
                    seq = queue.popleft()
                    todo = seq.todo
                    own = need = seq.own
                    asked -= own
                    done = 0
                    if cache is not None:
                        if cache.idle:
                            cache.shrink(room // unit_blocks)
                        blocks = seq.request.blocks
                        if blocks:
                            found = cache.find(blocks, min(len(blocks), todo // unit))
                            hits, idle, _, _ = found
                            if hits:
                                seq.own = own = own - hits * unit_blocks
                                need = own + idle * unit_blocks
                                seq.text = cache.take(found, t)
                                seq.refs = hits
                                seq.done = seq.cached = done = min(hits * unit, todo - 1)
                                hit_tokens += done
                        room -= need
                    fixed += need
                    waiting_s += t - seq.waiting_s
                    seq.running_s = seq.started_s = t
                    part = todo - done
                    if part > chunk:
                        part = chunk
                    if part > left_budget:
                        part = left_budget
                    seq.part = part
                    prompt += part
                    pairs += part * done + part * (part + 1) // 2
                    left_budget -= part
                    under_way.append(seq)
                    worked.append(seq)
                if not queue:
                    queued_s += t - queued_since
            turns, rest = divmod(step, size)
            bound = fixed + decoding * (turns + 1)
            if bound > most_blocks:
                held = fixed + decoding * turns + (sum(ring[-rest:]) if rest else 0)
                if held > most_blocks:
                    most_blocks = held
            running = decoding + len(under_way)
            if running > most_running:
                most_running = running
            short = step + max(((kv_blocks - bound) // running - 1) * size, 1)
            context = offset + decoding * step if decoding else 0
            base, slope, _, _ = price(decoding / 1, context / 1, prompt / 1, pairs, prompt)
            takes = base + slope * context
            more: float = 0
            steps = 1
            end = t + takes
            due = ends[0][0] if ends else NEVER
        elif decoding:
            worked = nobody
            context = offset + decoding * step
            base, slope, until, since = lines.get(decoding, NOTHING)
            if not since <= context < until:
                line = price(decoding / 1, context / 1)
                lines[decoding] = line
                base, slope, until, since = line
            takes = base + slope * context
            more = slope * decoding
            due, _, seq = entry = ends[0]
            if entry is not seq.entry:
                due = worker._next_end()
            steps = (short if short < due else due) - step
            if until < math.inf and until < context + (steps - 1) * decoding:
                steps = max(1, min(steps, math.ceil((until - context) / decoding)))
            if steps == 1:
                end = t + takes
            else:
                end = t + steps * takes + more * (steps * (steps - 1) // 2)
                if end > at:
                    steps = steps_to(at, t, takes, more, steps)
                    end = t + steps * takes + more * (steps * (steps - 1) // 2)
            running = decoding
        elif at == math.inf or sample_at < at:
            break
        else:
            worker.idle_s += at - t
            t = at
            continue
        if sample_at < end:
            rank.decoding, rank.fixed, shared.running_all = decoding, fixed, running
            worker.step, worker.came, worker._head = step, came, head
            shared.waiting_all = shared.waiting[0] = len(queue)
            shared.queued_since, worker._stretch = queued_since, (t, takes, more, steps)
            at, sample_at = _sample(worker, at, sample_at, end)
            came, head, queued_since = worker.came, worker._head, shared.queued_since
            worker._stretch = None
            asked = 0
            for seq in queue:
                seq.own = need = (seq.todo - 1) // size + 1
                asked += need
                unsure = unsure or not seq.left
        # what it brings
        events += 1
        if decoding:
            add_gaps((takes, more, steps, decoding))
        else:
            worker.prompts_s += end - t
        step += steps
        t = end
        turns, rest = divmod(step, size)
        if due <= step and (cache is not None or fixed + decoding * (turns + 1) > most_blocks):
            held = fixed + decoding * turns + (sum(ring[-rest:]) if rest else 0)
            if held > most_blocks:
                most_blocks = held
        while due <= step:
            entry = ends[0]
            seq = entry[2]
            if entry is not seq.entry and worker._next_end() > step:
                break
            seq = heappop(ends)[2]
            seq.entry = None
            if cache is not None and cache.idle:
                cache.shrink((kv_blocks - held) // unit_blocks)
            # as `Rank.leave` and `Worker._finish` do it
            left, alone, first, refs = seq.left, seq.alone, seq.own, seq.refs
            tokens = alone + step - 1
            before = alone + (step - left - 1)
            offset -= alone
            decoding -= 1
            joined_s = seq.joined_s
            decode_s, stays_s = t - joined_s, t - seq.running_s
            ring[seq.place] -= 1
            whole = (tokens - 1) // size
            fixed += whole - seq.level
            own = whole + 1 - refs * unit_blocks
            fewer = left * whole - floors(tokens - left, 1, size, left)  # blocks yet to come, summed over its steps
            blocks_s += 2 * first * stays_s + (2 * decode_s * (own - first) - 2 * decode_s * fewer / left)
            running_s += stays_s
            tokens_s += 2 * (joined_s - seq.running_s) * before + decode_s * (before + tokens - 1)
            if refs:
                refs_s += stays_s * refs
                assert cache is not None and seq.text is not None
                own += cache.release(seq.text, t) * unit_blocks
                seq.refs, seq.text = 0, None
            fixed -= own
            held -= own
            arrival_s, prompt, output, _, _ = seq.request
            finished += 1
            prompts += prompt
            outputs += output
            if rows is not None:
                started_s, first_s = seq.started_s, seq.first_s
                assert started_s is not None and first_s is not None
                rows.add(
                    (arrival_s, started_s - arrival_s, first_s - arrival_s, t - arrival_s, prompt, output, seq.cached)
                )
                if not finished % ROWS:
                    rows.flush()
            due = ends[0][0] if ends else NEVER
        for seq in worked:
            # as `Worker._advance`, `Rank.register` and `Rank.join` do it
            todo, part = seq.todo, seq.part
            seq.done = done = seq.done + part
            computed += part
            if cache is not None:
                refs = seq.refs
                new = seq.request.blocks[refs : done // unit]
                if new:
                    seq.text, twice = cache.keep(seq.text, new, seq.running_s, t)
                    if twice:
                        if cache.idle:
                            held = fixed + decoding * turns + (sum(ring[-rest:]) if rest else 0)
                            cache.shrink((kv_blocks - held) // unit_blocks)
                        fixed -= twice * unit_blocks
                    count = len(new)
                    seq.refs = refs + count
                    seq.own -= count * unit_blocks
            if done < todo:
                continue
            under_way.remove(seq)
            seq.first_s = seq.last_s = seq.joined_s = t
            seq.end = last = step + seq.left
            seq.alone = alone = todo + 1 - step
            offset += alone
            decoding += 1
            seq.level, seq.place = level, place = divmod(todo - 1 - step, size)
            ring[place] += 1
            fixed += level - (todo - 1) // size
            seq.entry = entry = (last, seq.no, seq)
            heappush(ends, entry)
    rank.decoding, rank.offset, rank.fixed, rank.short = decoding, offset, fixed, short
    rank.blocks = shared.held = rank.held(step)
    rank.looked = shared.looked
    rank.tokens += prompts - worker.prompt_tokens + outputs - worker.output_tokens
    shared.decoding = decoding
    shared.running_all = shared.running[0] = decoding + len(under_way)
    shared.waiting_all = shared.waiting[0] = len(queue)
    shared.requests[0] = shared.running_all + shared.waiting_all
    worker.awake.clear()
    if queue or under_way:
        worker.awake.add(0)
    shared.queued_since = queued_since
    shared.most_blocks, shared.most_running = most_blocks, most_running
    shared.most_waiting = max(shared.most_waiting, most_waiting, len(queue))
    shared.waiting_s, shared.running_s, shared.queued_s = waiting_s, running_s, queued_s
    shared.blocks_s, shared.tokens_s, shared.refs_s = blocks_s, tokens_s, refs_s
    worker._head, worker.came, worker.computed_tokens, shared.hit_tokens = head, came, computed, hit_tokens
    worker.finished, worker.prompt_tokens, worker.output_tokens = finished, prompts, outputs
    worker.step = step
    return Clock(t, step, events, at, sample_at, short)


def _sample(worker: Worker, at: float, sample_at: float, end: float) -> tuple[float, float]:
    """Samples up to `end`, and the requests that come meanwhile. The next of both."""
    while at < end:
        if sample_at <= at:
            sample_at = worker._sample(at)
        at = worker._take()
    if sample_at < end:
        sample_at = worker._sample(end)
    return at, sample_at
