"""One attention-DP rank of a worker: its queue, its sequences, its blocks."""

from __future__ import annotations

from heapq import heappop, heappush
from collections.abc import Callable

from . import gaps
from .live_request import BROUGHT, COMPUTED, SWAPPED, Sequence
from .prefix import PrefixCache
from .rules import Rules

NEVER = 1 << 62
"""A step that is never reached."""
UNLIMITED = 1 << 39
"""Free blocks that nobody counts."""


class Shared:
    """What the ranks of a worker share. `ends`: a heap of (step, number, sequence) of the sequences in decode, by the step after
    which they end; `worked`: sequences whose prompts are in the step under way; `resumed`: those that decode in it after a pause."""

    __slots__ = ("decoding", "ends", "gaps", "held", "hit_tokens", "most_blocks", "most_running", "most_waiting", "on_room", "preempted", "queued_s", "queued_since", "resumed", "running", "running_all",
                 "running_s", "waiting", "waiting_all", "waiting_s", "worked")  # fmt: skip

    def __init__(self, ranks: int) -> None:
        self.ends: list[tuple[int, int, Sequence]] = []
        self.worked: list[Sequence] = []
        self.resumed: list[Sequence] = []
        self.gaps: dict[int, float] = {}
        self.waiting, self.running = [0] * ranks, [0] * ranks
        self.waiting_all = self.running_all = self.decoding = self.held = 0
        self.most_waiting = self.most_running = self.most_blocks = 0
        self.preempted = self.hit_tokens = 0
        self.waiting_s: float = 0
        self.running_s: float = 0
        self.queued_s: float = 0
        self.queued_since: float = 0
        self.on_room: Callable[[Sequence, float], bool] | None = None


    def starts(self, index: int, count: int, now: float) -> None:
        """Some that waited at a rank run."""
        self.waiting[index] -= count
        self.running[index] += count
        self.waiting_all -= count
        if not self.waiting_all:
            self.queued_s += now - self.queued_since
        self.running_all += count
        if self.running_all > self.most_running:
            self.most_running = self.running_all


class Rank:
    """Steps are counted by the worker; this rank has decoded in all but `skipped` of them.

    Context of its sequences in the step after its step s: `offset + decoding growth s`. Tokens in blocks held: the sum of contexts
    (before that step) + `other`. Blocks held after its step s, with g = growth s: `fixed + decoding (g // size)` + sequences whose
    place in the ring is at or beyond `size - g % size`."""

    __slots__ = (
        "blocks", "blocks_s", "cache", "decoding", "fixed", "index", "last_s", "last_tokens", "offset", "other", "queue", "ring", "rules", "shared",
        "short", "skipped", "stall", "tokens_s", "under_way",
    )  # fmt: skip

    def __init__(self, index: int, rules: Rules, shared: Shared) -> None:
        self.index, self.rules, self.shared = index, rules, shared
        self.queue = rules.new_queue()
        self.under_way: list[Sequence] = []  # prompts in part computed
        self.decoding = self.offset = self.other = self.fixed = self.skipped = 0
        self.ring = [0] * rules.size
        self.cache = PrefixCache() if rules.prefix_cache else None
        self.short = NEVER  # the step that cannot start without a look at the blocks
        self.stall: tuple[float, list[Sequence]] | None = None  # decode waits for prompts: since when; who joined since
        self.last_s: float = 0
        self.blocks = 0  # held when it was last touched, and what came and went since
        self.last_tokens = 0
        self.blocks_s: float = 0  # twice the integral
        self.tokens_s: float = 0

    def held(self, step: int) -> int:
        """Blocks that sequences hold after step `step` of the worker, if none has come or gone until then."""
        if self.rules.whole or not self.decoding:
            return self.fixed
        turns, rest = divmod((step - self.skipped) * self.rules.growth, self.rules.size)
        return self.fixed + self.decoding * turns + (sum(self.ring[-rest:]) if rest else 0)

    def tokens(self, step: int) -> int:
        """Parts of tokens in these blocks; a prompt counts whole from its first step on."""
        return self.offset + self.decoding * self.rules.growth * (step - self.skipped - 1) + self.other

    def touch(self, step: int, now: float) -> None:
        """Books blocks and tokens up to `now`; call it before anything changes."""
        elapsed = now - self.last_s
        if elapsed:
            held = before = self.blocks
            rules, decoding = self.rules, self.decoding
            if decoding:
                own_step = step - self.skipped
                tokens = self.offset + decoding * rules.growth * (own_step - 1) + self.other
                self.tokens_s += elapsed * (self.last_tokens + tokens)
                self.last_tokens = tokens
                if not rules.whole:
                    turns, rest = divmod(own_step * rules.growth, rules.size)
                    self.blocks = held = self.fixed + decoding * turns + (sum(self.ring[-rest:]) if rest else 0)
            else:
                self.tokens_s += elapsed * 2 * self.last_tokens
            self.blocks_s += elapsed * (before + held)
            self.last_s = now
            if held != before:
                shared = self.shared
                shared.held += held - before
                if shared.held > shared.most_blocks:
                    shared.most_blocks = shared.held
            if self.cache is not None:
                self.cache.shrink((rules.kv_blocks - held) // rules.unit_blocks)

    def grown(self, step: int) -> int:
        """Blocks that the step after `step` takes."""
        rules = self.rules
        if rules.whole or not self.decoding:
            return 0
        if rules.growth == 1:
            return self.ring[-1 - (step - self.skipped) % rules.size]
        return self.held(step + 1) - self.held(step)

    def settle(self, step: int) -> None:
        """When blocks may run short, at the first step that finds too few or an earlier one, unless more is admitted before."""
        rules = self.rules
        growing = self.decoding + len(self.under_way)
        free = rules.kv_blocks - self.blocks
        if rules.whole or not growing or free >= UNLIMITED:
            self.short = NEVER
            return
        size, growth = rules.size, rules.growth
        low = (free // growing - 1) * size // growth  # a sequence takes at most one block more than its growth
        if low < 32:
            low, high = max(low, 1), (free // growing + 1) * size // growth + 1
            if self.under_way:
                high = 0  # a prompt is not in the ring yet: one step, then again
            while high - low > 1:  # steps: for `low` there is room, for `high` there is not
                middle = (low + high) // 2
                if self.held(step + middle) <= rules.kv_blocks:
                    low = middle
                else:
                    high = middle
        self.short = step + low

    def add_tokens(self, tokens: int) -> None:
        """Parts of tokens are in the blocks held from now on, beside the contexts in decode."""
        self.other += tokens
        self.last_tokens += tokens

    def take(self, blocks: int) -> None:
        """Blocks are held from now on; fewer than none: are free."""
        self.fixed += blocks
        self.blocks += blocks
        shared = self.shared
        shared.held += blocks
        if shared.held > shared.most_blocks:
            shared.most_blocks = shared.held

    def push(self, seq: Sequence) -> None:
        """Into the queue, behind all that go before it; one that was preempted goes before all that came after it."""
        rules = self.rules
        if rules.rank_of is None:
            if self.queue and self.queue[0].no > seq.no:
                self.queue.appendleft(seq)
            else:
                self.queue.append(seq)
        else:
            heappush(self.queue, (self.key(seq), seq))

    def key(self, seq: Sequence) -> tuple[int, int]:
        """Its place in the order of the policy."""
        rank_of = self.rules.rank_of
        return (0 if rank_of is None else rank_of(seq.request), seq.no)

    def join(self, seq: Sequence, tokens: int, step: int) -> None:
        """A sequence with `tokens` in the cache, in parts, decodes from the step after `step` on. They are no longer among the `other`."""
        self.other -= tokens
        rules = self.rules
        growth = rules.growth
        own_step = step - self.skipped
        seq.end = own_step + seq.left
        seq.alone = tokens + growth * (1 - own_step)
        self.offset += seq.alone
        self.decoding += 1
        self.shared.decoding += 1
        if not rules.whole:
            size = rules.size
            reach = tokens + rules.ahead - 1
            seq.level, seq.place = divmod(reach - growth * own_step, size)
            self.ring[seq.place] += 1
            self.fixed += seq.level - reach // size
        seq.entry = entry = (seq.end + self.skipped, seq.no, seq)
        heappush(self.shared.ends, entry)

    def leave(self, seq: Sequence, step: int) -> int:
        """A sequence no longer decodes; its blocks are its `own` again. Returns the tokens in its cache, in parts."""
        rules = self.rules
        tokens = seq.alone + rules.growth * (step - self.skipped - 1)
        self.offset -= seq.alone
        self.last_tokens -= tokens
        self.decoding -= 1
        self.shared.decoding -= 1
        seq.entry = None
        if not rules.whole:
            self.ring[seq.place] -= 1
            blocks = (tokens + rules.ahead - 1) // rules.size
            self.fixed += blocks - seq.level
            seq.own = blocks + 1 - seq.refs * rules.unit_blocks
        return tokens

    def let_go(self, seq: Sequence) -> None:
        """The blocks of a sequence are free."""
        own = seq.own
        self.fixed -= own
        self.blocks -= own
        self.shared.held -= own
        seq.own = 0
        if seq.refs:
            cache, rules = self.cache, self.rules
            assert cache is not None
            freed = cache.release(seq.request.blocks, seq.refs)
            self.take(-freed * rules.unit_blocks)
            self.add_tokens((seq.refs - freed) * rules.unit * rules.parts)
            seq.refs = 0

    def register(self, seq: Sequence) -> None:
        """The prompt's blocks that are computed are text that others may share."""
        cache, rules = self.cache, self.rules
        assert cache is not None
        for block in seq.request.blocks[seq.refs : min(seq.done, seq.request.prompt) // rules.unit]:
            if cache.keep(block):  # computed twice, kept once
                self.take(-rules.unit_blocks)
                self.add_tokens(-rules.unit * rules.parts)
            seq.refs += 1
            seq.own -= rules.unit_blocks

    def schedule(self, step: int, now: float, admits: bool, decodes: bool) -> tuple[int, int, int]:
        """What the rank does in the step after `step`: prompt tokens, their pairs, parts of tokens of cache that are moved. Its sequences
        in decode come first, then prompts under way, then the queue in its order, up to the first that has no room."""
        self.touch(step, now)
        rules, shared, under_way = self.rules, self.shared, self.under_way
        mixed = rules.mixed and decodes
        room = rules.kv_blocks - self.blocks - self.grown(step)
        moved = preempted = started = 0
        while room < 0 and decodes and (mixed or not under_way):
            moved += self._preempt(step, now)
            preempted += 1
            room = rules.kv_blocks - self.blocks - self.grown(step)
        if self.cache is not None and room >= 0:
            self.cache.shrink(room // rules.unit_blocks)
        budget = rules.budget - self.decoding * rules.most if mixed else rules.budget
        tokens = pairs = 0
        worked = shared.worked
        chunk = rules.chunk
        for seq in under_way:
            if budget <= 0:
                break
            seq.part = part = min(chunk, budget, seq.todo - seq.done)
            tokens += part
            pairs += part * seq.done + part * (part + 1) // 2
            budget -= part
            worked.append(seq)
        if admits and not preempted:
            queue, index, fifo = self.queue, self.index, rules.rank_of is None
            running, slots = shared.running, rules.slots
            whole, cache, parts, ahead, size = rules.whole, self.cache, rules.parts, rules.ahead, rules.size
            taken = added = 0
            while queue and running[index] + started < slots:
                seq = queue[0] if fifo else queue[0][1]
                if budget <= 0 and not (seq.source and not mixed):
                    break
                if seq.source or whole or cache is not None:
                    need = self._admit(seq, room, mixed and budget < rules.most)
                    if need < 0:
                        break
                else:
                    need = -(-(seq.todo * parts + ahead) // size)
                    if need > room:
                        break
                    seq.own = need
                    taken += need
                    added += seq.todo
                room -= need
                if fifo:
                    queue.popleft()
                else:
                    heappop(queue)
                started += 1
                shared.waiting_s += now - seq.waiting_s
                seq.running_s = now
                if seq.started_s is None:
                    seq.started_s = now
                if seq.source:
                    if seq.source == SWAPPED:
                        moved += seq.done
                    if seq.source == SWAPPED or shared.on_room is None or shared.on_room(seq, now):
                        self.resume(seq, step)
                    seq.source = COMPUTED
                    budget -= rules.most
                    continue
                if cache is not None:
                    cache.shrink(room // rules.unit_blocks)
                part = seq.todo - seq.done
                if part > chunk:
                    part = chunk
                if part > budget:
                    part = budget
                seq.part = part
                tokens += part
                pairs += part * seq.done + part * (part + 1) // 2
                budget -= part
                under_way.append(seq)
                worked.append(seq)
            if started:
                if taken:
                    self.take(taken)
                    self.add_tokens(added * parts)
                shared.starts(index, started, now)
        if started or self.short <= step or preempted:
            self.settle(step)
        if preempted:
            self.short = step + 1  # the queue has had no look at the room: one step, then again
        return tokens, pairs, moved

    def _admit(self, seq: Sequence, room: int, full: bool) -> int:
        """Gives a sequence of the queue its blocks. Returns what they and its next step take of `room`; -1: there is none."""
        rules = self.rules
        size = rules.size
        if seq.source:
            reach = seq.done + rules.ahead
            need = -(-(reach + (seq.left if rules.whole else 1) * rules.growth) // size)
            if full or need > room:
                return -1
            seq.own = need if rules.whole else -(-reach // size)
            self.take(seq.own)
            self.add_tokens(seq.done)
            return need
        reach = seq.todo * rules.parts + rules.ahead
        if rules.whole:
            reach += seq.left * rules.growth
        need = seq.own = -(-reach // size)
        if self.cache is not None and seq.request.blocks:
            cache, request = self.cache, seq.request
            hits = cache.hits(request.blocks, request.prompt // rules.unit)
            seq.own -= hits * rules.unit_blocks
            need = seq.own + cache.idle_of(request.blocks, hits) * rules.unit_blocks
            if need > room:
                return -1
            if hits:
                woken = cache.take(request.blocks, hits)
                self.add_tokens(-(hits - woken) * rules.unit * rules.parts)
                seq.refs = hits
                seq.done = min(hits * rules.unit, seq.todo - 1)
                if seq.first_s is None:
                    seq.cached = seq.done
                    self.shared.hit_tokens += seq.done
        elif need > room:
            return -1
        self.take(need)
        self.add_tokens(seq.todo * rules.parts)
        return need

    def resume(self, seq: Sequence, step: int) -> None:
        """A sequence whose cache has come decodes."""
        self.join(seq, seq.done, step)
        self.shared.resumed.append(seq)

    def _preempt(self, step: int, now: float) -> int:
        """The sequence that would be served last goes back to the queue. Returns the parts of tokens that go to the host."""
        rules, shared, index = self.rules, self.shared, self.index
        decoding = [entry[2] for entry in shared.ends if entry[2].rank == index and entry is entry[2].entry]
        seq = max(decoding + self.under_way, key=self.key)
        moved = 0
        if seq.entry is None:
            self.under_way.remove(seq)
            self.add_tokens(-seq.todo * rules.parts)
            seq.done = seq.part = 0
        else:
            if self.stall is None:
                seq.last_s = now
            elif seq in self.stall[1]:
                self.stall[1].remove(seq)
            else:
                seq.last_s = self.stall[0]
            seq.left = seq.end - (step - self.skipped)
            tokens = self.leave(seq, step)
            if rules.swap:
                seq.source, seq.done = SWAPPED, tokens
                moved = tokens
            else:
                seq.left -= 1
                seq.todo = tokens // rules.parts + 1
                seq.done = 0
        self.let_go(seq)
        shared.preempted += 1
        shared.running_s += now - seq.running_s
        shared.running_all -= 1
        shared.running[index] -= 1
        self.waits(seq, now)
        return moved

    def waits(self, seq: Sequence, now: float) -> None:
        """A sequence comes into the queue."""
        shared = self.shared
        seq.waiting_s = now
        shared.waiting[self.index] += 1
        if not shared.waiting_all:
            shared.queued_since = now
        shared.waiting_all += 1
        if shared.waiting_all > shared.most_waiting:
            shared.most_waiting = shared.waiting_all
        self.push(seq)

    def flush(self, end: float, resumed: int) -> int:
        """The first tokens after a stall, but of the `resumed`: books their gaps, returns how many they are."""
        assert self.stall is not None
        since, others = self.stall
        self.stall = None
        weight = self.decoding - len(others) - resumed
        if weight:
            gaps.add_run(self.shared.gaps, end - since, 0, 1, weight)
        for seq in others:
            gaps.add_run(self.shared.gaps, end - seq.last_s, 0, 1, 1)
        return weight + len(others)


__all__ = ["BROUGHT", "NEVER", "Rank", "Shared"]
